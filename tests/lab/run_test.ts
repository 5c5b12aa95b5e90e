/** Tests in labs that fail: fakes that speak the agent's language, here on the host. */
import assert from "node:assert/strict";
import type { Sums } from "../sums.ts";
import type { GuestsSeen } from "./astray.ts";
import { NoLab } from "./host.ts";
import { type Place, runInLab } from "./run.ts";
import { encodeFrame, encodeObject, FrameWriter, Kind, readFrames } from "./wire.ts";

const PASSED = "ok | 1 passed | 0 failed (1s)\n";
const FAILED = "FAILED | 0 passed | 1 failed (1s)\n";
const NOTHING: GuestsSeen = { ends: [] };
const LOST: GuestsSeen = { astray: "vcpu 0 reason npf", ends: [] };

/** What a fake lab answers to a file's tests; it ends instead where there is nothing to say. */
type Answers = (file: string) => string | undefined;

/** A lab that answers, and counts itself among those that are up. */
function fakeLab(answer: Answers, up: Set<Place>, seen: GuestsSeen = NOTHING): Place {
  const listener = Deno.listen({ port: 0 });
  const serve = async (connection: Deno.Conn) => {
    const writer = new FrameWriter(connection.writable);
    for await (const { kind, data } of readFrames(connection.readable)) {
      if (kind !== Kind.RUN) continue;
      const { argv } = JSON.parse(new TextDecoder().decode(data)) as { argv: string[] };
      const text = answer(argv.find((word) => word.startsWith("tests/"))!);
      if (text === undefined) break;
      await writer.write(encodeFrame(Kind.STDOUT, new TextEncoder().encode(text)));
      await writer.write(encodeObject(Kind.EXIT, { code: text === PASSED ? 0 : 1 }));
    }
    connection.close();
  };
  const served = (async () => {
    for await (const connection of listener) await serve(connection).catch(() => {});
  })();
  const place: Place = {
    port: (listener.addr as Deno.NetAddr).port,
    state: () => Promise.resolve("Kernel panic"),
    guests: () => Promise.resolve(seen),
    async [Symbol.asyncDispose]() {
      listener.close();
      await served.catch(() => {});
      up.delete(place);
    },
  };
  up.add(place);
  return place;
}

/** Runs files in labs of which each answers in its way. */
async function runIn(labs: Answers[], files: string[], seen: readonly GuestsSeen[] = []) {
  const sums: Sums = { passed: 0, failed: 0, skipped: 0 };
  const up = new Set<Place>();
  let booted = 0;
  const boot = () => {
    assert.equal(up.size, 0, "one lab at a time");
    const answer = labs[booted++];
    if (!answer) return Promise.reject(new NoLab("The lab did not come up"));
    return Promise.resolve(fakeLab(answer, up, seen[booted - 1]));
  };
  const said: string[] = [];
  const { log } = console;
  console.log = (line: string) => said.push(line);
  let unsteady: string[];
  try {
    unsteady = await runInLab(files.map((file) => ({ file })), sums, [], Infinity, boot);
  } finally {
    console.log = log;
  }
  assert.equal(up.size, 0, "no lab is left behind");
  return {
    numbers: [sums.passed, sums.failed, sums.skipped],
    booted,
    unsteady,
    said: said.join("\n"),
  };
}

const passes: Answers = () => PASSED;
const ends: Answers = () => undefined;

Deno.test("runInLab() runs a file again in a new lab when the lab has ended", async () => {
  const second: Answers = (file) => file === "tests/b" ? undefined : PASSED;
  const { numbers, booted, said } = await runIn([second, passes], [
    "tests/a",
    "tests/b",
    "tests/c",
  ]);
  assert.deepEqual(numbers, [3, 0, 0]);
  assert.equal(booted, 2);
  assert.match(said, /tests\/b: The lab has ended before .*\nKernel panic/);
});

Deno.test("runInLab() gives what has failed a second look in the same lab, after the others", async () => {
  const ran: string[] = [];
  const first: Answers = (file) => {
    ran.push(file);
    return file === "tests/a" ? FAILED : PASSED;
  };
  const failed = await runIn([first], ["tests/a", "tests/b"]);
  assert.deepEqual([failed.numbers, failed.booted, failed.unsteady], [[1, 1, 0], 1, []]);
  assert.deepEqual(ran, ["tests/a", "tests/b", "tests/a"]);
  let runs = 0;
  const once: Answers = () => runs++ === 0 ? FAILED : PASSED;
  const chance = await runIn([once], ["tests/a"]);
  assert.deepEqual([chance.numbers, runs], [[1, 0, 0], 4]);
  assert.match(chance.unsteady.join(), /^UNSTEADY: tests\/a: the run failed, then passed 3 times$/);
});

Deno.test("runInLab() gives up when lab after lab ends, and what has not run has failed", async () => {
  const files = ["tests/a", "tests/b", "tests/c"];
  const { numbers, booted, said } = await runIn([ends, ends, ends, passes], files);
  assert.deepEqual(numbers, [0, 3, 0]);
  assert.equal(booted, 3);
  assert.match(said, /FAILED: tests\/c has not run: no lab is left/);
});

Deno.test("runInLab() skips where there can be no lab, and fails where the next does not come up", async () => {
  const none = await runIn([], ["tests/a", "tests/b"]);
  assert.deepEqual(none.numbers, [0, 0, 2]);
  assert.match(none.said, /^SKIPPED: 2 tests .*: The lab did not come up$/);
  assert.deepEqual((await runIn([ends], ["tests/a", "tests/b"])).numbers, [0, 2, 0]);
});

Deno.test("runInLab() runs again what has failed where the emulator has lost a guest, and tells it", async () => {
  const lost = await runIn([() => FAILED, passes], ["tests/a", "tests/b"], [LOST]);
  assert.deepEqual(lost.numbers, [2, 0, 0]);
  assert.equal(lost.booted, 2);
  assert.match(lost.said, /the emulator has lost a guest, .*: vcpu 0 reason npf/);
  // What has passed all the same has passed.
  const passed = await runIn([passes], ["tests/a"], [LOST]);
  assert.deepEqual([passed.numbers, passed.booted], [[1, 0, 0], 1]);
  assert.match(passed.said, /the emulator has lost a guest/);
  // And a lab that loses them all the time proves nothing.
  const always = await runIn(Array(9).fill(() => FAILED), ["tests/a"], Array(9).fill(LOST));
  assert.deepEqual([always.numbers, always.booted], [[0, 1, 0], 3]);
});

Deno.test("runInLab() tells beside a failure how guests have ended meanwhile", async () => {
  const end = "vcpu 0 reason shutdown rip 0x100dc8";
  const failed = await runIn([() => FAILED], ["tests/a"], [{ ends: [end] }]);
  assert.deepEqual([failed.numbers, failed.booted], [[0, 1, 0], 1]);
  assert.match(failed.said, /lab: guests have ended: vcpu 0 reason shutdown rip 0x100dc8$/m);
  const passed = await runIn([passes], ["tests/a"], [{ ends: [end] }]);
  assert.doesNotMatch(passed.said, /have ended/);
});
