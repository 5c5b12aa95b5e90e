/** The I/O thread's loop, on a thread of its own, and how threads are parked. */
import assert from "node:assert/strict";
import { Epoll, makeEventfd, signalEventfd } from "../../ffi/event.ts";
import {
  controlBlockSize,
  ThreadControl,
  ThreadPhase,
  Wanted,
} from "../../vmm/threads/control_block.ts";
import { ioLoop, IoWatcher } from "../../vmm/threads/io_loop.ts";
import { MachineThread, parkAll, parkServants } from "../../vmm/threads/machine_thread.ts";

function makeControl(wanted: number): ThreadControl {
  const control = new ThreadControl(new SharedArrayBuffer(controlBlockSize(1)), 0);
  control.wanted = wanted;
  return control;
}

Deno.test("a watcher tells of a descriptor again and again, until it is not watched any more", () => {
  using watcher = new IoWatcher(makeControl(Wanted.RUN));
  using event = makeEventfd();
  using other = makeEventfd();
  const seen: string[] = [];
  const watch = watcher.watch(event.fd, Epoll.IN, (events) => seen.push(`event ${events}`));
  watcher.watch(other.fd, Epoll.IN, () => seen.push("other"));
  signalEventfd(event.fd);
  watcher.wait();
  watcher.wait();
  assert.deepEqual(seen, ["event 1", "event 1"]);
  watch.set(0);
  watch.set(0);
  signalEventfd(other.fd);
  watcher.wait();
  assert.deepEqual(seen.splice(0), ["event 1", "event 1", "other"]);
  watch.set(Epoll.IN);
  watcher.wait();
  assert.deepEqual(seen.sort(), ["event 1", "other"]);
});

Deno.test("a watcher tells nothing of a descriptor that is left to somebody else", () => {
  using watcher = new IoWatcher(makeControl(Wanted.RUN));
  using event = makeEventfd();
  using other = makeEventfd();
  const seen: string[] = [];
  const watch = watcher.watch(event.fd, Epoll.IN, () => seen.push("event"));
  watcher.watch(other.fd, Epoll.IN, () => seen.push("other"));
  signalEventfd(event.fd);
  signalEventfd(other.fd);
  watcher.leave(event.fd, true);
  watch.set(Epoll.IN | Epoll.OUT);
  watcher.wait();
  assert.deepEqual(seen.splice(0), ["other"]);
  watcher.leave(event.fd, false);
  watcher.wait();
  assert.deepEqual(seen.sort(), ["event", "other"]);
});

Deno.test("a watch that ends does not end another's of the same number", () => {
  using watcher = new IoWatcher(makeControl(Wanted.RUN));
  using event = makeEventfd();
  const seen: string[] = [];
  const first = watcher.watch(event.fd, Epoll.IN, () => seen.push("first"));
  // As when the descriptor was closed, and the next that was opened got its number.
  const second = watcher.watch(event.fd, Epoll.IN, () => seen.push("second"));
  signalEventfd(event.fd);
  watcher.unwatch(event.fd, first);
  watcher.wait();
  assert.deepEqual(seen.splice(0), ["second"]);
  watcher.unwatch(event.fd, second);
  using other = makeEventfd();
  watcher.watch(other.fd, Epoll.IN, () => seen.push("other"));
  signalEventfd(other.fd);
  watcher.wait();
  assert.deepEqual(seen, ["other"]);
});

Deno.test("the I/O loop says that it stands still each time, before it does", () => {
  const control = makeControl(Wanted.RUN);
  using watcher = new IoWatcher(control);
  using kick = makeEventfd();
  const seen: string[] = [];
  // Park, go on, end: each is wanted when the one before was answered.
  const orders = [Wanted.PARK, Wanted.EXIT];
  const answer = () => {
    seen.push("answered");
    control.wanted = orders.shift()!;
  };
  const rest = () => {
    seen.push(`rests, phase ${control.phase}`);
    if (orders.length > 0) control.wanted = Wanted.RUN;
  };
  const doorbells = () => [{ fd: kick.fd, answer }];
  ioLoop({ control, watcher, kickFd: kick.fd, doorbells, learn: () => false, rest });
  const rests = `rests, phase ${ThreadPhase.RUNNING}`;
  assert.deepEqual(seen, ["answered", rests, "answered", rests]);
});

Deno.test("a watcher whose thread shall park tells of nothing", () => {
  using watcher = new IoWatcher(makeControl(Wanted.PARK));
  using event = makeEventfd();
  watcher.watch(event.fd, Epoll.IN, () => assert.fail("told"));
  signalEventfd(event.fd);
  watcher.wait();
});

/** A thread that parks when it is told to, unless it is stuck; it writes down what happens. */
class FakeThread extends MachineThread {
  readonly #log: string[];

  constructor(
    log: string[],
    name: string,
    override readonly servesGuest: boolean,
    readonly stuck = false,
  ) {
    super(name, new SharedArrayBuffer(controlBlockSize(1)), 0);
    this.#log = log;
    this.control.wanted = Wanted.RUN;
    this.control.phase = ThreadPhase.RUNNING;
  }

  override allow(): void {
    this.#log.push(`${this.title} goes on`);
  }

  override halt(): void {
    this.#log.push(`${this.title} parks`);
    if (!this.stuck) this.control.phase = ThreadPhase.PARKED;
  }

  override interrupt(): void {}
}

Deno.test("`parkAll()` parks those that serve the guest before the guest itself", () => {
  const log: string[] = [];
  parkAll([
    new FakeThread(log, "CPU 0", false),
    new FakeThread(log, "CPU 1", false),
    new FakeThread(log, "I/O", true),
  ]);
  assert.deepEqual(log, ["I/O parks", "CPU 0 parks", "CPU 1 parks"]);
});

Deno.test("`parkServants()` lets all go on when one does not park, and leaves the guest alone", () => {
  const log: string[] = [];
  const threads = [
    new FakeThread(log, "CPU 0", false),
    new FakeThread(log, "one", true),
    new FakeThread(log, "other", true, true),
  ];
  assert.throws(() => parkServants(threads, 1), /^Error: other did not stop within/);
  assert.deepEqual(log, ["one parks", "other parks", "one goes on", "other goes on"]);
});

Deno.test("`parkAll()` lets those who serve the guest go on with it when it does not park", () => {
  const log: string[] = [];
  const threads = [new FakeThread(log, "CPU 0", false, true), new FakeThread(log, "I/O", true)];
  assert.throws(() => parkAll(threads, 1), /^Error: CPU 0 did not stop within/);
  assert.deepEqual(log, ["I/O parks", "CPU 0 parks", "CPU 0 goes on", "I/O goes on"]);
});
