/** Back-ends behind vhost-user sockets: what is agreed on, what a device says, and who comes after whom. */
import assert from "node:assert/strict";
import {
  encode,
  inflightRegion,
  MAX_PAYLOAD,
  Request,
  ringNumber,
} from "../../devices/vhost_user/message.ts";
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import { VhostUserPort } from "../../devices/vhost_user/port.ts";
import { vhostUserBlk } from "../../devices/virtio/vhost_user_blk.ts";
import { InterruptCause, Status } from "../../devices/virtio/virtio_state.ts";
import { drainEvent, Epoll, signalEventfd } from "../../ffi/event.ts";
import { duplicate, makePipe, O, openFile, type OwnedFd, readAt, writeAt } from "../../ffi/fd.ts";
import { addSeals, makeMemfd, Seal } from "../../ffi/memory.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { defaultConfig } from "../../vmm/config.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import { vhostUserConfigs, VhostUserSet } from "../../vmm/vhost_user_set.ts";
import { DESC, DEVICE, DRIVER } from "../devices/virtio/drivers.ts";
import { VirtioRig } from "../devices/virtio/rig.ts";
import { patience } from "../patience.ts";
import { encodeReply, VhostUserPeer } from "../vhost_user_peer.ts";

const needs = { queues: 1, queueSize: 128, configSize: 60 };

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = performance.now() + patience(60_000);
  while (!condition()) {
    assert.ok(performance.now() < end, `waited too long for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Waits until the back-end has been asked something. */
function hears({ peer }: Stage, request: number, what: string): Promise<void> {
  return until(() => peer.requests.includes(request), what);
}

/** A peer, and sets that connect to it. */
class Stage implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly folder = Deno.makeTempDirSync({ prefix: "denovo-vhost-user-" });
  readonly notices: string[] = [];
  readonly peer: VhostUserPeer;
  /** How often a set had a connection that it had not. */
  connected = 0;
  readonly #sets: VhostUserSet[] = [];

  constructor() {
    this.peer = new VhostUserPeer(this.path, this.reactor);
  }

  get path(): string {
    return `${this.folder}/socket`;
  }

  /** Connects a set, or has it take over. */
  async open(from?: Inheritance, changes: Partial<typeof needs> = {}): Promise<VhostUserSet> {
    const set = new VhostUserSet(this.reactor, {
      notice: (text) => void this.notices.push(text),
      connected: () => void this.connected++,
    });
    this.#sets.push(set);
    const config = { id: "c", path: this.path, reconnectMs: 1, needs: { ...needs, ...changes } };
    await set.open([config], from);
    return set;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const set of this.#sets) set.close();
    this.peer[Symbol.dispose]();
    await this.reactor.close();
    Deno.removeSync(this.folder, { recursive: true });
  }
}

/** A disk of a back-end, with RAM of a file. */
function makeRig(set: VhostUserSet, file: OwnedFd): VirtioRig {
  const port = new VhostUserPort(set.description("c"));
  const rig = new VirtioRig(vhostUserBlk, "kept", {}, undefined, undefined, port);
  Object.assign(rig.ram.ranges[0], { file: { fd: file.fd, offset: 0x3000 } });
  return rig;
}

/** A driver sets the ring up, and begins. */
function runDriver(rig: VirtioRig): void {
  rig.negotiate(0n);
  rig.setUp(0, 8);
  rig.start();
}

const words = (payload: Uint8Array) => [...new Uint32Array(payload.slice().buffer)];
const wides = (payload: Uint8Array) => [...new BigUint64Array(payload.slice().buffer)].map(Number);

Deno.test("a back-end's features and configuration are asked for once", async () => {
  await using stage = new Stage();
  const set = await stage.open();
  const { features, config, inflight, isInherited } = set.description("c");
  assert.equal(features, stage.peer.features);
  assert.deepEqual(new Uint8Array(config), stage.peer.config);
  assert.deepEqual([inflight?.size, inflight?.offset], [4096, 4096]);
  assert.equal(isInherited, false);
  await hears(stage, Request.GET_INFLIGHT_FD, "all requests");
  assert.deepEqual(stage.peer.requests, [
    Request.GET_FEATURES,
    Request.GET_PROTOCOL_FEATURES,
    Request.SET_PROTOCOL_FEATURES,
    Request.SET_OWNER,
    Request.GET_QUEUE_NUM,
    Request.GET_CONFIG,
    Request.GET_INFLIGHT_FD,
  ]);
});

Deno.test("a driver's rings go to the back-end, and its doorbells and interrupts both ways", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  const { kicks: [kick], calls: [call] } = set.description("c");
  assert.equal(rig.offered() & 1n << 9n, 1n << 9n);
  // What the back-end has not is not offered.
  assert.equal(rig.offered() & (1n << 13n | 1n << 34n | 1n << 40n), 0n);
  assert.equal(rig.read(0x100 + 8, 4), 0x0b0a0908);
  rig.negotiate(1n << 9n);
  rig.setUp(0, 8);
  // The driver has seen three entries used: what follows is the back-end's.
  rig.ram.data.setUint16(DEVICE + 2 - rig.ram.base, 3, true);
  stage.peer.heard.length = 0;
  rig.start();
  await hears(stage, Request.SET_VRING_ENABLE, "the rings");
  const { heard } = stage.peer;
  const range = rig.ram.ranges[0];
  const at = (gpa: number) => range.address + gpa - range.gpa;
  const of = (request: number) => heard.find((one) => one.request === request)!;
  assert.deepEqual(wides(of(Request.SET_FEATURES).payload), [2 ** 32 + 2 ** 30 + 2 ** 9]);
  const table = of(Request.SET_MEM_TABLE);
  assert.deepEqual(wides(table.payload), [1, range.gpa, range.size, range.address, 0x3000]);
  // It is the same file.
  writeAt(file.fd, Uint8Array.of(0x5a), 0x3000);
  const byte = new Uint8Array(1);
  assert.equal(readAt(table.fds[0].fd, byte, 0x3000), 1);
  assert.equal(byte[0], 0x5a);
  assert.deepEqual(words(of(Request.SET_VRING_NUM).payload), [0, 8]);
  assert.deepEqual(words(of(Request.SET_VRING_BASE).payload), [0, 3]);
  assert.deepEqual(wides(of(Request.SET_VRING_ADDR).payload), [
    ...[0, at(DESC), at(DEVICE), at(DRIVER), 0],
  ]);
  const [theirKick] = of(Request.SET_VRING_KICK).fds;
  const [theirCall] = of(Request.SET_VRING_CALL).fds;
  assert.equal(stage.peer.requests.at(-1), Request.SET_VRING_ENABLE);
  assert.ok(drainEvent(theirKick.fd), "what there was before is told of");
  rig.notify(0);
  assert.ok(drainEvent(theirKick.fd));
  assert.ok(!drainEvent(kick), "there is one doorbell, not two");
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER, "the driver looks once");
  signalEventfd(theirCall.fd);
  rig.context.watched.get(call)!.ready(Epoll.IN);
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
  assert.ok(rig.ram.changes > 0, "what the back-end has written may be code");
});

Deno.test("a reset has the back-end let go of the rings, and of what it is at", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  runDriver(rig);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings");
  writeAt(stage.peer.inflight.fd, new Uint8Array(8192).fill(1), 0);
  stage.peer.write(encodeReply(Request.GET_VRING_BASE, ringNumber(0, 7)));
  rig.set(0x70, 0);
  await hears(stage, Request.GET_VRING_BASE, "the end of the ring");
  const noted = new Uint8Array(8192);
  readAt(stage.peer.inflight.fd, noted, 0);
  assert.deepEqual([noted[4095], noted[4096], noted[8191]], [1, 0, 0]);
  assert.deepEqual(rig.context.warnings, []);
  // The next driver's rings are set up anew.
  stage.peer.heard.length = 0;
  runDriver(rig);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings again");
});

Deno.test("a back-end that answers a reset wrong is left, with a word of why", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  runDriver(rig);
  stage.peer.write(encodeReply(Request.GET_VRING_BASE, ringNumber(5, 7)));
  rig.set(0x70, 0);
  assert.deepEqual(rig.context.warnings, [
    "vhost-user-blk-device: the vhost-user back-end fails: it does not answer for ring 0",
  ]);
  assert.equal(rig.get(0x70), 0);
});

Deno.test("a reset ends, whatever a back-end has made of its notes", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  runDriver(rig);
  addSeals(stage.peer.inflight.fd, Seal.WRITE);
  stage.peer.write(encodeReply(Request.GET_VRING_BASE, ringNumber(0, 7)));
  rig.set(0x70, 0);
  assert.equal(rig.get(0x70), 0);
  assert.match(
    rig.context.warnings.join(),
    /^vhost-user-blk-device: the vhost-user back-end fails: pwrite/,
  );
  await until(() => stage.peer.hasHungUp, "the end of the connection");
});

Deno.test("notes that cannot be forgotten are refused", async () => {
  await using stage = new Stage();
  using notes = openFile(`/proc/self/fd/${stage.peer.inflight.fd}`, O.RDONLY);
  const bytes = encodeReply(Request.GET_INFLIGHT_FD, region(4096, 0));
  stage.peer.answers.set(Request.GET_INFLIGHT_FD, { bytes, fds: [notes.fd] });
  await assert.rejects(stage.open(), {
    message: "vhost-user back-end 'c': what it has sent for requests in flight cannot be written",
  });
});

Deno.test("one that comes in a back-end's place is told of what was noted, and begins at the used index", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  const { slot, inflight } = set.description("c");
  runDriver(rig);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings");
  const fd = new VhostUserPort(set.description("c")).fd!;
  const watch = rig.context.watched.get(fd)!;
  rig.takeInterrupt();
  // One that can do less is not taken, however often it comes.
  stage.peer.features &= ~(1n << 9n);
  stage.peer.heard.length = 0;
  stage.peer.hangUp();
  watch.ready(Epoll.RDHUP | Epoll.HUP);
  assert.equal(new Int32Array(slot)[0], -1);
  assert.ok(!rig.context.watched.has(fd));
  rig.notify(0);
  await until(() => stage.peer.connections >= 3, "further connections");
  assert.deepEqual(stage.notices, [
    "warning: the vhost-user back-end of chardev 'c' is gone: requests wait until it is back",
  ]);
  assert.equal(stage.connected, 1);
  stage.peer.features |= 1n << 9n;
  await until(() => stage.connected === 2, "the connection");
  assert.ok(!stage.peer.requests.includes(Request.GET_INFLIGHT_FD));
  rig.ram.data.setUint16(DEVICE + 2 - rig.ram.base, 5, true);
  rig.device.connected!();
  rig.work();
  await hears(stage, Request.SET_VRING_ENABLE, "the rings again");
  // Of what the one before has used, nobody else will tell.
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
  const of = (request: number) => stage.peer.heard.find((one) => one.request === request)!;
  assert.deepEqual(words(of(Request.SET_VRING_BASE).payload), [0, 5]);
  const region = of(Request.SET_INFLIGHT_FD);
  assert.deepEqual(region.payload, inflightRegion(inflight!));
  const byte = new Uint8Array(1);
  writeAt(stage.peer.inflight.fd, Uint8Array.of(0x77), 5000);
  readAt(region.fds[0].fd, byte, 5000);
  assert.equal(byte[0], 0x77);
});

Deno.test("before a copy a back-end is stopped, and what it notes is left", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const rig = makeRig(await stage.open(), file);
  // No driver is there.
  rig.device.quiesce!();
  runDriver(rig);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings");
  writeAt(stage.peer.inflight.fd, new Uint8Array(8192).fill(1), 0);
  stage.peer.write(encodeReply(Request.GET_VRING_BASE, ringNumber(0, 0)));
  rig.device.quiesce!();
  await hears(stage, Request.GET_VRING_BASE, "the end of the ring");
  const noted = new Uint8Array(1);
  readAt(stage.peer.inflight.fd, noted, 5000);
  assert.equal(noted[0], 1);
  // Where there was no copy after all, it goes on; what was finished meanwhile, the driver hears of.
  stage.peer.heard.length = 0;
  rig.takeInterrupt();
  rig.notify(0);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings again");
  assert.equal(rig.takeInterrupt(), InterruptCause.USED_BUFFER);
});

Deno.test("there is no copy while a back-end that has requests is gone", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  runDriver(rig);
  const { fd } = new VhostUserPort(set.description("c"));
  set.hold(true);
  rig.context.watched.get(fd!)!.ready(Epoll.HUP);
  rig.device.quiesce!();
  rig.ram.data.setUint16(DRIVER + 2 - rig.ram.base, 1, true);
  assert.throws(() => rig.device.quiesce!(), {
    message: "vhost-user-blk-device: the vhost-user back-end is not there; try again when it is",
  });
});

Deno.test("a ring that is not in memory is the driver's fault, and the back-end hears nothing of it", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  rig.negotiate(0n);
  rig.set(0x30, 0);
  rig.set(0x38, 8);
  rig.set(0x80, 0xffff_f000);
  rig.set(0x44, 1);
  stage.peer.heard.length = 0;
  rig.start();
  assert.ok(rig.get(0x70) & Status.NEEDS_RESET);
  assert.match(rig.context.warnings[0], /no ring can be at 0xfffff000$/);
  assert.deepEqual(stage.peer.requests, []);
});

/** What a successor gets. */
function inherit(set: VhostUserSet, shared: boolean): Inheritance {
  const inheritance = new Inheritance(shared);
  const { fds, values } = set.handOver();
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  for (const { name, id, data } of values) inheritance.addValue(name, id, data);
  return inheritance;
}

Deno.test("a successor goes on with the connection, of which the back-end notices nothing", async () => {
  await using stage = new Stage();
  using file = makeMemfd("ram", 0x10_0000);
  const set = await stage.open();
  const rig = makeRig(set, file);
  runDriver(rig);
  await hears(stage, Request.SET_VRING_ENABLE, "the rings");
  rig.takeInterrupt();
  stage.peer.config.fill(0xee);
  stage.peer.heard.length = 0;
  using inheritance = inherit(set, true);
  const next = await stage.open(inheritance);
  inheritance.checkEmpty();
  const [before, after] = [set.description("c"), next.description("c")];
  assert.equal(after.features, before.features);
  assert.deepEqual(new Uint8Array(after.config), new Uint8Array(before.config));
  assert.equal(after.inflight!.offset, before.inflight!.offset);
  assert.ok(after.isInherited);
  const other = makeRig(next, file);
  other.load(rig.bytes);
  next.arrive()();
  set.close();
  // The doorbells are the same, and nobody sets the rings up again.
  other.notify(0);
  signalEventfd(after.calls[0]);
  other.context.watched.get(after.calls[0])!.ready(Epoll.IN);
  assert.equal(other.takeInterrupt(), InterruptCause.USED_BUFFER);
  assert.deepEqual([stage.peer.requests, stage.peer.connections], [[], 1]);
});

Deno.test("a successor whose device is another is refused", async () => {
  await using stage = new Stage();
  const set = await stage.open();
  using inheritance = inherit(set, true);
  await assert.rejects(stage.open(inheritance, { queueSize: 64 }), {
    message: "vhost-user back-end 'c' has 1 queues of 128 entries in the old VMM, not 1 of 64",
  });
});

Deno.test("a successor refuses a region for requests in flight that is not in its file", async () => {
  await using stage = new Stage();
  const set = await stage.open();
  using inheritance = new Inheritance(true);
  const { fds, values } = set.handOver();
  for (const { name, id, fd } of fds) inheritance.addFd(name, id, duplicate(fd));
  const [{ name, id, data }] = values;
  // The size is behind the features.
  new DataView(data.buffer).setBigUint64(8, 8192n, true);
  inheritance.addValue(name, id, data);
  await assert.rejects(stage.open(inheritance), {
    message: "File descriptor 'vhost-user/inflight' c has 8192 bytes, expected 12288",
  });
});

const wide = (value: bigint) => new Uint8Array(BigUint64Array.of(value).buffer);
const region = (size: number, offset: number) =>
  inflightRegion({ size, offset, queues: 1, queueSize: 128 });
/** A reply with a header of its own. */
const raw = (...header: number[]) => new Uint8Array(Uint32Array.from(header).buffer);

for (
  const { what, request, bytes, fds = 0, reason } of [
    {
      what: "another request's answer",
      request: Request.GET_FEATURES,
      bytes: encodeReply(2, wide(1n)),
      reason: "it answers request 1 by message 2 with flags 5",
    },
    {
      what: "a request in place of an answer",
      request: Request.GET_FEATURES,
      bytes: encode(1, wide(1n)),
      reason: "it answers request 1 by message 1 with flags 1",
    },
    {
      what: "an answer without end",
      request: Request.GET_FEATURES,
      bytes: raw(1, 5, MAX_PAYLOAD + 1),
      reason: `its answer to request 1 has ${MAX_PAYLOAD + 1} bytes`,
    },
    {
      what: "an answer that is too short",
      request: Request.GET_FEATURES,
      bytes: encodeReply(1, new Uint8Array(4)),
      reason: "it answers with 4 bytes, not 8",
    },
    {
      what: "descriptors that nobody has asked for",
      request: Request.GET_FEATURES,
      bytes: encodeReply(1, wide(1n << 32n)),
      fds: 3,
      reason: "Message carries more file descriptors than the 0 expected",
    },
    {
      what: "features of before virtio 1",
      request: Request.GET_FEATURES,
      bytes: encodeReply(1, wide(1n << 30n)),
      reason: "it lacks VIRTIO_F_VERSION_1",
    },
    {
      what: "no configuration space",
      request: Request.GET_PROTOCOL_FEATURES,
      bytes: encodeReply(15, wide(0n)),
      reason: "it lacks VHOST_USER_PROTOCOL_F_CONFIG",
    },
    {
      what: "fewer queues than there are",
      request: Request.GET_QUEUE_NUM,
      bytes: encodeReply(17, wide(0n)),
      reason: "The maximum number of queues supported by the backend is 0",
    },
    {
      what: "an error for its configuration",
      request: Request.GET_CONFIG,
      bytes: encodeReply(24, new Uint8Array()),
      reason: "it has no configuration space of this kind of device",
    },
    {
      what: "half of its configuration",
      request: Request.GET_CONFIG,
      bytes: encodeReply(24, new Uint8Array(12 + 30)),
      reason: "it answers with 42 bytes of configuration, not 72",
    },
    {
      what: "no file for requests in flight",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, region(4096, 0)),
      reason: "it has sent no descriptor for requests in flight",
    },
    {
      what: "several files for requests in flight",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, region(4096, 0)),
      fds: 2,
      reason: "Message carries more file descriptors than the 1 expected",
    },
    {
      what: "a pipe for requests in flight",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, region(4096, 0)),
      fds: 1,
      reason: "what it has sent for requests in flight is not as large as it says",
    },
    {
      what: "a region of nothing",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, region(0, 0)),
      fds: 1,
      reason: "it has 0 bytes for requests in flight, at 0",
    },
    {
      what: "a region somewhere",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, region(4096, 2 ** 52)),
      fds: 1,
      reason: `it has 4096 bytes for requests in flight, at ${2 ** 52}`,
    },
    {
      what: "a description of a region that is none",
      request: Request.GET_INFLIGHT_FD,
      bytes: encodeReply(31, new Uint8Array(7)),
      fds: 1,
      reason: "it describes requests in flight by 7 bytes",
    },
  ] satisfies {
    what: string;
    request: number;
    bytes: Uint8Array<ArrayBuffer>;
    fds?: number;
    reason: string;
  }[]
) {
  Deno.test(`a back-end that answers with ${what} is refused, and nothing stays open`, async () => {
    await using stage = new Stage();
    const [reader, writer] = makePipe();
    using _reader = reader;
    using _writer = writer;
    const sent = Array<number>(fds).fill(reader.fd);
    stage.peer.answers.set(request, { bytes, fds: sent });
    const target = Deno.readLinkSync(`/proc/self/fd/${reader.fd}`);
    await assert.rejects(stage.open(), { message: `vhost-user back-end 'c': ${reason}` });
    assert.equal(countOf(target), 2);
  });
}

/** How many descriptors this process has of a pipe: those of both ends. */
function countOf(target: string): number {
  return Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`);
    } catch {
      // That of the listing itself.
      return undefined;
    }
  }).filter((one) => one === target).length;
}

