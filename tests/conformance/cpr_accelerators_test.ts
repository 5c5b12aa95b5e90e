/** Live updates from KVM to the software CPU, and back: the guest does not know the difference. */
import assert from "node:assert/strict";
import { supportedCpuid } from "../../vmm/accel/software/cpuid_model.ts";
import { hostFeatures } from "../../vmm/cpu/definition.ts";
import { FeatureSet } from "../../vmm/cpu/features.ts";
import { findCpuModel } from "../../vmm/cpu/models.ts";
import { hostCpu } from "../../vmm/cpu/tables.ts";
import { KvmAccelerator } from "../../vmm/accel/kvm/system.ts";
import {
  beginTransfer,
  Laboratory,
  onlyKvmTest,
  program,
  setExec,
  startSuccessor,
} from "./program.ts";
import type { AcceleratorName } from "../../vmm/accel/accelerator.ts";
import { assertSteady, Chain, FifoConsole, type Mode, modes } from "./updates.ts";

/** `-cpu denovo64` without what this host's KVM lacks: some are emulated themselves. */
function commonCpu(): string {
  using kvm = new KvmAccelerator();
  const wanted = FeatureSet.of(findCpuModel("denovo64")!.features);
  const lacking = wanted.minus(hostFeatures(hostCpu(kvm))).describe()
    .map((bit) => bit.match(/\.([^.]+(?:\.\d)?) \[/)![1]);
  return ["denovo64", ...lacking.map((name) => `-${name}`)].join(",");
}

/** What `info kvm` says. */
const KVM_SUPPORT = { kvm: "enabled", tcg: "disabled" } as const;

/** Replaces the VMM; fails unless the guest then runs on an accelerator. */
async function update(chain: Chain, mode: Mode, accel: AcceleratorName): Promise<void> {
  await chain.update(mode, { accel });
  assert.equal(await chain.qmp.hmp("info kvm"), `kvm support: ${KVM_SUPPORT[accel]}\r\n`);
}

for (const mode of modes) {
  onlyKvmTest(`${mode} moves guests from KVM to the software CPU and back`, async () => {
    await using lab = await Laboratory.open();
    using console = await FifoConsole.open(lab.path("console"));
    const options = ["-cpu", commonCpu()];
    const { serial } = console;
    const chain = await Chain.start(lab, { guest: "demo", serial, accel: "kvm", options });
    await console.printed("tick 1");
    for (const accel of ["tcg", "tcg", "kvm", "tcg"] as const) {
      await chain.qmp.assertGuestRuns();
      await update(chain, mode, accel);
    }
    await chain.qmp.assertGuestRuns();
    assert.equal(console.text.match(/^tick 1$/gm)?.length, 1, console.text);
  });

  onlyKvmTest(`${mode} keeps what user mode has over a change of accelerator`, async () => {
    await using lab = await Laboratory.open();
    const options = ["-cpu", commonCpu()];
    const chain = await Chain.start(lab, { guest: "counter_cpl3", accel: "kvm", options });
    for (const accel of ["tcg", "kvm"] as const) {
      await chain.qmp.assertGuestRuns();
      await update(chain, mode, accel);
    }
    await chain.qmp.assertGuestRuns();
  });

  onlyKvmTest(
    `${mode} keeps clocks, timers and all CPUs over a change of accelerator`,
    async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const options = ["-smp", "2", "-cpu", commonCpu()];
      const guest = {
        guest: "steady_cpl0",
        serial: console.serial,
        accel: "kvm",
        options,
      } as const;
      const chain = await Chain.start(lab, guest);
      await console.printed("steady 2\n");
      for (const accel of ["tcg", "kvm", "tcg"] as const) {
        await assertSteady(chain.qmp, 2);
        await update(chain, mode, accel);
      }
      await assertSteady(chain.qmp, 2);
    },
  );
}

onlyKvmTest(
  "a CPU that differs is refused before the guest stops, by the feature's name",
  async () => {
    await using lab = await Laboratory.open();
    const cpu = commonCpu();
    const { qmp } = await lab.run("old", { accel: "kvm", options: ["-cpu", `${cpu},-cx16`] });
    const wanted = "CPUID of CPU 0 differs from the saved VM's (only this VM has" +
      " CPUID[eax=01h].ECX.cx16 [bit 13]); start with the same -cpu";
    const special = { accel: "tcg", options: ["-cpu", cpu] } as const;
    const { channels } = await startSuccessor(lab, "new", special);
    await beginTransfer(qmp, channels);
    await qmp.logged("MIGRATION failed");
    assert.ok((await qmp.migration())["error-desc"]?.includes(wanted));
    assert.ok(!qmp.log.includes("STOP"), qmp.log.join());

    const uri = `file:${lab.path("state")}`;
    await setExec(qmp, [...program, ...lab.optionsOf("old", special), "-incoming", uri]);
    assert.ok((await qmp.refusal("migrate", { uri })).includes(wanted));
    await qmp.assertGuestRuns();
  },
);

onlyKvmTest("what the software CPU lacks of a KVM guest's CPU is named", async () => {
  using kvm = new KvmAccelerator();
  const has = hostFeatures(hostCpu(kvm));
  const lacking = has.named().minus(
    hostFeatures({ supported: supportedCpuid(), tscDeadline: true }),
  );
  const first = lacking.describe()[0];
  assert.ok(first, "this host's KVM offers nothing that the software CPU lacks");
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old", { accel: "kvm", options: ["-cpu", "max"] });
  const special = { accel: "tcg", options: ["-cpu", "max"] } as const;
  const { channels } = await startSuccessor(lab, "new", special);
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION failed");
  const reason = (await qmp.migration())["error-desc"];
  assert.ok(reason?.includes("CPU 0 of the saved VM has what this host lacks: CPUID["), reason);
  assert.ok(!qmp.log.includes("STOP"), qmp.log.join());
  await qmp.assertGuestRuns();
});

for (const mode of ["transfer", "exec", "reboot"]) {
  onlyKvmTest(`\`update --mode ${mode} -- … -accel tcg\` is one command`, async () => {
    await using lab = await Laboratory.open();
    const special = { accel: "kvm", options: ["-cpu", commonCpu()] } as const;
    const { vmm, qmp: first } = await lab.run("old", special);
    // A monitor has one client at a time.
    first[Symbol.dispose]();
    const command = ["update", "-qmp", vmm.qmpPath, "--mode", mode, "--"];
    const options = [...command, ...lab.optionsOf("old", { ...special, accel: "tcg" })];
    const { success, stderr } = await new Deno.Command(program[0], {
      args: [...program.slice(1), ...options],
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    const qmp = await lab.monitor(vmm);
    assert.equal(await qmp.hmp("info kvm"), `kvm support: ${KVM_SUPPORT.tcg}\r\n`);
    await qmp.assertGuestRuns();
  });
}
