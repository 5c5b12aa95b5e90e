/** The pause, step by step: `x-timeline`, `info migrate -a`, and the trace that Perfetto opens. */
import assert from "node:assert/strict";
import type { Step, UpdateProcess } from "../../cpr/migration/timeline.ts";
import {
  beginTransfer,
  execUpdate,
  kvmTest,
  Laboratory,
  type Qmp,
  startSuccessor,
  transferUpdate,
} from "./program.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { type Pauses, pausesOf } from "./updates.ts";

interface Entry {
  readonly step: Step;
  readonly process: UpdateProcess;
  readonly us: number;
  readonly vcpu?: number;
}

interface Usage {
  readonly process: UpdateProcess;
  readonly "page-faults": number;
  readonly preemptions: number;
}

interface Info extends Pauses {
  readonly "x-timeline": readonly Entry[];
  readonly "x-pause-usage": readonly Usage[];
}

/** The successor's `query-migrate`, once all vCPUs have gone on. */
async function complete(qmp: Qmp): Promise<Info> {
  await qmp.reaches("running");
  return await pausesOf<Info>(qmp);
}

/** Fails unless halves of pauses are told of in these processes, each with what it has used. */
function assertUsage(
  { "x-pause-usage": usage }: Info,
  ...processes: readonly UpdateProcess[]
): void {
  assert.deepEqual([...new Set(usage.map(({ process }) => process))].toSorted(), processes);
  for (const { "page-faults": faults, preemptions } of usage) {
    assert.ok(faults >= 0 && faults < 10_000 && preemptions >= 0 && preemptions < 10_000);
  }
}

/** Fails unless these steps come one after the other. */
function assertOrder(timeline: readonly Entry[], wanted: readonly string[]): void {
  const names = timeline.map(({ process, step }) => `${process} ${step}`);
  let at = -1;
  for (const name of wanted) {
    at = names.indexOf(name, at + 1);
    assert.notEqual(at, -1, `${name} is not where it should be in ${names.join(", ")}`);
  }
  const times = timeline.map(({ us }) => us);
  assert.deepEqual(times, times.toSorted((a, b) => a - b));
}

/** The pause from one process to another. */
const pause = (from: UpdateProcess, to: UpdateProcess) => [
  `${from} stop`,
  `${from} parked`,
  `${from} saved`,
  `${from} handed-over`,
  `${to} received`,
  `${to} checked`,
  `${to} loaded`,
  `${to} taken`,
  `${to} entered`,
];

kvmTest("`query-migrate` breaks the pause of a cpr-transfer down, in both VMMs", async () => {
  await using lab = await Laboratory.open();
  const special = { guest: "smp", options: ["-smp", "2"] } as const;
  const { qmp } = await lab.run("old", special);
  const trace = lab.path("trace.json");
  await qmp.execute("migrate-set-parameters", { "x-trace-file": trace });
  const next = await transferUpdate(lab, "new", qmp, special);
  const info = await complete(next.qmp);
  const timeline = info["x-timeline"];
  // Both get ready at the same time.
  assertOrder(timeline, ["old begin", "new listening", ...pause("old", "new")]);
  assertOrder(timeline, ["old begin", "old rehearsed", ...pause("old", "new")]);
  assert.equal(timeline.find(({ step }) => step === "stop")!.us, 0);
  const entered = timeline.filter(({ step }) => step === "entered");
  assert.deepEqual(entered.map(({ vcpu }) => vcpu).toSorted(), [0, 1]);
  assert.equal(info["x-pause"], Math.round(Math.max(...entered.map(({ us }) => us))));
  await qmp.logged("MIGRATION completed");
  const old = await qmp.execute<Info>("query-migrate");
  assertOrder(old["x-timeline"], pause("old", "new").slice(0, -1));
  assertUsage(old, "new", "old");
  const text = await next.qmp.hmp("info migrate -a");
  assert.match(text, /^Pause \(us\): \t\t\d+\r?$/m);
  for (const step of ["stop", "parked", "loaded"]) {
    assert.match(text, new RegExp(`^ +-?[\\d.]+ {2}(old|new) +${step}\\r?$`, "m"));
  }
  assert.match(text, /entered \(CPU 1\)/);
  assert.match(text, /^Pause, new: \tpage-faults=\d+, preemptions=\d+\r?$/m);
  const { traceEvents } = JSON.parse(Deno.readTextFileSync(trace));
  for (const { ph, ts, dur, pid, tid } of traceEvents) {
    assert.ok((ph === "M" || (ph === "X" && dur >= 0)) && [ts, pid, tid].every(Number.isFinite));
  }
  assert.ok(traceEvents.some(({ name }: { name: string }) => name === "handed-over"));
});

