/** Network backends: frames between two of them, what a successor takes over, what is refused. */
import assert from "node:assert/strict";
import { noLimits } from "../../devices/block/throttle.ts";
import type { NetdevConfig, StreamConfig } from "../../devices/net/config.ts";
import { MAX_FRAME, type NetPort, openPort } from "../../devices/net/port.ts";
import { Errno } from "../../ffi/errno.ts";
import { duplicate, makePipe, type OwnedFd, writeFd } from "../../ffi/fd.ts";
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";
import { addressOf } from "../../ffi/memory.ts";
import { findProgram } from "../../ffi/process.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connectUnix, socketPair } from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import { openTap, setTapOffload, setTapQueue, tapInfo, TapOffload } from "../../ffi/tap.ts";
import { type HandedFd, Inheritance } from "../../vmm/inheritance.ts";
import { NetdevSet } from "../../vmm/netdev_set.ts";
import { ThrottleSet } from "../../vmm/throttle_set.ts";
import { patience } from "../patience.ts";
import { freePort } from "../ports.ts";
import { noTap } from "../tap_peer.ts";
import "../tap_skips.ts";

/** Frames as a device sends and receives them. */
class End {
  readonly port: NetPort;
  readonly #buffer = new Uint8Array(MAX_FRAME + 12);

  constructor(set: NetdevSet, id: string) {
    this.port = openPort(set.port(id));
  }

  /** Sends a frame; returns what {@linkcode NetPort.send} returns. */
  send(frame: Uint8Array<ArrayBuffer>, done = 0): number {
    const vector = new IoVector(MAX_PIECES - 1);
    // In two pieces, as guests have them.
    const half = frame.length >> 1;
    const address = Number(addressOf(frame));
    vector.push(address + half, frame.length - half);
    const whole = new IoVector(MAX_PIECES - 1);
    whole.push(address, half);
    whole.append(vector);
    return this.port.send(whole, done);
  }

