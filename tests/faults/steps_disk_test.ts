/** A process that fails or stalls when it has claimed a disk image that is not handed over (`cpr=off`). */
import assert from "node:assert/strict";
import type { BlockNode } from "../../devices/block/node.ts";
import { openNode } from "../../devices/block/open_node.ts";
import { diskPermissions } from "../../devices/block/permissions.ts";
import { kvmTest, until } from "../conformance/program.ts";
import { isStopped } from "../processes.ts";
import {
  answering,
  assertEndsWithError,
  assertFailed,
  assertRunsIn,
  FaultLab,
  SIGCONT,
  Survivor,
} from "./faults.ts";
import type { Fault } from "./faulty_vmm.ts";
import { before, exec, Faults, forEach, start, transfer } from "./modes.ts";

/** VMMs with such a disk. */
async function openLab(): Promise<{ faults: FaultLab; image: string }> {
  let image = "";
  const faults = await FaultLab.open((lab) => {
    image = lab.path("disk.img");
    Deno.writeFileSync(image, new Uint8Array(1 << 20));
    const drive = `file=${image},format=raw,if=none,id=d,cpr=off`;
    return { options: ["-drive", drive, "-device", "virtio-blk-device,drive=d"] };
  });
  return { faults, image };
}

/** Another process's use of an image: this one's. @throws {Error} in QEMU's words if a VMM has it */
function takeImage(image: string): BlockNode {
  const node = openNode({
    ...{ driver: "file", nodeName: "other", filename: image, locking: "on", aio: "threads" },
    ...{ readOnly: false, autoReadOnly: false, cache: { direct: false, noFlush: false } },
    ...{ discard: "ignore", detectZeroes: "off" },
  });
  try {
    node.base.setUser("other", diskPermissions(true, true));
    return node;
  } catch (error) {
    node.close();
    throw error;
  }
}

/** Fails unless a VMM has an image for itself. */
function assertHeld(image: string): void {
  assert.throws(() => takeImage(image), /^Error: Failed to get .* lock/);
}

/** From the state's arrival on; the images are claimed between `checked` and `loaded`. */
const isNear = (step: Parameters<typeof before>[0]) =>
  !before(step, "received") && before(step, "taken");

kvmTest("cpr=off, cpr-transfer: who has claimed the image and fails gives it back", async () => {
  const possible = await Faults.of("transfer");
  const { faults, image } = await openLab();
  await using _faults = faults;
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  const survivor = new Survivor();
  await forEach([
    ...possible.at("new", "throw", isNear),
    ...possible.at("new", "kill", isNear),
    ...possible.at("old", "throw", (step) => !before(step, "parked") && before(step, "sent")),
  ], async (fault) => {
    const next = await transfer(faults, qmp, fault);
    if (fault.action === "kill") assert.deepEqual(await next.vmm.ended(), { signal: 9 });
    else await assertEndsWithError(next.vmm);
    await assertFailed(qmp, fault.action === "kill" ? "" : `fault of ${fault.role}`);
    await assertRunsIn(qmp, memory);
    assertHeld(image);
    await faults.onlyLeft(pid);
    await survivor.assertClean(pid);
  });
  const next = await transfer(faults, qmp);
  await qmp.logged("MIGRATION completed");
  await assertRunsIn(await faults.lab.monitor(next.vmm), memory);
  assertHeld(image);
});

kvmTest(
  "cpr=off, cpr-transfer: a guest whose image is claimed stands until it is free",
  async () => {
    const { faults, image } = await openLab();
    await using _faults = faults;
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    const lack = `Another process has the disk image '${image}': end it, then 'cont'`;
    for (const end of ["goes on", "is killed"]) {
      const { vmm: next } = await transfer(faults, qmp, {
        ...{ role: "new", step: "loaded", action: "stop" },
      });
      await assertFailed(qmp, lack);
      assert.equal(await qmp.runState(), "paused");
      assert.equal(await qmp.refusal("cont"), lack);
      assert.equal(await qmp.refusal("system_reset"), lack);
      await memory.assertStands();
      if (end === "goes on") {
        next.child.kill(SIGCONT);
        await assertEndsWithError(next);
      } else {
        next.kill();
      }
      await faults.onlyLeft(vmm.child.pid);
      await qmp.execute("cont");
      await assertRunsIn(qmp, memory);
      assertHeld(image);
    }
    const next = await transfer(faults, qmp);
    await qmp.logged("MIGRATION completed");
    await assertRunsIn(await faults.lab.monitor(next.vmm), memory);
  },
);

/** Goes through faults of a cpr-exec, each of which leaves guest and image in the process. */
async function stays(
  relay: "on" | "off",
  list: (possible: Faults) => Fault[],
  reason = (_fault: Fault) => "",
): Promise<void> {
  const possible = await Faults.of(relay === "on" ? "relay" : "exec");
  const { faults, image } = await openLab();
  await using _faults = faults;
  const { vmm, qmp, memory } = await start(faults);
  using _memory = memory;
  const { pid } = vmm.child;
  let monitor = qmp;
  await forEach(list(possible), async (fault) => {
    await exec(faults, { vmm, qmp: monitor }, relay, fault);
    if (fault.role === "new") monitor = await answering(faults.lab, vmm, "running");
    await assertFailed(monitor, reason(fault));
    await assertRunsIn(monitor, memory);
    assertHeld(image);
    await faults.onlyLeft(pid);
  });
}

kvmTest(
  "cpr=off, cpr-exec: a failure at any step leaves guest and image in the process",
  () =>
    stays("off", (possible) => [
      ...possible.at("old", "throw", (step) => !before(step, "saved")),
      ...possible.at("new", "throw", isNear),
    ], (fault) => `fault of ${fault.role} at ${fault.step}`),
);

kvmTest(
  "cpr=off, cpr-exec: a guest whose image somebody took stands until it is free",
  async () => {
    const { faults, image } = await openLab();
    await using _faults = faults;
    const { vmm, qmp, memory } = await start(faults);
    using _memory = memory;
    await exec(faults, { vmm, qmp }, "off", { role: "old", step: "sent", action: "stop" });
    // It says so first, and a SIGCONT that comes before the SIGSTOP is lost.
    await until(() => isStopped(vmm.child.pid), () => "the VMM's stop");
    const other = takeImage(image);
    vmm.child.kill(SIGCONT);
    // The new program has not got it, and the old one, to which it went back, neither.
    const monitor = await answering(faults.lab, vmm, "paused");
    const lack = `Another process has the disk image '${image}': end it, then 'cont'`;
    await assertFailed(monitor, lack);
    assert.equal(await monitor.refusal("cont"), lack);
    await memory.assertStands();
    other.close();
    await monitor.execute("cont");
    await assertRunsIn(monitor, memory);
    assertHeld(image);
  },
);

kvmTest(
  "cpr=off, relayed cpr-exec: who has claimed the image and fails gives it back",
  () => {
    const isLoaded = (step: string) => step === "loaded";
    return stays("on", (possible) => [
      ...possible.at("helper-takes", "kill", isLoaded),
      ...possible.at("helper-takes", "stop", isLoaded),
      ...possible.at("new", "throw", isLoaded),
    ]);
  },
);
