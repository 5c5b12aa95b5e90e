/** A guest's sockets over stops, and over live updates: what ends, and that the guest hears of it. */
import assert from "node:assert/strict";
import { freeCid, noVsock, VsockPeer } from "../vsock_peer.ts";
import { kvmTest, Laboratory, until } from "./program.ts";
import { assertUnharmed, Chain, modes } from "./updates.ts";

const PORT = 1234;
/** What the guest says when it is told that its connections have ended. */
const ENDED = "connections have ended";

/** Connects to the guest; where its VMM has not the number yet, again and again. */
async function connect(cid: number): Promise<VsockPeer> {
  let peer = new VsockPeer(cid, PORT);
  let state: unknown;
  await until(() => {
    state = peer.connect();
    if (state === "connected") return true;
    if (state === "waits") return false;
    peer[Symbol.dispose]();
    peer = new VsockPeer(cid, PORT);
    return false;
  }, () => `a connection, it is ${state}`);
  return peer;
}

/** Sends bytes, and waits until the same have come back. */
async function echo(peer: VsockPeer, seed: number): Promise<void> {
  const sent = Uint8Array.from({ length: 10_000 }, (_, i) => seed + i + (i >> 8));
  peer.send(sent);
  const back: number[] = [];
  await until(() => {
    const bytes = peer.receive();
    if (typeof bytes !== "string") back.push(...bytes);
    assert.notEqual(bytes, "ended");
    return back.length >= sent.length;
  }, () => `${sent.length} bytes, there are ${back.length}`);
  assert.deepEqual(Uint8Array.from(back), sent);
}

for (const mode of modes) {
  kvmTest(`a guest's sockets go on over stops, and begin anew with each ${mode}`, async () => {
    await using lab = await Laboratory.open();
    const cid = freeCid();
    const chain = await Chain.start(lab, {
      guest: "virtio_vsock",
      options: ["-device", `vhost-vsock-device,guest-cid=${cid}`],
    });
    await lab.printed(`vsock ${cid}`);
    for (let round = 0; round < 2; round++) {
      using peer = await connect(cid);
      await echo(peer, round);
      await chain.qmp.execute("stop");
      await chain.qmp.execute("cont");
      await echo(peer, round + 1);
      const ends = () => lab.serialText.split(ENDED).length - 1;
      assert.equal(ends(), round);
      await chain.update(mode);
      await until(() => ends() > round, () => "what the guest says");
      await until(() => peer.receive() === "ended", () => "the end of the connection");
    }
    using peer = await connect(cid);
    await echo(peer, 7);
    await chain.qmp.execute("stop");
    await assertUnharmed(chain.qmp);
  }, noVsock !== undefined);
}
