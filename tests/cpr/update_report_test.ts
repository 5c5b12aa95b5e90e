import assert from "node:assert/strict";
import { jsonOf, jsonOfFailure, textOf } from "../../cpr/update/report.ts";
import { UpdateError, type UpdateResult } from "../../cpr/update/types.ts";

const result: UpdateResult = {
  mode: "transfer",
  oldPid: 1,
  newPid: 2,
  commandLine: ["deno", "-S"],
  runState: "running",
  pauseUs: 2345,
  timeline: [
    { step: "begin", us: -1000, process: "old" },
    { step: "vCPUs parked", us: 240, process: "old" },
    { step: "running", us: 2345, process: "new" },
  ],
};

Deno.test("the report of an update has the pause, and when each of its steps was done", () => {
  assert.deepEqual(textOf(result).split("\n"), [
    "the guest is in process 2 (running)",
    "pause 2.35 ms",
    "  vCPUs parked     0.24 ms     0.24 ms  old",
    "  running          2.35 ms     2.10 ms  new",
  ]);
  const { pauseUs: _, ...stopped } = result;
  assert.equal(
    textOf({ ...stopped, newPid: 1, runState: "paused", timeline: [] }),
    "the guest is in process 1, as before (paused)",
  );
});

Deno.test("the report of an update as JSON has the same members when it failed", () => {
  const done = JSON.parse(jsonOf(result));
  assert.deepEqual(done, {
    ok: true,
    mode: "transfer",
    old_pid: 1,
    new_pid: 2,
    status: "running",
    pause_us: 2345,
    timeline: result.timeline,
    command_line: ["deno", "-S"],
  });
  const failed = JSON.parse(jsonOfFailure(new UpdateError("it broke", { oldPid: 1 })));
  assert.deepEqual(failed, {
    ok: false,
    error: "it broke",
    mode: null,
    old_pid: 1,
    new_pid: null,
    status: null,
    pause_us: null,
    timeline: [],
    command_line: null,
  });
});
