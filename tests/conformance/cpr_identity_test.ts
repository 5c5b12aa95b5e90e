/** A successor whose devices are others than the guest's is refused before the guest is stopped. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  program,
  type Qmp,
  setExec,
  startSuccessor,
  type Vmm,
} from "./program.ts";
import { assertCounts, assertUnharmed } from "./updates.ts";

/** A machine's devices by what a typist may get wrong. */
function devices(
  { mac = "52:54:00:00:00:01", queues = 1, more = [] as string[] },
): string[] {
  return [
    ...["-blockdev", "null-co,node-name=d,size=1048576"],
    ...["-device", `virtio-blk-device,id=disk,drive=d,num-queues=${queues}`],
    ...["-device", `virtio-net-device,id=card,mac=${mac}`],
    ...["-device", "virtio-serial-device,id=bus", "-device", "virtserialport,id=port,name=agent"],
    ...more,
  ];
}

const mistakes: [options: string[], reason: RegExp][] = [
  [
    devices({ mac: "52:54:00:00:00:02" }),
    /Device 'card' differs: this VM has mac 52:54:00:00:00:02, the saved VM has 52:54:00:00:00:01/,
  ],
  [devices({ queues: 2 }), /Device 'disk' differs: this VM has num-queues 2, the saved VM has 1/],
  [
    devices({ more: ["-device", "virtio-rng-device,id=new"] }),
    /Device 'new' \(virtio-rng-device\) of this VM is missing in the saved VM: start this one wi/,
  ],
  [
    devices({}).slice(0, 4),
    /Device 'card' \(virtio-net-device\) of the saved VM is missing in this VM: start it with/,
  ],
  // With the devices in other places as well.
  [devices({ more: ["-machine", "acpi=off"] }), /\bacpi\b/],
];

/** Fails unless a guest has gone on as if nothing had been tried. */
async function assertNothingHappened(qmp: Qmp): Promise<void> {
  assert.ok(!qmp.log.includes("STOP"), qmp.log.join(", "));
  assert.equal(await qmp.runState(), "running");
  await assertCounts(qmp, layout.counter);
}

async function transferRefused(lab: Laboratory, qmp: Qmp, i: number, options: string[]) {
  const successor = await startSuccessor(lab, `wrong${i}`, { options });
  await beginTransfer(qmp, successor.channels);
  await qmp.logged("MIGRATION failed");
  await successor.vmm.ended();
  const { "error-desc": reason } = await qmp.migration();
  return reason!;
}

async function execRefused(lab: Laboratory, qmp: Qmp, vmm: Vmm, options: string[]) {
  const own = vmm.options.slice(0, vmm.options.indexOf("-blockdev"));
  const uri = `file:${lab.path("state")}`;
  await setExec(qmp, [...program, ...own, ...options, "-incoming", uri]);
  qmp.log.length = 0;
  return await qmp.refusal("migrate", { uri });
}

kvmTest("another mac, number of queues, device or acpi= is refused by name", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old", { options: devices({}) });
  await qmp.withEvents();
  for (const [i, [options, reason]] of mistakes.entries()) {
    assert.match(await transferRefused(lab, qmp, i, options), reason);
    await assertNothingHappened(qmp);
    assert.match(await execRefused(lab, qmp, vmm, options), reason);
    await assertNothingHappened(qmp);
  }
  await assertUnharmed(qmp);
});

kvmTest("a state in a file is refused by devices that differ, and by name as well", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old", { options: devices({}) });
  await qmp.withEvents();
  const uri = `file:${lab.path("state")}`;
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri });
  await qmp.logged("MIGRATION completed");
  await qmp.execute("quit");
  await vmm.ended();
  const [options, reason] = mistakes[0];
  const wrong = lab.start("wrong", { options: [...options, "-incoming", uri] });
  assert.notDeepEqual(await wrong.ended(), { code: 0 });
  assert.match(wrong.output, reason);
  const right = await lab.run("right", { options: [...devices({}), "-incoming", uri] });
  await right.qmp.reaches("running");
  await assertCounts(right.qmp, layout.counter);
});