  /** The next frame, or undefined if there is none. */
  receive(): Uint8Array | undefined {
    const into = new IoVector(MAX_PIECES - 1);
    into.push(Number(addressOf(this.#buffer)), this.#buffer.length);
    const n = this.port.receive(into);
    if (n === -Errno.ENOTCONN) this.port.drop();
    if (n === -Errno.EAGAIN || n === -Errno.ENOTCONN) return undefined;
    assert.ok(n >= 0, `receive: ${n}`);
    return this.#buffer.slice(0, n);
  }

  async next(): Promise<Uint8Array> {
    let frame: Uint8Array | undefined;
    await until(() => (frame = this.receive()) !== undefined, "a frame");
    return frame!;
  }
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + patience(60_000);
  while (!condition()) {
    assert.ok(performance.now() < end, `waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Sets of network backends in a folder. */
class Stage implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly events: string[] = [];
  readonly notices: string[] = [];
  readonly folder = Deno.makeTempDirSync({ prefix: "denovo-netdevs-" });
  readonly #sets: NetdevSet[] = [];

  async set(...configs: NetdevConfig[]): Promise<NetdevSet> {
    return await this.successor(undefined, ...configs);
  }

  async successor(from: Inheritance | undefined, ...configs: NetdevConfig[]): Promise<NetdevSet> {
    const set = new NetdevSet(this.reactor, {
      notice: (text) => void this.notices.push(text),
      event: (name, data) => void this.events.push(`${name} ${JSON.stringify(data)}`),
      connected: () => {},
      claimed: () => {},
    });
    this.#sets.push(set);
    await set.open(configs, from);
    return set;
  }

  server(id = "s"): StreamConfig {
    const path = `${this.folder}/socket`;
    return { type: "stream", id, addr: { type: "unix", path }, server: true };
  }

  client(id = "c"): StreamConfig {
    return { ...this.server(id), server: false };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const set of this.#sets) set.close();
    await this.reactor.close();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

/** What a successor in the place of the old one, or beside it, gets of a set. */
function inherit(fds: readonly HandedFd[], shared: boolean): Inheritance {
  const inheritance = new Inheritance(shared);
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  return inheritance;
}

const frame = (length: number, seed = 1) =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);

Deno.test("a backend is of a throttle group that there is", async () => {
  await using stage = new Stage();
  const throttles = new ThrottleSet();
  throttles.add({ qomType: "throttle-group", id: "tg", limits: noLimits });
  const host = { notice: () => {}, event: () => {}, connected: () => {}, claimed: () => {} };
  const set = new NetdevSet(stage.reactor, host, throttles);
  try {
    await set.open([{ ...stage.server(), throttleGroup: "tg" }]);
    assert.equal(set.port("s").throttle, throttles.group("tg").shared);
    await assert.rejects(set.add({ ...stage.client(), throttleGroup: "other" }), {
      message: "Throttle group 'other' does not exist",
    });
    assert.deepEqual([...set.backends.keys()], ["s"]);
    await set.add(stage.client());
    assert.equal(set.port("c").throttle, undefined);
  } finally {
    set.close();
  }
});

Deno.test("frames go over a stream whole and in order, both ways, whatever their lengths", async () => {
  await using stage = new Stage();
  const server = new End(await stage.set(stage.server()), "s");
  const client = new End(await stage.set(stage.client()), "c");
  await until(() => server.port.fd !== undefined, "the connection");
  for (const [from, to] of [[client, server], [server, client]]) {
    const lengths = [14, 60, 1514, 65_550, 1, MAX_FRAME];
    for (const [i, length] of lengths.entries()) {
      assert.equal(from.send(frame(length, i)), from.port.frameSize(length));
      assert.deepEqual(await to.next(), frame(length, i));
    }
    for (let i = 0; i < 50; i++) from.send(frame(100 + i, i));
    for (let i = 0; i < 50; i++) assert.deepEqual(await to.next(), frame(100 + i, i));
    assert.equal(to.receive(), undefined);
  }
});

Deno.test("QEMU's framing is on the wire: a length of 4 bytes, big-endian, then the frame", async () => {
  await using stage = new Stage();
  const set = await stage.set(stage.server());
  using peer = connectUnix(`${stage.folder}/socket`);
  const end = new End(set, "s");
  await until(() => end.port.fd !== undefined, "the connection");
  writeFd(peer.fd, Uint8Array.of(0, 0, 0, 3, 7, 8));
  assert.equal(end.receive(), undefined);
  writeFd(peer.fd, Uint8Array.of(9, 0, 0));
  assert.deepEqual(await end.next(), Uint8Array.of(7, 8, 9));
  assert.equal(end.receive(), undefined);
});

Deno.test("a frame that a full stream takes in part goes on where it stopped", async () => {
  await using stage = new Stage();
  const server = new End(await stage.set(stage.server()), "s");
  const client = new End(await stage.set(stage.client()), "c");
  await until(() => server.port.fd !== undefined, "the connection");
  const all = client.port.frameSize(60_000);
  let sent = 0;
  let done = all;
  while ((done = client.send(frame(60_000, sent))) === all) sent++;
  // What is left is the device's to say, in whatever process it is then.
  const received: Uint8Array[] = [];
  while (done < all) {
    for (let one = server.receive(); one; one = server.receive()) received.push(one);
    done = client.send(frame(60_000, sent), done);
  }
  sent++;
  while (received.length < sent) received.push(await server.next());
  received.forEach((one, i) => assert.deepEqual(one, frame(60_000, i), `frame ${i}`));
});

Deno.test("a stream ends with its peer, and by a length that no frame has; the next client is taken", async () => {
  await using stage = new Stage();
  const set = await stage.set(stage.server());
  const end = new End(set, "s");
  for (const goodbye of [[], [0xff, 0xff, 0xff, 0xff]]) {
    const peer = connectUnix(`${stage.folder}/socket`);
    await until(() => end.port.fd !== undefined, "the connection");
    if (goodbye.length > 0) writeFd(peer.fd, Uint8Array.from(goodbye));
    else peer.close();
    await until(() => (end.receive(), end.port.fd === undefined), "the end of the connection");
    peer.close();
  }
  const { events } = stage;
  await until(() => events.length === 4, "events");
  const connected =
    `NETDEV_STREAM_CONNECTED {"netdev-id":"s","addr":{"type":"unix","path":"${stage.folder}/socket"}}`;
  const ended = 'NETDEV_STREAM_DISCONNECTED {"netdev-id":"s"}';
  assert.deepEqual(events, [connected, ended, connected, ended]);
});

Deno.test("a client connects again after `reconnect-ms`, and without says why it could not", async () => {
  await using stage = new Stage();
  const set = await stage.set({ ...stage.client(), reconnectMs: 5 }, stage.client("once"));
  const end = new End(set, "c");
  assert.equal(end.port.fd, undefined);
  assert.match(stage.notices[0], /^netdev 'once': Failed to connect to .*: No such file/);
  assert.equal(stage.notices.length, 1);
  await stage.set(stage.server());
  await until(() => end.port.fd !== undefined, "the connection");
});

Deno.test("a frame to nobody is lost, and nothing waits for it", async () => {
  await using stage = new Stage();
  const end = new End(await stage.set(stage.server()), "s");
  assert.equal(end.send(frame(60)), end.port.frameSize(60));
  assert.equal(end.receive(), undefined);
});

for (const family of ["unix", "inet"] as const) {
  Deno.test(`frames go over datagrams of family ${family}`, async () => {
    await using stage = new Stage();
    const at = (name: string, port: number) =>
      family === "unix"
        ? { type: "unix", path: `${stage.folder}/${name}` } as const
        : { type: "inet", host: "127.0.0.1", port } as const;
    const ports = family === "inet" ? [freePort(), freePort()] : [0, 0];
    const [a, b] = [at("a", ports[0]), at("b", ports[1])];
    const one = new End(await stage.set({ type: "dgram", id: "n", local: a, remote: b }), "n");
    // A peer that is not there yet is no error.
    assert.equal(one.send(frame(60)), 60);
    const other = new End(await stage.set({ type: "dgram", id: "n", local: b, remote: a }), "n");
    for (const length of [14, 1514, 9000]) {
      assert.equal(one.send(frame(length)), length);
      assert.deepEqual(await other.next(), frame(length));
      assert.equal(other.send(frame(length, 2)), length);
      assert.deepEqual(await one.next(), frame(length, 2));
    }
  });
}

Deno.test("a descriptor that was given is used, and stays open for who gave it", async () => {
  await using stage = new Stage();
  const [ours, theirs] = socketPair();
  using _ours = ours;
  using peer = theirs;
  const addr = { type: "fd", fd: ours.fd } as const;
  const end = new End(await stage.set({ type: "stream", id: "n", addr, server: false }), "n");
  writeFd(peer.fd, Uint8Array.of(0, 0, 0, 1, 5));
  assert.deepEqual(await end.next(), Uint8Array.of(5));
  assert.equal(localAddress(ours.fd)?.type, "unix");
  await assert.rejects(
    stage.set({ type: "stream", id: "m", addr: { type: "fd", fd: 9999 }, server: false }),
    { message: "netdev 'm': File descriptor 9999 is not open" },
  );
});

Deno.test("a backend is added, and removed with what it has made, or nothing is left", async () => {
  await using stage = new Stage();
  const set = await stage.set(stage.client("c"));
  const server = stage.server("late");
  await set.add(server);
  assert.deepEqual([...set.backends.keys()], ["c", "late"]);
  await assert.rejects(set.add(server), { message: "Duplicate ID 'late'" });
  assert.ok(Deno.lstatSync(`${stage.folder}/socket`).isSocket);
  set.remove("late");
  assert.throws(() => Deno.lstatSync(`${stage.folder}/socket`), Deno.errors.NotFound);
  const addr = { type: "fd", fd: 9999 } as const;
  await assert.rejects(set.add({ type: "stream", id: "bad", addr, server: false }), /is not open/);
  assert.deepEqual([...set.backends.keys()], ["c"]);
});

Deno.test("a descriptor that was given must be a socket of its kind", async () => {
  await using stage = new Stage();
  const [ours, theirs] = socketPair();
  using stream = ours;
  using _theirs = theirs;
  const [one, other] = socketPair("seqpacket");
  using messages = one;
  using _other = other;
  const [reader, writer] = makePipe();
  using pipe = reader;
  using _writer = writer;
  const cases: [type: "stream" | "server" | "dgram", fd: OwnedFd, reason: string][] = [
    ["stream", pipe, "is a fifo, expected a socket"],
    ["stream", messages, "is a socket of another type: it must be for a stream"],
    ["server", stream, "does not listen"],
    ["dgram", pipe, "is a fifo, expected a socket"],
    ["dgram", stream, "is a socket of another type: it must be for datagrams"],
  ];
  for (const [i, [type, { fd }, reason]] of cases.entries()) {
    const [id, addr] = [`n${i}`, { type: "fd", fd } as const];
    const config = type === "dgram"
      ? { type, id, local: addr } as const
      : { type: "stream", id, addr, server: type === "server" } as const;
    const message = `netdev '${id}': File descriptor ${fd} ${reason}`;
    await assert.rejects(stage.set(config), { message });
  }
});

for (const shared of [true, false]) {
  const who = shared ? "beside the old VMM" : "in its place";
  Deno.test(`a successor ${who} has the connection, and what is in it`, async () => {
    await using stage = new Stage();
    const server = await stage.set(stage.server());
    const peer = new End(await stage.set(stage.client()), "c");
    const before = new End(server, "s");
    await until(() => before.port.fd !== undefined, "the connection");
    peer.send(frame(100, 1));
    peer.send(frame(100, 2));
    assert.deepEqual(await before.next(), frame(100, 1));
    server.hold(true);
    const { fds } = server.handOver();
    assert.deepEqual(fds.map(({ name, id }) => `${name} ${id}`), [
      "netdev/data s",
      "netdev/listener s",
    ]);
    using inheritance = inherit(fds, shared);
    const after = await stage.successor(inheritance, stage.server());
    inheritance.checkEmpty();
    server.releaseKept();
    after.arrive()();
    const end = new End(after, "s");
    assert.deepEqual(await end.next(), frame(100, 2));
    end.send(frame(50, 3));
    assert.deepEqual(await peer.next(), frame(50, 3));
  });
}

Deno.test("a client that comes while the guest is on its way is the successor's", async () => {
  await using stage = new Stage();
  const server = await stage.set(stage.server());
  server.hold(true);
  using inheritance = inherit(server.handOver().fds, true);
  const after = await stage.successor(inheritance, stage.server());
  using _client = connectUnix(`${stage.folder}/socket`);
  const [before, end] = [new End(server, "s"), new End(after, "s")];
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual([before.port.fd, end.port.fd], [undefined, undefined]);
  server.releaseKept();
  after.arrive()();
  await until(() => end.port.fd !== undefined, "the connection");
});

Deno.test("a successor that gives up leaves the listener's file to whom it belongs", async () => {
  await using stage = new Stage();
  const server = await stage.set(stage.server());
  using inheritance = inherit(server.handOver().fds, true);
  const after = await stage.successor(inheritance, stage.server());
  after.close();
  using _client = connectUnix(`${stage.folder}/socket`);
  const end = new End(server, "s");
  await until(() => end.port.fd !== undefined, "the connection");
});

Deno.test("a client that comes while the guest was on its way is taken where it stays", async () => {
  await using stage = new Stage();
  const server = await stage.set(stage.server());
  server.hold(true);
  using _client = connectUnix(`${stage.folder}/socket`);
  server.hold(false);
  const end = new End(server, "s");
  await until(() => end.port.fd !== undefined, "the connection");
});

Deno.test("a guest that goes on from a file leaves the address to it, and takes it again if it is free", async () => {
  await using stage = new Stage();
  const before = await stage.set(stage.server());
  before.letGo();
  before.letGo();
  const after = await stage.set(stage.server());
  assert.equal(before.takeBack(), false);
  using _client = connectUnix(`${stage.folder}/socket`);
  const end = new End(after, "s");
  await until(() => end.port.fd !== undefined, "the connection");
  after.close();
  assert.equal(before.takeBack(), true);
  assert.equal(before.takeBack(), true);
  using _other = connectUnix(`${stage.folder}/socket`);
  const again = new End(before, "s");
  await until(() => again.port.fd !== undefined, "the connection");
});

Deno.test("with cpr=off nothing is handed over", async () => {
  await using stage = new Stage();
  const set = await stage.set({ ...stage.server(), cpr: false });
  assert.deepEqual(set.handOver().fds, []);
  // What comes all the same is of no use.
  const [ours, theirs] = socketPair();
  using one = ours;
  using _other = theirs;
  using inheritance = inherit([{ name: "netdev/data", id: "c", fd: one.fd }], false);
  const next = await stage.successor(inheritance, { ...stage.client(), cpr: false });
  inheritance.checkEmpty();
  assert.notEqual(next.port("c").isInherited, true);
});

Deno.test("what a successor is handed must be what it stands for", async () => {
  await using stage = new Stage();
  const [ours, theirs] = socketPair();
  using one = ours;
  using _other = theirs;
  const from = (name: string) => inherit([{ name, id: "n", fd: one.fd }], false);
  using listener = from("netdev/listener");
  await assert.rejects(stage.successor(listener, stage.server("n")), {
    message: "File descriptor 'netdev/listener' n does not listen",
  });
  using tap = from("netdev/data");
  await assert.rejects(stage.successor(tap, { type: "tap", id: "n" }), {
    message: "File descriptor of netdev 'n' is no tap",
  });
  using unknown = from("netdev/data");
  await assert.rejects(stage.successor(unknown), {
    message: "The guest has a network backend 'n' that this VMM has not: give it a -netdev" +
      " of that id, or netdev_del it in the old VMM first",
  });
});

Deno.test({
  name: "a tap is opened by name, with a header; a successor needs no name",
  ignore: noTap !== undefined,
  async fn() {
    await using stage = new Stage();
    const ifname = `dn${Deno.pid % 100_000}`;
    const set = await stage.set({ type: "tap", id: "t", ifname });
    const { fds } = set.handOver();
    const info = { name: ifname, vnetHeader: true, multiQueue: false };
    assert.deepEqual(tapInfo(fds[0].fd), info);
    assert.ok(setTapOffload(fds[0].fd, TapOffload.CSUM | TapOffload.TSO4 | TapOffload.TSO6));
    assert.equal(set.backends.get("t")!.info, `ifname=${ifname},script=no,downscript=no`);
    assert.equal(set.port("t").headerSize, 12);
    using inheritance = inherit(fds, true);
    const after = await stage.successor(inheritance, { type: "tap", id: "t" });
    assert.equal(after.backends.get("t")!.info, `ifname=${ifname},script=no,downscript=no`);
    const end = new End(set, "t");
    const { connection } = end.port;
    await assert.rejects(stage.set({ type: "tap", id: "u", ifname }), {
      message: `could not configure /dev/net/tun (${ifname}): Device or resource busy`,
    });
    // A guest that goes on from a file: its tap is opened by name.
    after.close();
    set.letGo();
    assert.equal(end.port.fd, undefined);
    const third = await stage.set({ type: "tap", id: "t", ifname });
    assert.equal(set.takeBack(), false);
    third.close();
    assert.equal(set.takeBack(), true);
    assert.notEqual(end.port.connection, connection);
    assert.deepEqual(tapInfo(end.port.fd!), info);
  },
});

Deno.test({
  name: "a tap has as many queues as it is told, and a successor takes all of them",
  ignore: noTap !== undefined,
  async fn() {
    await using stage = new Stage();
    const set = await stage.set({ type: "tap", id: "t", queues: 3 });
    const port = openPort(set.port("t"));
    const queues = [port, ...port.more!];
    const infos = queues.map(({ fd }) => tapInfo(fd!));
    const [info] = infos;
    assert.deepEqual(infos, Array(3).fill({ ...info!, multiQueue: true }));
    assert.equal(new Set(queues.map(({ fd }) => fd)).size, 3);
    // In use already; then not, and again.
    assert.deepEqual(
      [true, false, false, true].map((isUsed) => setTapQueue(queues[2].fd!, isUsed)),
      [false, true, false, true],
    );
    const { fds } = set.handOver();
    assert.deepEqual(fds.map(({ name, id }) => [name, id]), [
      ...[["netdev/data", "t"], ["netdev/queue1", "t"], ["netdev/queue2", "t"]],
    ]);
    for (const [count, shown] of [[2, 2], [undefined, 1], [4, 4]]) {
      using inheritance = inherit(fds, true);
      await assert.rejects(
        stage.successor(inheritance, { type: "tap", id: "t", queues: count }),
        {
          message: `netdev 't' has 3 queues in the old VMM, not ${shown}: that cannot change` +
            " while the guest runs",
        },
      );
    }
    using inheritance = inherit(fds, true);
    const after = await stage.successor(inheritance, { type: "tap", id: "t", queues: 3 });
    const further = openPort(after.port("t"));
    for (const { fd } of [further, ...further.more!]) {
      assert.equal(tapInfo(fd!)!.name, info!.name);
    }
    after.close();
    // A guest that goes on from a file: all of them are opened by name.
    set.letGo();
    assert.deepEqual(queues.map(({ fd }) => fd), [undefined, undefined, undefined]);
    assert.equal(set.takeBack(), true);
    assert.deepEqual(queues.map(({ fd }) => tapInfo(fd!)!.name), Array(3).fill(info!.name));
  },
});

Deno.test({
  name: "descriptors of a tap's queues that were given are used, if they are of one interface",
  ignore: noTap !== undefined,
  async fn() {
    await using stage = new Stage();
    using first = openTap("", true, true);
    using second = openTap(tapInfo(first.fd)!.name, true, true);
    using other = openTap("", true, true);
    const set = await stage.set({ type: "tap", id: "t", fds: [first.fd, second.fd] });
    const { more } = openPort(set.port("t"));
    assert.deepEqual(tapInfo(more![0].fd!), tapInfo(first.fd));
    await assert.rejects(
      stage.set({ type: "tap", id: "u", fds: [first.fd, other.fd] }),
      /^Error: netdev 'u': descriptor 1 is '.+', not a queue of '.+'$/,
    );
  },
});

const passt = findProgram("passt");
if (passt === "passt") console.warn("SKIPPED: a test that needs passt, which is not on PATH");

Deno.test({
  name: "passt is started, and is what is at the other end; it goes with the connection",
  ignore: passt === "passt",
  async fn() {
    await using stage = new Stage();
    const set = await stage.set({ type: "user", id: "u", hostfwd: [] });
    const end = new End(set, "u");
    const mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    // ARP (RFC 826): who has 10.0.2.2, says 10.0.2.15.
    const question = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2];
    end.send(Uint8Array.from([...new Array(6).fill(0xff), ...mac, 8, 6, ...question]));
    const answer = await end.next();
    assert.deepEqual([...answer.subarray(0, 6)], mac);
    assert.deepEqual([...answer.subarray(12, 22)], [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    assert.deepEqual([...answer.subarray(28, 32)], [10, 0, 2, 2]);
    assert.deepEqual(set.handOver().fds.map(({ name }) => name), ["netdev/data"]);
    using inheritance = inherit(set.handOver().fds, false);
    const after = new End(
      await stage.successor(inheritance, { type: "user", id: "u", hostfwd: [] }),
      "u",
    );
    after.send(Uint8Array.from([...new Array(6).fill(0xff), ...mac, 8, 6, ...question]));
    assert.deepEqual(await after.next(), answer);
  },
});

Deno.test({
  name: "without passt, or where it does not start, it is said what type=user needs",
  async fn() {
    await using stage = new Stage();
    const path = Deno.env.get("PATH")!;
    Deno.writeTextFileSync(`${stage.folder}/passt`, "#!/bin/sh\nexit 3\n", { mode: 0o755 });
    try {
      Deno.env.set("PATH", "/nowhere");
      await assert.rejects(stage.set({ type: "user", id: "u", hostfwd: [] }), {
        message:
          "netdev 'u': could not run passt, which type=user needs: No such file or directory",
      });
      Deno.env.set("PATH", stage.folder);
      await assert.rejects(stage.set({ type: "user", id: "v", hostfwd: [] }), {
        message: "netdev 'v': could not run passt, which type=user needs: passt did not start",
      });
      const script = "#!/bin/sh\necho a word; echo 'Port is in use' >&2\nexit 1\n";
      Deno.writeTextFileSync(`${stage.folder}/passt`, script);
      await assert.rejects(stage.set({ type: "user", id: "w", hostfwd: [] }), {
        message: "netdev 'w': could not run passt, which type=user needs: passt did not start:" +
          " Port is in use",
      });
    } finally {
      Deno.env.set("PATH", path);
    }
  },
});

Deno.test("that passt has ended is said, and shown", async () => {
  await using stage = new Stage();
  Deno.writeTextFileSync(`${stage.folder}/passt`, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", stage.folder);
  const opening = stage.set({ type: "user", id: "u", hostfwd: [] });
  const set = await opening.finally(() => Deno.env.set("PATH", path));
  const backend = set.backends.get("u")!;
  assert.equal(backend.info, "passt");
  const end = new End(set, "u");
  await until(() => (end.receive(), stage.notices.length > 0), "a notice");
  assert.deepEqual(stage.notices, [
    "netdev 'u': passt has ended, and with it the guest's network",
  ]);
  assert.equal(backend.info, "passt has ended");
});

Deno.test({
  name: "a tap's descriptor that was given is used as it is",
  ignore: noTap !== undefined,
  async fn() {
    await using stage = new Stage();
    using plain = openTap("", false);
    const set = await stage.set({ type: "tap", id: "t", fd: plain.fd });
    assert.equal(set.port("t").headerSize, 0);
    using rich = openTap("", true);
    await assert.rejects(
      stage.set({ type: "tap", id: "u", fd: rich.fd, vnetHdr: false }),
      /^Error: netdev 'u': vnet_hdr=off, but the tap '.*' was opened with it$/,
    );
  },
});

Deno.test("a backend whose card the kernel serves is not handed over", async () => {
  await using stage = new Stage();
  // No descriptor has this number.
  const tap: NetdevConfig = { type: "tap", id: "n", fd: 0x7fff_ffff };
  const host = { notice: () => {}, event: () => {}, connected: () => {}, claimed: () => {} };
  for (const vhost of [true, false]) {
    const set = new NetdevSet(stage.reactor, host, new ThrottleSet());
    await assert.rejects(set.open([{ ...tap, vhost }]));
    assert.deepEqual(
      set.blockers(),
      vhost ? ["netdev 'n' has vhost=on: its card goes to a new VMM by cpr-reboot alone"] : [],
    );
    set.close();
  }
});
