import assert from "node:assert/strict";
import {
  armTimerfd,
  drainEvent,
  Epoll,
  EpollFd,
  makeEventfd,
  makeTimerfd,
  monotonicNs,
  realtimeNs,
  signalEventfd,
} from "../../ffi/event.ts";
import { makePipe, pollFd, POLLIN, writeFd } from "../../ffi/fd.ts";
import { makeMemfd } from "../../ffi/memory.ts";

const byte = Uint8Array.of(1);

Deno.test("an eventfd is readable after signals, and not after `drainEvent()`", () => {
  using event = makeEventfd();
  assert.equal(pollFd(event.fd, POLLIN, 0), 0);
  assert.equal(drainEvent(event.fd), false);
  signalEventfd(event.fd);
  signalEventfd(event.fd);
  assert.equal(pollFd(event.fd, POLLIN, 0), POLLIN);
  assert.equal(drainEvent(event.fd), true);
  assert.equal(drainEvent(event.fd), false);
});

Deno.test("a timerfd fires at its time, at once for a past one, never when disarmed", () => {
  using timer = makeTimerfd();
  armTimerfd(timer.fd, monotonicNs() + 5_000_000n);
  assert.equal(pollFd(timer.fd, POLLIN, 60_000), POLLIN);
  assert.equal(drainEvent(timer.fd), true);
  assert.equal(pollFd(timer.fd, POLLIN, 0), 0);
  const deadline = monotonicNs() + 20_000_000n;
  armTimerfd(timer.fd, deadline);
  assert.equal(pollFd(timer.fd, POLLIN, 60_000), POLLIN);
  assert.ok(monotonicNs() >= deadline, "it fired too early");
  armTimerfd(timer.fd, 1n);
  assert.equal(pollFd(timer.fd, POLLIN, 60_000), POLLIN);
  armTimerfd(timer.fd, 0n);
  assert.equal(pollFd(timer.fd, POLLIN, 0), 0);
  assert.throws(() => armTimerfd(-1, 1n), { code: "EBADF" });
});

Deno.test("`monotonicNs()` and `realtimeNs()` are the host's clocks", () => {
  const uptime = Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]);
  assert.ok(Number(monotonicNs()) / 1e9 > 0);
  assert.ok(Number(monotonicNs()) / 1e9 <= uptime + 1);
  const before = Date.now();
  const now = Number(realtimeNs() / 1_000_000n);
  assert.ok(now >= before - 1 && now <= Date.now() + 1);
  let last = monotonicNs();
  for (let i = 0; i < 1000; i++) {
    const next = monotonicNs();
    assert.ok(next >= last);
    last = next;
  }
});

/** What an epoll instance reports now. */
function ready(epoll: EpollFd): [number, number][] {
  const found: [number, number][] = [];
  epoll.waitSync(0, (fd, events) => found.push([fd, events]));
  return found;
}

Deno.test("`EpollFd` reports what descriptors are watched for", () => {
  using epoll = new EpollFd();
  const [input, output] = makePipe();
  epoll.add(input.fd, Epoll.IN);
  epoll.add(output.fd, Epoll.OUT);
  assert.deepEqual(ready(epoll), [[output.fd, Epoll.OUT]]);
  writeFd(output.fd, byte);
  epoll.modify(output.fd, 0);
  assert.deepEqual(ready(epoll), [[input.fd, Epoll.IN]]);
  epoll.remove(input.fd);
  assert.deepEqual(ready(epoll), []);
  epoll.remove(input.fd);
  epoll.add(input.fd, Epoll.IN);
  epoll.remove(output.fd);
  output.close();
  assert.deepEqual(ready(epoll), [[input.fd, Epoll.IN | Epoll.HUP]]);
  input.close();
});

Deno.test("`EpollFd` throws for a descriptor that it cannot watch", () => {
  using epoll = new EpollFd();
  using event = makeEventfd();
  epoll.add(event.fd, Epoll.IN);
  assert.throws(() => epoll.add(event.fd, Epoll.IN), { code: "EEXIST" });
  assert.throws(() => epoll.add(100_000, Epoll.IN), { message: /^epoll_ctl 100000: Bad file/ });
  assert.throws(() => epoll.modify(100_000, Epoll.IN), { code: "EBADF" });
  using file = makeMemfd("test", 1);
  assert.throws(() => epoll.add(file.fd, Epoll.IN), { code: "EPERM" });
});

Deno.test("`EpollFd` reports more descriptors than fit into one call", () => {
  using epoll = new EpollFd();
  const events = Array.from({ length: 200 }, makeEventfd);
  for (const { fd } of events) epoll.add(fd, Epoll.IN), signalEventfd(fd);
  const seen = new Set<number>();
  for (let found = ready(epoll); found.length > 0; found = ready(epoll)) {
    for (const [fd] of found) drainEvent(fd), seen.add(fd);
  }
  assert.equal(seen.size, events.length);
  for (const event of events) event.close();
});

Deno.test("`wait()` lets the event loop run until a descriptor is ready", async () => {
  using epoll = new EpollFd();
  using event = makeEventfd();
  epoll.add(event.fd, Epoll.IN);
  const order: string[] = [];
  const waiting = epoll.wait((fd) => order.push(fd === event.fd ? "ready" : "other"));
  await new Promise((resolve) => setTimeout(resolve, 5));
  order.push("signal");
  signalEventfd(event.fd);
  await waiting;
  assert.deepEqual(order, ["signal", "ready"]);
});
