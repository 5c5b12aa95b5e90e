/** A network card over live updates: no frame is lost, none comes twice, no connection ends. */
import assert from "node:assert/strict";
import type { OwnedFd } from "../../ffi/fd.ts";
import { accept, listenUnix } from "../../ffi/socket.ts";
import { FlowPeer } from "../net_flows.ts";
import { NetPeer } from "../net_peer.ts";
import { noTap, openHostEnd } from "../tap_peer.ts";
import "../tap_skips.ts";
import { kvmTest, Laboratory, sleep, until } from "./program.ts";
import { assertUnharmed, Chain, modes } from "./updates.ts";

/** The other end of a guest's network. */
type Peer = Pick<NetPeer, "pump" | "returned" | "underWay">;

/** Frames that go to and fro while something else happens. */
class Traffic {
  readonly #peer: Peer;
  readonly #lab: Laboratory;
  #sends = true;
  /** Whether the descriptor is left alone: it may be about to be another. */
  #rests = false;
  #ended = false;
  readonly #pumping: Promise<void>;

  constructor(peer: Peer, lab: Laboratory) {
    this.#peer = peer;
    this.#lab = lab;
    this.#pumping = this.#pump();
    this.#pumping.catch(() => {});
  }

  async #pump(): Promise<void> {
    while (!this.#ended) {
      if (!this.#rests) this.#peer.pump(this.#sends);
      await sleep(1);
    }
  }

  /** Waits until so many more frames have come back. */
  async returned(count: number): Promise<void> {
    const wanted = this.#peer.returned + count;
    await this.#until(() => this.#peer.returned >= wanted, `${wanted} frames`);
  }

  /** Waits until none is under way, and sends no more. */
  async quiet(): Promise<void> {
    this.#sends = false;
    await this.#until(() => this.#peer.underWay === 0, "the last frame");
    this.#rests = true;
  }

  /** Sends again. */
  resume(): void {
    this.#sends = true;
    this.#rests = false;
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.#pumping;
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    let failure: Error | undefined;
    this.#pumping.catch((error) => failure = error);
    await until(() => {
      if (failure) throw failure;
      assert.doesNotMatch(this.#lab.serialText, /FAIL/);
      return condition();
    }, () => `${what}: ${this.#peer.returned} are back, ${this.#peer.underWay} under way`);
  }
}

/** The next connection to a listener. */
async function accepted(listener: OwnedFd): Promise<OwnedFd> {
  let connection: OwnedFd | undefined;
  await until(
    () => (connection = accept(listener.fd, { nonblocking: true })) !== undefined,
    () => "a connection",
  );
  return connection!;
}

/** Ends well, or says what the guest found. */
async function assertGuestUnharmed(chain: Chain): Promise<void> {
  await chain.qmp.execute("stop");
  await assertUnharmed(chain.qmp);
}

for (const packed of ["off", "on"]) {
  kvmTest(`frames over a stream go on through each mode, packed: ${packed}`, async () => {
    await using lab = await Laboratory.open();
    using listener = listenUnix(lab.path("net"), { nonblocking: true });
    const options = [
      ...["-object", "throttle-group,id=tg"],
      "-netdev",
      `stream,id=n,server=off,addr.type=unix,addr.path=${lab.path("net")},throttle-group=tg`,
      ...["-device", `virtio-net-device,netdev=n,packed=${packed}`],
    ];
    const chain = await Chain.start(lab, { guest: "virtio_net", options });
    await lab.printed("net 52540123456 at irq");
    let connection = await accepted(listener);
    // More than there are, which count all the same.
    const limits = { path: "tg", property: "limits" };
    const limit = () =>
      chain.qmp.execute("qom-set", { ...limits, value: { "iops-total": 1_000_000 } });
    await limit();
    const peer = new NetPeer(connection.fd, true);
    const traffic = new Traffic(peer, lab);
    try {
      await traffic.returned(20);
      for (let round = 0; round < 2; round++) {
        for (const mode of modes) {
          // A file has no descriptors: the connection is a new one afterwards.
          if (mode === "cpr-reboot") await traffic.quiet();
          await chain.update(mode);
          if (mode === "cpr-reboot") {
            connection.close();
            connection = await accepted(listener);
            peer.moveTo(connection.fd);
            traffic.resume();
          }
          await traffic.returned(40);
          const kept = await chain.qmp.execute("qom-get", limits) as Record<string, number>;
          // A file has none of them.
          assert.equal(kept["iops-total"], mode === "cpr-reboot" ? 0 : 1_000_000, mode);
          await limit();
          assert.equal(
            accept(listener.fd, { nonblocking: true }),
            undefined,
            "a second connection",
          );
        }
      }
      await traffic.quiet();
    } finally {
      await traffic.end();
      connection.close();
    }
    await assertGuestUnharmed(chain);
  });
}

/** Frames go on through each mode over a tap with so many queues, of which the guest uses one, or all. */
async function tapGoesOn(queues: number, usesAll = false, packed = false): Promise<void> {
  await using lab = await Laboratory.open();
  const ifname = `dn${queues}${Number(usesAll)}${Deno.pid % 100_000}`;
  const card = `virtio-net-device,netdev=n,packed=${packed ? "on" : "off"}`;
  const tapOptions = (netdev: string) => [
    ...["-netdev", `${netdev},queues=${queues}`],
    ...["-device", `${card},mq=${queues > 1 ? "on" : "off"}`],
    ...usesAll ? ["-append", "mq"] : [],
  ];
  const open = () => openHostEnd(ifname, usesAll ? "ipv4" : "test");
  const chain = await Chain.start(lab, {
    guest: "virtio_net",
    options: tapOptions(`tap,id=n,ifname=${ifname},script=no,downscript=no`),
  });
  await lab.printed("net 52540123456 at irq");
  let end = open();
  const peer = usesAll ? new FlowPeer(end.fd) : new NetPeer(end.fd, false);
  const traffic = new Traffic(peer, lab);
  try {
    await traffic.returned(20);
    for (let i = 0; usesAll && i < queues; i++) await lab.printed(`pair ${i}\n`);
    // A file has no descriptors: the interface is a new one of the same name.
    await traffic.quiet();
    await chain.update("cpr-reboot");
    end.close();
    end = open();
    peer.moveTo(end.fd);
    traffic.resume();
    await traffic.returned(20);
    chain.become({ guest: "virtio_net", options: tapOptions("tap,id=n") });
    for (const mode of ["cpr-transfer", "cpr-exec", "cpr-transfer"] as const) {
      await chain.update(mode);
      await traffic.returned(40);
    }
    await traffic.quiet();
  } finally {
    await traffic.end();
    end.close();
  }
  await assertGuestUnharmed(chain);
}

for (const queues of [1, 2]) {
  kvmTest(
    `frames over a tap go on through each mode, and a successor needs no name, queues: ${queues}`,
    () => tapGoesOn(queues),
    noTap !== undefined,
  );
}

for (const packed of [false, true]) {
  kvmTest(
    `frames over all queues of a tap go on through each mode, in order in each flow, packed: ${packed}`,
    () => tapGoesOn(2, true, packed),
    noTap !== undefined,
  );
}
