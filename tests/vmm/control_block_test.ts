import assert from "node:assert/strict";
import {
  controlBlockSize,
  GuestEvent,
  ThreadControl,
  ThreadPhase,
  Wanted,
} from "../../vmm/threads/control_block.ts";

const VCPUS = 3;
const newBlock = () => new SharedArrayBuffer(controlBlockSize(VCPUS));

Deno.test("a new control block says: not started, to be parked, no event", () => {
  const block = newBlock();
  for (let index = 0; index <= VCPUS; index++) {
    const control = new ThreadControl(block, index);
    assert.equal(control.wanted, Wanted.PARK);
    assert.equal(control.phase, ThreadPhase.STARTING);
    assert.equal(control.threadId, 0);
    assert.equal(control.take(), undefined);
  }
});

Deno.test("each thread's words are its own, and on a cache line of their own", () => {
  const block = newBlock();
  assert.equal(block.byteLength, (VCPUS + 1) * 64);
  const controls = Array.from({ length: VCPUS + 1 }, (_, index) => new ThreadControl(block, index));
  controls.forEach((control, i) => {
    control.wanted = Wanted.RUN;
    control.phase = i;
    control.threadId = 1000 + i;
    control.post(GuestEvent.RESET, i);
  });
  controls.forEach((control, i) => {
    assert.equal(control.phase, i);
    assert.equal(control.threadId, 1000 + i);
    assert.deepEqual(control.take(), { event: GuestEvent.RESET, argument: i });
  });
});

Deno.test("`post()` keeps the first event until `take()` has taken it", () => {
  const control = new ThreadControl(newBlock(), 0);
  control.post(GuestEvent.DEBUG_EXIT, 0x21);
  control.post(GuestEvent.RESET, 7);
  assert.deepEqual(control.take(), { event: GuestEvent.DEBUG_EXIT, argument: 0x21 });
  assert.equal(control.take(), undefined);
  control.post(GuestEvent.RESET);
  assert.deepEqual(control.take(), { event: GuestEvent.RESET, argument: 0 });
});

Deno.test("`requestPark()` parks a thread that shall run, but takes no order to exit back", () => {
  const control = new ThreadControl(newBlock(), 0);
  control.wanted = Wanted.RUN;
  control.requestPark();
  assert.equal(control.wanted, Wanted.PARK);
  control.wanted = Wanted.EXIT;
  control.requestPark();
  assert.equal(control.wanted, Wanted.EXIT);
});

Deno.test("`waitWhilePhase()` returns false after the timeout, true at once for another phase", () => {
  const control = new ThreadControl(newBlock(), 0);
  assert.equal(control.waitWhilePhase(ThreadPhase.STARTING, 1), false);
  assert.equal(control.waitWhilePhase(ThreadPhase.RUNNING, 60_000), true);
});

/** Waits until a phase is there; the other thread's notification ends each wait. */
function awaitPhase(control: ThreadControl, wanted: number): void {
  for (let phase = control.phase; phase !== wanted; phase = control.phase) {
    assert.ok(control.waitWhilePhase(phase, 60_000), `phase stays ${phase}`);
  }
}

Deno.test("a waiting thread wakes when what is wanted of it changes", async () => {
  const block = newBlock();
  const control = new ThreadControl(block, 1);
  const worker = new Worker(new URL("control_block_worker.ts", import.meta.url), {
    type: "module",
  });
  worker.postMessage(block);
  while (control.phase === ThreadPhase.STARTING) await new Promise((done) => setTimeout(done, 1));
  const rounds = 1000;
  for (let round = 0; round < rounds; round++) {
    control.wanted = Wanted.RUN;
    awaitPhase(control, ThreadPhase.RUNNING);
    control.wanted = Wanted.PARK;
    awaitPhase(control, ThreadPhase.PARKED);
  }
  control.wanted = Wanted.EXIT;
  awaitPhase(control, ThreadPhase.EXITED);
  assert.deepEqual(control.take(), { event: 1, argument: rounds });
  worker.terminate();
});

Deno.test("`makeReady()` wakes who is parked, and changes no other order", () => {
  const control = new ThreadControl(newBlock(), 0);
  control.makeReady();
  assert.equal(control.wanted, Wanted.READY);
  // It ends, whether or not something else comes.
  control.spinWhileReady();
  for (const wanted of [Wanted.RUN, Wanted.EXIT]) {
    control.wanted = wanted;
    control.makeReady();
    assert.equal(control.wanted, wanted);
  }
});
