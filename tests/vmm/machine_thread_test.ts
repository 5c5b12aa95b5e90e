import assert from "node:assert/strict";
import { ThreadPhase } from "../../vmm/threads/control_block.ts";
import { startGradually } from "../../vmm/threads/machine_thread.ts";

/** A thread as far as its start goes. */
class FakeThread {
  readonly control: { phase: number } = { phase: ThreadPhase.STARTING };
}

function fakes(count: number) {
  return Array.from({ length: count }, () => new FakeThread());
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

Deno.test("`startGradually()` starts only so many threads at a time, the first at once", async () => {
  const threads = fakes(5);
  const started: FakeThread[] = [];
  const start = (thread: FakeThread) => void started.push(thread);
  const all = startGradually(threads, start, 2, new AbortController().signal);
  assert.deepEqual(started, threads.slice(0, 2));
  await turn();
  assert.equal(started.length, 2);
  for (let up = 1; up <= 5; up++) {
    started[up - 1].control.phase = ThreadPhase.PARKED;
    while (started.length < Math.min(5, up + 2)) await turn();
    await turn();
    assert.deepEqual(started, threads.slice(0, Math.min(5, up + 2)));
  }
  await all;
});

Deno.test("`startGradually()` ends by its signal", async () => {
  const started: FakeThread[] = [];
  const abort = new AbortController();
  const start = (thread: FakeThread) => void started.push(thread);
  const all = startGradually(fakes(3), start, 1, abort.signal);
  abort.abort();
  await all;
  assert.equal(started.length, 1);
});
