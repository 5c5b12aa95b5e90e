/** The vhost devices of a tap: opened, handed over, refused. */
import assert from "node:assert/strict";
import type { TapConfig } from "../../devices/net/config.ts";
import { makeEventfd } from "../../ffi/event.ts";
import { duplicate, isOpen } from "../../ffi/fd.ts";
import { VhostDevice } from "../../ffi/vhost.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import { TapVhost } from "../../vmm/tap_vhost.ts";
import { noVhostNet } from "../tap_peer.ts";
import "../tap_skips.ts";

const config: TapConfig = { type: "tap", id: "n", vhost: true };
const REFUSED = { message: "vhost-net requested but could not be initialized" };

Deno.test("a descriptor that is no vhost device is refused, in QEMU's words", () => {
  using event = makeEventfd();
  const vhost = new TapVhost({ ...config, vhostfds: [event.fd] });
  assert.throws(() => vhost.open(), REFUSED);
  assert.deepEqual([vhost.ports, vhost.kept()], [[], []]);
  // It was the user's, and stays open.
  assert(isOpen(event.fd));
});

Deno.test("a descriptor of a predecessor's is taken over by who serves by it, and closed by others", () => {
  for (const isOn of [true, false]) {
    using event = makeEventfd();
    const handed = duplicate(event.fd);
    using inheritance = new Inheritance(true);
    inheritance.addFd("netdev/vhost0", "n", handed, true);
    const vhost = new TapVhost({ ...config, vhost: isOn });
    if (isOn) assert.throws(() => vhost.open(inheritance), REFUSED);
    else vhost.open(inheritance);
    assert(handed.closed);
    inheritance.checkEmpty();
  }
});

Deno.test({
  name: "vhost devices pass to a successor, one a queue, each with what threads share",
  ignore: noVhostNet !== undefined,
  fn() {
    const two = { ...config, queues: 2 };
    const first = new TapVhost(two);
    first.open();
    assert.equal(first.ports.length, 2);
    const kept = first.kept();
    assert.deepEqual(kept.map(({ name, id, optional }) => [name, id, optional]), [
      ["netdev/vhost0", "n", true],
      ["netdev/vhost1", "n", true],
    ]);
    new VhostDevice(kept[0].fd).setOwner();
    using inheritance = new Inheritance(true);
    for (const { name, id, fd } of kept) inheritance.addFd(name, id, duplicate(fd), true);
    const second = new TapVhost(two);
    second.open(inheritance);
    inheritance.checkEmpty();
    // It is the same device: it has an owner.
    const busy = /VHOST_SET_OWNER .*: Device or resource busy/;
    assert.throws(() => new VhostDevice(second.ports[0].fd).setOwner(), busy);
    new VhostDevice(second.ports[0].fd).resetOwner();
    new VhostDevice(second.ports[0].fd).setOwner();
    assert.notEqual(first.ports[0].words, second.ports[0].words);
    for (const one of [first, second]) {
      one.close();
      assert.deepEqual(one.ports, []);
    }
  },
});
