/** The network card with a guest: frames go there and come back by every kind of backend. */
import assert from "node:assert/strict";
import type { OwnedFd } from "../../ffi/fd.ts";
import { socketPair, type SocketType } from "../../ffi/socket.ts";
import type { NetdevConfig } from "../../vmm/config.ts";
import { NetPeer } from "../net_peer.ts";
import { kvmTest, sleep, TestVm, until } from "./harness.ts";

const card = (properties = {}) => [{
  driver: "virtio-net-device",
  properties: { netdev: "n", ...properties },
}];

/** A backend that was given one end of a pair of sockets, and the other end. */
function pair(type: SocketType): { netdev: NetdevConfig; ours: OwnedFd; theirs: OwnedFd } {
  const [ours, theirs] = socketPair(type, { nonblocking: true });
  const addr = { type: "fd", fd: theirs.fd } as const;
  return {
    ours,
    theirs,
    netdev: type === "stream"
      ? { type: "stream", id: "n", addr, server: false }
      : { type: "dgram", id: "n", local: addr },
  };
}

/** Lets frames go to and fro until so many more have come back. */
async function exchange(test: TestVm, peer: NetPeer, count: number): Promise<void> {
  const wanted = peer.returned + count;
  await until(() => {
    peer.pump();
    assert.doesNotMatch(test.text, /FAIL/);
    return peer.returned >= wanted;
  }, () => `${wanted} frames, there are ${peer.returned}`);
}

for (const type of ["stream", "seqpacket"] as const) {
  for (const packed of [false, true]) {
    for (const merge of [false, true]) {
      const how = `${type}, packed: ${packed}, mergeable buffers: ${merge}`;
      kvmTest(`frames go to a guest and come back, over stops: ${how}`, async () => {
        const { netdev, ours, theirs } = pair(type);
        using _theirs = theirs;
        using end = ours;
        await using test = await TestVm.start({
          program: "virtio_net",
          append: merge ? "merge" : "",
          devices: card({ packed }),
          netdevs: [netdev],
        });
        await test.printed("net 52540123456 at irq");
        const peer = new NetPeer(end.fd, type === "stream");
        await exchange(test, peer, 30);
        for (let stop = 0; stop < 3; stop++) {
          test.vm.stop();
          peer.pump();
          await sleep(5);
          test.vm.cont();
          await exchange(test, peer, 30);
        }
        test.assertUnharmed();
      });
    }
  }
}
