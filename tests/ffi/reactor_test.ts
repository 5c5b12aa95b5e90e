import assert from "node:assert/strict";
import { drainEvent, Epoll, makeEventfd, signalEventfd } from "../../ffi/event.ts";
import { makePipe, type OwnedFd, readFd, writeFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { beyond, openFiles } from "../processes.ts";

const byte = Uint8Array.of(1);

/** Waits until `condition` holds; a test that waits in vain fails after a minute. */
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; !condition(); i++) {
    assert.ok(i < 60_000, `Waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Runs a test with a reactor and some eventfds, and checks that nothing stays open. */
function reactorTest(name: string, run: (r: Reactor, e: OwnedFd[]) => Promise<void>): void {
  Deno.test(name, async () => {
    const before = openFiles(Deno.pid);
    const reactor = new Reactor();
    const events = Array.from({ length: 3 }, makeEventfd);
    await run(reactor, events);
    await reactor.close();
    for (const event of events) event.close();
    // Threads of the runtime may have some for a while; what is forgotten stays.
    await until(() => beyond(openFiles(Deno.pid), before).length === 0);
  });
}

reactorTest(
  "`add()` calls a handler each time that its descriptor is ready",
  async (reactor, [event]) => {
    const seen: number[] = [];
    reactor.add(event.fd, Epoll.IN, (events) => (drainEvent(event.fd), seen.push(events)));
    for (let count = 1; count <= 3; count++) {
      signalEventfd(event.fd);
      await until(() => seen.length === count);
    }
    assert.deepEqual(seen, [Epoll.IN, Epoll.IN, Epoll.IN]);
  },
);

reactorTest("`add()` while the reactor already waits is seen", async (reactor, [first, second]) => {
  let calls = 0;
  reactor.add(first.fd, Epoll.IN, () => {});
  await new Promise((resolve) => setTimeout(resolve, 5));
  reactor.add(second.fd, Epoll.IN, () => (drainEvent(second.fd), calls++));
  signalEventfd(second.fd);
  await until(() => calls === 1);
});

reactorTest("`remove()` drops events that were fetched already", async (reactor, events) => {
  const called: number[] = [];
  for (const { fd } of events) {
    reactor.add(fd, Epoll.IN, () => {
      called.push(fd);
      for (const other of events) if (other.fd !== fd) reactor.remove(other.fd);
      drainEvent(fd);
    });
    signalEventfd(fd);
  }
  reactor.poll(60_000);
  assert.equal(called.length, 1);
  for (const { fd } of events) reactor.remove(fd), reactor.remove(fd);
  for (const { fd } of events) signalEventfd(fd);
  reactor.poll(0);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(called.length, 1);
});

reactorTest("`modify()` changes what a descriptor is watched for", async (reactor) => {
  const [input, output] = makePipe();
  const seen: number[] = [];
  reactor.add(output.fd, 0, (events) => {
    seen.push(events);
    reactor.modify(output.fd, 0);
  });
  reactor.poll(0);
  assert.deepEqual(seen, []);
  reactor.modify(output.fd, Epoll.OUT);
  await until(() => seen.length > 0);
  assert.deepEqual(seen, [Epoll.OUT]);
  reactor.remove(output.fd);
  input.close();
  output.close();
});

reactorTest("`poll()` handles on this thread what is ready now", (reactor) => {
  const [input, output] = makePipe();
  const buffer = new Uint8Array(8);
  let bytes = 0;
  reactor.add(input.fd, Epoll.IN, () => bytes += readFd(input.fd, buffer));
  reactor.poll(0);
  assert.equal(bytes, 0);
  writeFd(output.fd, byte);
  reactor.poll(60_000);
  assert.equal(bytes, 1);
  reactor.remove(input.fd);
  input.close();
  output.close();
  return Promise.resolve();
});

reactorTest(
  "`close()` ends the wait of a reactor that watches something",
  async (reactor, [event]) => {
    reactor.add(event.fd, Epoll.IN, () => {});
    await new Promise((resolve) => setTimeout(resolve, 5));
  },
);

reactorTest("`close()` ends a reactor that never watched anything", async () => {});
