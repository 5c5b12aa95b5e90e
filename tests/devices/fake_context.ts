/**
 * Stand-ins for what surrounds a device, and a rig that runs a device test in every way a device can
 * be run: as one object, as a new object over shared state for each call (as several threads do),
 * and saved and loaded after each call.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  type CharacterSink,
  type DescriptorWatcher,
  type Device,
  type DeviceContext,
  type DeviceMemory,
  type DeviceType,
  type Doorbell,
  type GuestRequest,
  type Interrupt,
  layoutFor,
  type Lock,
  type MemoryRange,
  type Properties,
  type Timer,
  withDefaults,
} from "../../devices/device.ts";
import { type AttachedDisk, needsIoUring } from "../../devices/block/disk.ts";
import { MOST_TRANSFERS } from "../../devices/block/transfers.ts";
import type { NetPort } from "../../devices/net/port.ts";
import type { VhostUserPort } from "../../devices/vhost_user/port.ts";
import type { VsockPort } from "../../devices/virtio/vsock_port.ts";
import { virtioSerial } from "../../devices/virtio/serial.ts";
import { IoUring } from "../../ffi/io_uring.ts";
import type { IoVector } from "../../ffi/iovec.ts";
import { addressOf, viewMemory } from "../../ffi/memory.ts";
import type { Fields, Struct } from "../../ffi/struct.ts";

/** The descriptors of a fake device's doorbells, which there are not. */
export const FIRST_DOORBELL = 1_000_000;

/** A host side of a character device that takes as many bytes as the test allows. */
export class FakeSink implements CharacterSink {
  /** Every byte taken, in order. */
  readonly sent: number[] = [];
  /** Length of each write that was offered. */
  readonly offered: number[] = [];
  /** How many more bytes the host takes. */
  budget = Infinity;
  accepts = 0;
  breaks = 0;

  write(data: Uint8Array): number {
    const taken = Math.min(data.length, this.budget);
    this.offered.push(data.length);
    this.sent.push(...data.subarray(0, taken));
    this.budget -= taken;
    return taken;
  }

  acceptInput(): void {
    this.accepts++;
  }

  sendBreak(): void {
    this.breaks++;
  }

  /** What was sent, as text. */
  get text(): string {
    return String.fromCharCode(...this.sent);
  }
}

