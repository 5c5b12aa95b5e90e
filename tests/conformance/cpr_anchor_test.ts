/** The anchored cpr-exec's conditions: who cannot have it is told, and the guest runs on. */
import assert from "node:assert/strict";
import { assertRunsIn, GuestMemory } from "../faults/faults.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { kvmTest, Laboratory, program, type Qmp, setExec, type VmmOptions } from "./program.ts";

/** The refusal of an anchored cpr-exec to what this VMM is. */
async function refusal(
  special: VmmOptions,
  prepare?: (qmp: Qmp) => Promise<void>,
): Promise<string> {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm", special);
  using memory = GuestMemory.of(vmm.child.pid);
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...vmm.options, "-incoming", uri]);
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "anchor" });
  await prepare?.(qmp);
  const text = await qmp.refusal("migrate", { uri });
  await assertRunsIn(qmp, memory);
  return text;
}

const sentence = "Cannot use x-cpr-exec-relay=anchor: it";

kvmTest("x-cpr-exec-relay=anchor is refused on the software CPU", async () => {
  const text = await refusal({ accel: "tcg" });
  assert.equal(text, `${sentence} needs KVM, not the software CPU`);
});

onlyKvmTest(
  "x-cpr-exec-relay=anchor says what it does not go with",
  async () => {
    const image = await Deno.makeTempFile({ prefix: "denovo-anchor-" });
    try {
      const drive = `file=${image},format=raw,if=none,id=d,cpr=off`;
      assert.equal(
        await refusal({ options: ["-drive", drive, "-device", "virtio-blk-device,drive=d"] }),
        `${sentence} does not go with disk images that have cpr=off`,
      );
    } finally {
      await Deno.remove(image);
    }
    assert.equal(
      await refusal({ options: ["-machine", "microvm,pcie=on"] }),
      `${sentence} does not go with -machine pcie=on`,
    );
    assert.equal(
      await refusal({ options: ["-machine", "microvm,x-pause-clock=on"] }),
      `${sentence} does not go with x-pause-clock`,
    );
    assert.equal(
      await refusal({}, (qmp) => qmp.setCapability("pause-before-switchover")),
      `${sentence} does not go with pause-before-switchover`,
    );
  },
);
