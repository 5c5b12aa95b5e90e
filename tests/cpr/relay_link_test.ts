import assert from "node:assert/strict";
import { Relay } from "../../cpr/modes/relay.ts";
import { closeChannels, GuestEnded, RelayLink } from "../../cpr/modes/relay_link.ts";
import { duplicate, isOpen, makePipe, readFd, writeAll } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import { sendMessage } from "../../ffi/socket_message.ts";
import { newlyOpen, openFiles } from "../processes.ts";

const RELAY = "DENOVO_CPR_RELAY";

/** Both ends of a link, and an event loop. */
async function withLink(
  use: (near: RelayLink, far: RelayLink, reactor: Reactor) => void | Promise<void>,
): Promise<void> {
  const reactor = new Reactor();
  const [near, far] = socketPair().map((fd) => new RelayLink(fd));
  try {
    await use(near, far, reactor);
  } finally {
    near[Symbol.dispose]();
    far[Symbol.dispose]();
    await reactor.close();
  }
}

const never = new AbortController().signal;

Deno.test("who asks on a link gets both connections of a transfer", async () => {
  await withLink(async (taker, giver, reactor) => {
    const own = giver.grant();
    const theirs = taker.ask();
    assert.equal(await giver.asked(reactor, never), true);
    for (const name of ["cpr", "main"] as const) {
      writeAll(own[name].fd, new TextEncoder().encode(name));
      const buffer = new Uint8Array(9);
      const n = readFd(theirs[name].fd, buffer);
      assert.equal(new TextDecoder().decode(buffer.subarray(0, n)), name);
    }
    closeChannels(own);
    closeChannels(theirs);
    closeChannels(own);
  });
});

Deno.test("a link tells that its other side has ended, or its guest", async () => {
  await withLink(async (taker, giver, reactor) => {
    giver.ended(7);
    assert.throws(() => taker.ask(), (error: Error) => {
      assert.ok(error instanceof GuestEnded);
      assert.equal(error.status, 7);
      return true;
    });
    assert.equal(await giver.asked(reactor, never), true);
    taker[Symbol.dispose]();
    assert.equal(await giver.asked(reactor, never), false);
  });
});

Deno.test("a link's answer that makes no sense is refused, and closed", async () => {
  await withLink((taker, giver) => {
    for (const bytes of [[0x47], [0x45], [0x46, 1]]) {
      const [reader, writer] = makePipe();
      sendMessage(giver.fd.fd, Uint8Array.from(bytes), [reader.fd]);
      const before = openFiles(Deno.pid);
      assert.throws(() => taker.ask(), {
        name: "StateError",
        message: "The VMM that has the guest does not answer on the relay's link",
      });
      assert.deepEqual(newlyOpen(before), []);
      reader.close();
      writer.close();
    }
  });
});

Deno.test("asking a link whose other side is gone fails at once", async () => {
  await withLink((taker, giver) => {
    giver[Symbol.dispose]();
    assert.throws(() => taker.ask(), { name: "StateError" });
  });
});

Deno.test("waiting on a link ends when nobody wants it any more", async () => {
  await withLink(async (_taker, giver, reactor) => {
    const end = new AbortController();
    const asked = giver.asked(reactor, end.signal);
    end.abort(new Error("enough"));
    await assert.rejects(asked, { message: "enough" });
  });
});

Deno.test("a process learns its part in a relay from its environment, once", () => {
  const [near, far] = socketPair();
  const number = duplicate(near.fd).release();
  const part = { link: number, helper: 4711, failure: "it rained", processors: [0] };
  Deno.env.set(RELAY, JSON.stringify(part));
  const relay = Relay.fromEnvironment()!;
  using _link = relay.link;
  assert.equal(Deno.env.get(RELAY), undefined);
  assert.equal(relay.isHelper, false);
  assert.equal(relay.failure, "it rained");
  assert.equal(relay.link.fd.fd, number);
  // There is no program to go back to.
  relay.goBack("nothing");
  assert.equal(Relay.fromEnvironment(), undefined);
  near.close();
  far.close();
});

Deno.test("a helper is one whose environment names no other", () => {
  const [near, far] = socketPair();
  Deno.env.set(RELAY, JSON.stringify({ link: near.release(), processors: [0] }));
  const relay = Relay.fromEnvironment()!;
  assert.equal(relay.isHelper, true);
  relay.link[Symbol.dispose]();
  far.close();
});

Deno.test("an environment that names no part in a relay is refused", () => {
  const [near, far] = socketPair();
  const open = near.fd;
  const cases: [string, RegExp][] = [
    ["", /is not JSON$/],
    ["{", /is not JSON$/],
    ["null", /names no open file descriptor$/],
    ["[]", /names no open file descriptor$/],
    ['{"link":"3","processors":[]}', /names no open file descriptor$/],
    ['{"link":2,"processors":[]}', /names no open file descriptor$/],
    ['{"link":1.5,"processors":[]}', /names no open file descriptor$/],
    ['{"link":999999,"processors":[]}', /names no open file descriptor$/],
    [`{"link":${open}}`, /names no processors$/],
    [`{"link":${open},"processors":[0.5]}`, /names no processors$/],
    [`{"link":${open},"processors":"0"}`, /names no processors$/],
  ];
  for (const [text, message] of cases) {
    Deno.env.set(RELAY, text);
    assert.throws(() => Relay.fromEnvironment(), { name: "StateError", message }, text);
    assert.equal(Deno.env.get(RELAY), undefined);
  }
  assert.ok(isOpen(open));
  near.close();
  far.close();
});