/** RAM from an address on. */
export class FakeMemory implements DeviceMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly ranges: readonly MemoryRange[];
  /** How often a device has said that it has written. */
  changes = 0;
  /** What was given back: addresses and bytes. */
  readonly givenBack: [gpa: number, length: number][] = [];
  /** What the host says of memory that is given back. */
  refusal: Error | undefined;

  constructor(readonly base = 0x1000, size = 0x1000) {
    this.bytes = new Uint8Array(size);
    this.ranges = [{ gpa: base, size, address: this.#address(base) }];
  }

  read(gpa: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    return this.#has(gpa, length)
      ? this.bytes.slice(gpa - this.base, gpa - this.base + length)
      : undefined;
  }

  write(gpa: number, data: Uint8Array<ArrayBuffer>): boolean {
    if (!this.#has(gpa, data.length)) return false;
    this.bytes.set(data, gpa - this.base);
    return true;
  }

  zero(gpa: number, length: number): boolean {
    if (!this.#has(gpa, length)) return false;
    this.bytes.fill(0, gpa - this.base, gpa - this.base + length);
    return true;
  }

  collect(vector: IoVector, gpa: number, length: number): "added" | "outside" | "full" {
    if (!this.#has(gpa, length)) return "outside";
    return vector.push(this.#address(gpa), length) ? "added" : "full";
  }

  giveBack(vector: IoVector): void {
    if (this.refusal) throw this.refusal;
    for (const [address, length] of vector.ranges()) {
      const gpa = address - this.#address(this.base) + this.base;
      this.zero(gpa, length);
      this.givenBack.push([gpa, length]);
    }
    this.changes++;
  }

  changed(): void {
    this.changes++;
  }

  view(gpa: number, length: number): ArrayBuffer | undefined {
    return this.#has(gpa, length) ? viewMemory(this.#address(gpa), length).buffer : undefined;
  }

  /** Memory of an ArrayBuffer stays where it is. */
  #address(gpa: number): number {
    return Number(addressOf(this.bytes)) + gpa - this.base;
  }

  #has(gpa: number, length: number): boolean {
    return gpa >= this.base && gpa + length <= this.base + this.bytes.length;
  }
}

/** A device context that records what the device does and has clocks that the test sets. */
export class FakeContext implements DeviceContext {
  readonly chardev = new FakeSink();
  /** Set by a test before it makes its rig's device. */
  content: Uint8Array = new Uint8Array();
  /** Set by a test before it makes its rig's device. */
  netdev: NetPort | undefined;
  /** Set by a test before it makes its rig's device. */
  vhostUser: VhostUserPort | undefined;
  /** Set by a test before its device works. */
  vsock: VsockPort | undefined;
  /** What the device waits for, by descriptor. */
  readonly watched = new Map<
    number,
    { events: number; readonly ready: (events: number) => void }
  >();
  /** What it has left to somebody else. */
  readonly left = new Set<number>();
  readonly watcher: DescriptorWatcher = {
    watch: (fd, events, ready) => {
      const watch = { events, ready };
      this.watched.set(fd, watch);
      return {
        set: (wanted) => {
          watch.events = wanted;
          if (wanted === 0) this.watched.delete(fd);
          else this.watched.set(fd, watch);
        },
      };
    },
    leave: (fd, isLeft) => {
      if (isLeft) this.left.add(fd);
      else this.left.delete(fd);
    },
  };
  /** Present level of each interrupt line. */
  readonly levels: boolean[] = [];
  /** Every change of a line, as `+0` or `-0`. */
  readonly edges: string[] = [];
  readonly requests: GuestRequest[] = [];
  /** Every message: address and data. */
  readonly messages: [address: number, data: number][] = [];
  readonly interrupts: readonly Interrupt[];
  readonly timers: readonly Timer[];
  readonly doorbells: readonly Doorbell[];
  /** Doorbells that were rung, and not answered yet. */
  readonly rung = new Set<number>();
  /** Made if the disk's requests are made at once; whoever made the context closes it. */
  readonly uring: IoUring | undefined;
  readonly locks: readonly Lock[];
  /** Which locks are held. */
  readonly held: boolean[] = [];
  /** Whether the device shall begin nothing. */
  parking = false;
  readonly warnings: string[] = [];
  /** Set by a test before it makes its rig's device. */
  parent: Device | undefined;
  /** Armed deadline of each timer, 0n when disarmed. */
  readonly deadlines: bigint[];
  /** How often a timer was armed or disarmed. */
  timerCalls = 0;
  /** Where the device has moved its ranges. */
  readonly bases: (number | undefined)[] = [];
  /** 2024-02-29 12:34:56 UTC, a Thursday of a leap year. */
  realtime = 1709210096_000000000n;
  monotonic = 1000_000000000n;

  /**
   * @param interrupts how many the device has
   * @param timers how many the device has
   * @param doorbells how many the device has
   * @param locks how many the device has
   * @param memory guest RAM
   * @param disk the disk that the device has
   */
  constructor(
    interrupts: number,
    timers: number,
    doorbells = 0,
    locks = 0,
    readonly memory: FakeMemory = new FakeMemory(),
    readonly disk?: AttachedDisk,
  ) {
    this.uring = disk && needsIoUring(disk) ? new IoUring(MOST_TRANSFERS) : undefined;
    this.doorbells = Array.from(
      { length: doorbells },
      (_, i) => ({ fd: FIRST_DOORBELL + i, ring: () => this.rung.add(i) }),
    );
    this.locks = Array.from({ length: locks }, (_, i) => ({
      lock: () => {
        assert(!this.held[i], "a lock is taken twice");
        assert(!this.held.slice(i).includes(true), "locks are taken in another order");
        this.held[i] = true;
      },
      unlock: () => {
        assert(this.held[i], "a lock is freed that is not held");
        this.held[i] = false;
      },
    }));
    this.interrupts = Array.from({ length: interrupts }, (_, line) => ({
      set: (level) => this.#setLine(line, level),
    }));
    this.deadlines = Array.from({ length: timers }, () => 0n);
    this.timers = this.deadlines.map((_, index) => ({
      arm: (deadlineNs) => {
        this.timerCalls++;
        this.deadlines[index] = deadlineNs;
      },
    }));
  }

  /** That of the first timer. */
  get deadline(): bigint {
    return this.deadlines[0];
  }

  #setLine(line: number, level: boolean): void {
    if ((this.levels[line] ?? false) !== level) this.edges.push(`${level ? "+" : "-"}${line}`);
    this.levels[line] = level;
  }

  realtimeNs(): bigint {
    return this.realtime;
  }

  monotonicNs(): bigint {
    return this.monotonic;
  }

  moveRange(range: number, base: number | undefined): void {
    this.bases[range] = base;
  }

  sendMsi(address: number, data: number): void {
    this.messages.push([address, data]);
  }

  request(request: GuestRequest): void {
    this.requests.push(request);
  }

  isParking(): boolean {
    return this.parking;
  }

  warn(text: string): void {
    this.warnings.push(text);
  }
}

/** How a rig treats its device between two calls. */
export type RigMode = "kept" | "shared" | "saved";

/** One device under test, reset as at power-on. */
export class Rig {
  readonly context: FakeContext;
  readonly #type: DeviceType;
  readonly #mode: RigMode;
  readonly #properties: Properties;
  readonly #layout: Struct<Fields>;
  #buffer: SharedArrayBuffer;
  #device: Device;

  constructor(
    type: DeviceType,
    mode: RigMode = "kept",
    properties: Properties = {},
    content: Uint8Array = new Uint8Array(),
    memory?: FakeMemory,
    disk?: AttachedDisk,
    netdev?: NetPort,
    parent?: Device,
    vhostUser?: VhostUserPort,
  ) {
    const isPort = type.bus === "virtio-serial-bus";
    this.#properties = withDefaults(type, { ...(isPort && { nr: 1 }), ...properties });
    this.context = new FakeContext(
      type.irqs(this.#properties).length,
      type.timers ?? 0,
      type.doorbells?.(this.#properties).length,
      type.locks,
      memory,
      disk,
    );
    this.context.content = content;
    this.context.netdev = netdev;
    this.context.vhostUser = vhostUser;
    this.context.parent = isPort ? new Rig(virtioSerial).device : parent;
    this.#layout = layoutFor(type, this.#properties).state;
    this.#type = type;
    this.#mode = mode;
    this.#buffer = new SharedArrayBuffer(this.#layout.size);
    this.#device = this.#create();
    this.call((device) => device.reset());
  }

  /** The device as it is now. */
  get device(): Device {
    return this.#device;
  }

  get sink(): FakeSink {
    return this.context.chardev;
  }

  /** The saved state's bytes, in place. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#buffer);
  }

  /** Calls the device, then replaces it as the mode says. */
  call<T>(action: (device: Device) => T): T {
    const result = action(this.#device);
    if (this.#mode === "shared") this.#device = this.#create();
    if (this.#mode === "saved") this.#reload();
    return result;
  }

  read(offset: number, size = 1, range = 0): number {
    return this.call((device) => device.read(range, offset, size));
  }

  write(offset: number, value: number, size = 1, range = 0): void {
    this.call((device) => device.write(range, offset, size, value));
  }

  /** Lets the device look at the doorbells that were rung, as the I/O thread does. */
  work(): void {
    for (const doorbell of [...this.context.rung]) {
      this.context.rung.delete(doorbell);
      this.call((device) => device.rung!(doorbell));
    }
  }

  /** Gives the device what it takes of `data`, as a backend does; returns the rest. */
  input(data: Iterable<number>): number[] {
    const bytes = [...data];
    const room = this.call((device) => device.inputRoom!());
    const taken = bytes.splice(0, room);
    if (taken.length > 0) this.call((device) => device.input!(Uint8Array.from(taken)));
    return bytes;
  }

  /** Lets the host take `budget` more bytes and tells the device. */
  writable(budget = Infinity): void {
    this.sink.budget = budget;
    this.call((device) => device.writable!());
  }

  /** Lets time pass, with every timer that falls due on the way. */
  pass(ns: bigint): void {
    const end = this.context.monotonic + ns;
    const moveTo = (monotonic: bigint) => {
      this.context.realtime += monotonic - this.context.monotonic;
      this.context.monotonic = monotonic;
    };
    const { deadlines } = this.context;
    for (;;) {
      const armed = deadlines.filter((deadline) => deadline !== 0n && deadline <= end);
      if (armed.length === 0) break;
      const due = armed.reduce((first, one) => one < first ? one : first);
      const index = deadlines.indexOf(due);
      moveTo(due);
      deadlines[index] = 0n;
      this.call((device) => device.timer!(index, due));
      assert.notEqual(deadlines[index], due, "the timer was armed for the time it fired at");
    }
    moveTo(end);
  }

  /** Loads other state, as an incoming migration does. */
  load(bytes: Uint8Array): void {
    this.bytes.set(bytes);
    this.#device = this.#create();
    this.#device.restored?.();
  }

  #create(): Device {
    const before = this.bytes.slice();
    const view = this.#layout.view(this.#buffer);
    const device = this.#type.create(view, this.context, this.#properties);
    assert.deepEqual(this.bytes, before, "create() changed the state");
    return device;
  }

  /** Saves into a new buffer, with interrupt lines and timer of a machine just made. */
  #reload(): void {
    const saved = this.bytes.slice();
    const levels = this.context.levels.map((level) => level ?? false);
    const deadlines = [...this.context.deadlines];
    const bases = [...this.context.bases];
    const seen = this.context.edges.length;
    this.context.levels.length = 0;
    this.context.deadlines.fill(0n);
    this.context.bases.length = 0;
    this.#buffer = new SharedArrayBuffer(saved.length);
    this.bytes.set(saved);
    this.#device = this.#create();
    this.#device.restored?.();
    assert.deepEqual(this.bytes, saved, "restored() changed state that the device itself saved");
    assert.deepEqual(
      levels.map((_, line) => this.context.levels[line] ?? false),
      levels,
      "restored() drove other interrupt levels",
    );
    assert.deepEqual(this.context.deadlines, deadlines, "restored() armed other deadlines");
    assert.deepEqual(
      bases.map((_, range) => this.context.bases[range]),
      bases,
      "restored() moved a range elsewhere",
    );
    this.context.edges.length = seen;
  }
}

/** Registers a device test that runs once in every {@linkcode RigMode}. */
export function deviceTest(
  name: string,
  type: DeviceType,
  run: (rig: Rig) => void,
  properties: Properties = {},
  content?: Uint8Array,
): void {
  for (const mode of ["kept", "shared", "saved"] as const) {
    Deno.test(`${name} (${mode})`, () => run(new Rig(type, mode, properties, content)));
  }
}