Deno.test("a back-end that hangs up is refused, and one that says nothing in the end", async () => {
  await using stage = new Stage();
  stage.peer.answers.set(Request.GET_CONFIG, undefined);
  const opening = stage.open();
  await hears(stage, Request.GET_CONFIG, "the last request");
  stage.peer.hangUp();
  await assert.rejects(opening, {
    message: "vhost-user back-end 'c': it has closed the connection",
  });
  await assert.rejects(stage.open(), {
    message: "vhost-user back-end 'c': it does not answer within 10 s",
  });
});

Deno.test("what is no back-end's socket is refused by name", () => {
  const unix = { id: "c", backend: "socket", family: "unix", path: "s", wait: false } as const;
  const configs = (chardev: ChardevConfig) =>
    vhostUserConfigs({
      ...defaultConfig(),
      chardevs: [chardev],
      devices: [
        { driver: "virtio-rng-device", properties: {} },
        { driver: "vhost-user-blk-device", properties: { chardev: "c", "num-queues": 2 } },
      ],
    });
  assert.deepEqual(configs({ ...unix, server: false, reconnectMs: 7 }), [
    { id: "c", path: "s", reconnectMs: 7, needs: { queues: 2, queueSize: 128, configSize: 60 } },
  ]);
  const refused: [ChardevConfig, string][] = [
    [{ id: "c", backend: "null" }, 'chardev "c" is not a unix socket'],
    [{ ...unix, server: false, mux: true }, 'chardev "c" is not a unix socket'],
    [
      { ...unix, server: true },
      'chardev "c" listens: a vhost-user back-end does, say server=off',
    ],
    [
      { ...unix, server: false, cpr: false },
      'chardev "c" has cpr=off: a vhost-user back-end would lose requests',
    ],
    [{ id: "other", backend: "null" }, 'chardev "c" not found'],
  ];
  for (const [chardev, message] of refused) assert.throws(() => configs(chardev), { message });
});