kvmTest("`query-migrate` tells both pauses of a relayed cpr-exec", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  const next = await execUpdate(lab, vmm, qmp);
  const info = await complete(next);
  // The old process goes on to the new program whether or not the guest has entered the helper yet.
  assertOrder(info["x-timeline"], pause("old", "helper"));
  assertOrder(info["x-timeline"], [
    "helper taken",
    "old exec",
    "new runtime-started",
    "new program-started",
    ...pause("helper", "new"),
  ]);
  assert.equal(info["x-pauses"]?.length, 2);
  // The helper looks at its second half when the guest is gone.
  assertUsage(info, "helper", "new", "old");
  assert.equal(info["x-pauses"]![1], info["x-pause"]);
  assert.match(await next.hmp("info migrate"), /^Pause \(us\): \t\t\d+, \d+\r?$/m);
});

onlyKvmTest("`query-migrate` tells both pauses of an anchored cpr-exec", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm", { guest: "smp", options: ["-smp", "2"] });
  await lab.printed("cpus 2");
  await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": "anchor" });
  const next = await execUpdate(lab, vmm, qmp);
  const info = await complete(next);
  assertOrder(info["x-timeline"], [
    ...["old stop", "old parked", "old handed-over", "old entered", "old exec"],
    ...["new program-started", "new stop", "new taken", "new entered"],
  ]);
  assert.equal(info["x-pauses"]?.length, 2);
  assertUsage(info, "new", "old");
});

kvmTest("cpr-reboot leaves a trace of each of its halves", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old");
  const uri = `file:${lab.path("state")}`;
  const [before, after] = [lab.path("before.json"), lab.path("after.json")];
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot", "x-trace-file": before });
  await qmp.execute("migrate", { uri });
  await qmp.logged("MIGRATION completed");
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
  const options = ["-incoming", uri, "-global", `migration.x-trace-file=${after}`];
  const next = await lab.monitor(lab.start("new", { options }));
  await complete(next);
  for (
    const [path, steps] of [[before, ["stop", "sent"]], [after, ["loaded", "resumed"]]] as const
  ) {
    const { traceEvents } = JSON.parse(Deno.readTextFileSync(path));
    const names = traceEvents.map(({ name }: { name: string }) => name);
    for (const step of steps) assert.ok(names.includes(step), `${step} among ${names}`);
  }
});

kvmTest("a trace that cannot be written is said, and the guest goes on", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old");
  await qmp.execute("migrate-set-parameters", { "x-trace-file": "/nonexistent/trace" });
  const next = await transferUpdate(lab, "new", qmp);
  await next.qmp.assertGuestRuns();
  await vmm.said("Could not write the trace to '/nonexistent/trace'");
});

kvmTest(
  "with `validate-uuid` the guest never stops when the successor has another UUID",
  async () => {
    await using lab = await Laboratory.open();
    const uuid = "12345678-1234-1234-1234-123456789abc";
    const { qmp } = await lab.run("old", { options: ["-uuid", uuid] });
    await qmp.setCapability("validate-uuid");
    const wrong = "87654321-1234-1234-1234-123456789abc";
    const { vmm, channels } = await startSuccessor(lab, "wrong", { options: ["-uuid", wrong] });
    await beginTransfer(qmp, channels);
    await qmp.logged("MIGRATION failed");
    assert.equal(
      (await qmp.migration())["error-desc"],
      `UUID received is "${uuid}" and local is "${wrong}"`,
    );
    assert.ok(!qmp.log.includes("STOP"));
    assert.deepEqual(await vmm.ended(), { code: 1 });
    const next = await transferUpdate(lab, "right", qmp, { options: ["-uuid", uuid] });
    await next.qmp.assertGuestRuns();
  },
);
