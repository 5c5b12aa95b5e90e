import assert from "node:assert/strict";
import { controlBlockSize, ThreadPhase, Wanted } from "../../vmm/threads/control_block.ts";
import { MachineThread, parkAll, startGradually } from "../../vmm/threads/machine_thread.ts";

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

/** A thread that is said to run, and stops when it is kicked, or does not. */
class StubbornThread extends MachineThread {
  constructor(block: SharedArrayBuffer, line: number, readonly stops: boolean) {
    super(`Thread ${line}`, block, line);
    this.control.phase = ThreadPhase.RUNNING;
  }

  protected override allow(): void {}

  protected override halt(): void {
    this.interrupt();
  }

  override interrupt(): void {
    if (this.stops) this.control.phase = ThreadPhase.PARKED;
  }
}

Deno.test("`parkAll()` lets those go on that ran when one of them does not stop", () => {
  const block = new SharedArrayBuffer(controlBlockSize(3));
  const threads = [true, true, false].map((stops, line) => new StubbornThread(block, line, stops));
  const [held, ran, stubborn] = threads;
  ran.resume();
  stubborn.resume();
  assert.throws(() => parkAll(threads, 40), { message: "Thread 2 did not stop within 0.04 s" });
  assert.deepEqual(threads.map(({ control }) => control.wanted), [
    Wanted.PARK,
    Wanted.RUN,
    Wanted.RUN,
  ]);
  parkAll([held, ran]);
  assert.deepEqual([held, ran].map(({ control }) => control.wanted), [Wanted.PARK, Wanted.PARK]);
});
