/**
 * What a device is to the rest of the VMM: registers, saved state, interrupts and fds to keep,
 * declared in one place.
 *
 * A device's state lives in shared memory and every thread that may touch the device (each vCPU
 * thread, the main thread) builds its own {@linkcode Device} object over the same bytes. The bus
 * holds the device's lock around each call, so a device never sees two threads at once and needs no
 * locking of its own. Hence the one rule: nothing that matters may be kept in a JavaScript field;
 * it belongs into the state struct.
 *
 * @module
 */
import type { AttachedDisk } from "./block/disk.ts";
import type { IoUring } from "../ffi/io_uring.ts";
import type { IoVector } from "../ffi/iovec.ts";
import type { Fields, Struct, View } from "../ffi/struct.ts";
import type { NetPort } from "./net/port.ts";
import type { VsockPort } from "./virtio/vsock_port.ts";
import type { SavedLayout, Subsection } from "./saved_state.ts";
import type { VhostUserNeeds, VhostUserPort } from "./vhost_user/port.ts";

/** A range of port or memory addresses that a device claims. */
export interface AddressRange {
  readonly space: "pio" | "mmio";
  /** First address. */
  readonly base: number;
  /** Length in bytes. */
  readonly size: number;
  /** The name that `info mtree` prints. */
  readonly name: string;
}

/**
 * A range as a device type declares it. One without a base is the device's to place, as a PCI device's
 * base address registers do: it is nowhere until {@linkcode DeviceContext.moveRange} is called.
 */
export interface RangeDeclaration extends Omit<AddressRange, "base"> {
  readonly base?: number;
}

/** An interrupt, by whatever way it gets to the CPUs. */
export interface Interrupt {
  /** Drives it to a level; for the same level again, nothing happens. */
  set(level: boolean): void;
}

/** A timer of a device. */
export interface Timer {
  /** Arms it for an absolute CLOCK_MONOTONIC time in nanoseconds; 0n disarms it. */
  arm(deadlineNs: bigint): void;
}

/** Wakes the thread that works on a device's queues: it calls {@linkcode Device.rung}. */
export interface Doorbell {
  /** The eventfd that it is: KVM, or the thread that takes the driver's write, adds one to it. */
  readonly fd: number;
  /** Rings; however often before the thread comes, it is called once. */
  ring(): void;
}

/** A descriptor that is watched. */
export interface DescriptorWatch {
  /** Changes what it is watched for; 0 for nothing at all. */
  set(events: number): void;
}

/** Watches descriptors on the thread that works on queues, while that runs. */
export interface DescriptorWatcher {
  /**
   * Watches a descriptor for as long as there is the device.
   *
   * @param fd stays open meanwhile
   * @param events `Epoll` bits; ERR and HUP are reported with them
   * @param ready called again and again while there are events: it does away with them, or with the watch
   */
  watch(fd: number, events: number, ready: (events: number) => void): DescriptorWatch;
  /** Leaves a descriptor that is watched, whoever it was that did so, to somebody else, or takes it again. */
  leave(fd: number, isLeft: boolean): void;
}

/** A lock that all threads share. Whoever holds one does nothing that waits for something else. */
export interface Lock {
  /** Takes it, waiting for it if need be. */
  lock(): void;
  /** Frees it. */
  unlock(): void;
}

/** Why a device asks for the machine to be stopped, QEMU's ShutdownCause. */
export type GuestRequest =
  | { kind: "reset"; reason: "guest-reset" }
  | { kind: "shutdown"; reason: "guest-shutdown" }
  | { kind: "suspend" }
  | { kind: "debug-exit"; status: number }
  /** The host could not do a request; the disk's statistics say what is to be done about it. */
  | { kind: "disk-error" }
  /** Somebody in the guest has opened or closed a serial port; the ports' states say which. */
  | { kind: "port-change" }
  /** The guest has given memory back, or taken some; the balloon's state says how much. */
  | { kind: "balloon-change" }
  /** The guest has given up what was in a slot; the slots say which. */
  | { kind: "slot-change" };

/** The outside of a character device: bytes towards the host. All calls are synchronous. */
export interface CharacterSink {
  /**
   * Writes what the host takes without blocking and returns how many bytes that was.
   * Zero means: the host is not taking bytes now; the frontend is told by `writable()`.
   */
  write(data: Uint8Array): number;
  /** Says that the frontend can take `n` more input bytes than it could, so reading may resume. */
  acceptInput(): void;
  /** Sends a break condition to the host, if it knows one. */
  sendBreak(): void;
}

/** Where RAM that devices may write is. */
export interface MemoryRange {
  /** First guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** Address of the first byte in this process. */
  readonly address: number;
  /** The file that is mapped there, if others can map it too: its descriptor, and where in it. */
  readonly file?: { readonly fd: number; readonly offset: number };
}

/** Guest RAM, for devices that read and write it themselves. Addresses may be anything. */
export interface DeviceMemory {
  /** Where all of it is, for whoever reads and writes it for a device, such as the kernel. */
  readonly ranges: readonly MemoryRange[];
  /** Copies RAM out; undefined if it is not RAM throughout. */
  read(gpa: number, length: number): Uint8Array<ArrayBuffer> | undefined;
  /** Copies bytes into RAM; false, and nothing is written, if it is not RAM throughout. */
  write(gpa: number, data: Uint8Array<ArrayBuffer>): boolean;
  /** Fills RAM with zeros; false, and nothing is written, if it is not RAM throughout. */
  zero(gpa: number, length: number): boolean;
  /**
   * Adds a range of RAM to a vector, for system calls that read or write it in place.
   *
   * @returns "outside" if it is not RAM throughout, "full" if the vector has no room; nothing is added
   */
  collect(vector: IoVector, gpa: number, length: number): "added" | "outside" | "full";
  /**
   * RAM as a buffer that aliases it, for what driver and device share; its pages are made to be there.
   *
   * @returns undefined if it is not RAM throughout, or the host has no memory for it
   */
  view(gpa: number, length: number): ArrayBuffer | undefined;
  /**
   * Gives the host the memory of RAM back that the guest says it does not need: whole pages of it are
   * zeros from then on. Others keep what they hold, as does memory that cannot be given back.
   *
   * @param vector what `collect` has added
   * @throws {OsError} if the host refuses
   */
  giveBack(vector: IoVector): void;
  /**
   * To be called after RAM was written by way of `collect` or `view`, unless it was a ring, and before
   * the guest is told: it may be code. `write` and `zero` do so themselves.
   */
  changed(): void;
}

/** What a device may do to its surroundings; the same on every thread. */
export interface DeviceContext {
  /** The device whose bus it is on, where that is a device. */
  readonly parent?: Device;
  /** The device's interrupts, in the order of {@linkcode DeviceType.irqs}. */
  readonly interrupts: readonly Interrupt[];
  /** As many as {@linkcode DeviceType.timers} says. */
  readonly timers: readonly Timer[];
  /** Those that {@linkcode DeviceType.doorbells} declares. */
  readonly doorbells: readonly Doorbell[];
  /** On the thread that works on queues, what watches descriptors for the device. */
  readonly watcher?: DescriptorWatcher;
  /** The ring of the thread that works on queues, if its disks make requests at once. */
  readonly uring?: IoUring;
  /** As many as {@linkcode DeviceType.locks} says. */
  readonly locks: readonly Lock[];
  /** The character backend bound to the device's `chardev` property, if one is. */
  readonly chardev?: CharacterSink;
  /** The network backend bound to the device's `netdev` property, if one is. */
  readonly netdev?: NetPort;
  /** The kernel's half of a socket device. */
  readonly vsock?: VsockPort;
  /** The disk bound to the device's `drive` property, if one is. */
  readonly disk?: AttachedDisk;
  /** The back-end behind the device's `chardev`, if that works on its queues. */
  readonly vhostUser?: VhostUserPort;
  readonly memory: DeviceMemory;
  /**
   * Sends an interrupt message to the local APICs (Intel SDM volume 3, 12.11).
   *
   * @param address the address that is written, below 4 GiB
   * @param data the word that is written
   */
  sendMsi(address: number, data: number): void;
  /** What the machine gave the device when it made it, which never changes; empty for most. */
  readonly content: Uint8Array;
  /** Nanoseconds of CLOCK_REALTIME. */
  realtimeNs(): bigint;
  /** Nanoseconds of CLOCK_MONOTONIC: the virtual clock of timers. */
  monotonicNs(): bigint;
  /**
   * Moves a range that was declared without a base; all threads decode the new address from their next
   * access on. Where ranges overlap, those with a base come first and then the devices in their order:
   * a later one is off, all of it, until it is clear of the others.
   *
   * @param range its number among the device's ranges
   * @param base its first address; undefined, or one at which it does not fit, turns it off
   */
  moveRange(range: number, base: number | undefined): void;
  /** Asks the main thread for a reset, a shutdown or an exit; returns at once. */
  request(request: GuestRequest): void;
  /** Whether this thread is asked to stand still, so that no more work shall be begun on it. */
  isParking(): boolean;
  /** Tells the user something about the device. */
  warn(text: string): void;
}

/** What a guest tells of its memory: values by QEMU's names. */
export interface GuestStatistics {
  /** Undefined where the guest has not told of it. */
  readonly stats: readonly (readonly [name: string, value: bigint | undefined])[];
  /** When it last did, seconds of CLOCK_REALTIME; 0 if never. */
  readonly lastUpdate: number;
}

/** Memory that a guest can be asked to give back. */
export interface Balloon {
  /** How much it has given back, bytes. */
  readonly actual: number;
  /** Asks it to have given so much back, bytes. */
  setTarget(bytes: number): void;
  /** How often it is asked for its statistics, seconds; 0 for never. */
  pollInterval: number;
  /** What it last told. */
  readonly statistics: GuestStatistics;
}

/** A slot whose device comes and goes while the guest runs. */
export interface Slot {
  /** Whether there is a device in it that the guest has not given up. */
  readonly isOccupied: boolean;
  /** Whether the guest is about to switch it on or off. */
  readonly isBusy: boolean;
  /** Whether the guest has switched it off, so that a device can be taken out without asking. */
  readonly isOff: boolean;
  /** A device was put into it: tells the guest. */
  fill(): void;
  /** Asks the guest to give its device up. */
  pressButton(): void;
  /** Its device was taken out. */
  empty(): void;
}

/** A device at work on one thread. Calls come with the device's lock held. */
export interface Device {
  /** What the devices on its bus work with, if it has one. */
  readonly provides?: object;
  /** Present in a port with a slot. */
  readonly slot?: Slot;
  /** Present in a memory balloon. */
  readonly balloon?: Balloon;
  /** Reads `size` (1, 2, 4 or 8) bytes at `offset` in range number `range`; little-endian. */
  read(range: number, offset: number, size: number): number;
  /** Writes `size` bytes; values of 8 bytes arrive as two writes of 4. */
  write(range: number, offset: number, size: number, value: number): void;
  /** Puts the registers into their power-on state. */
  reset(): void;
  /** Timer number `index` has fallen due. Another thread may have armed it again since. */
  timer?(index: number, nowNs: bigint): void;
  /**
   * A doorbell was rung, or the thread that works on queues begins or goes on: there may be work. Called
   * without the device's lock, on no other thread than that one.
   */
  rung?(doorbell: number): void;
  /**
   * The thread that works on queues stands still from now on: nobody else must work on them either. Called
   * on that thread, without the device's lock; afterwards all doorbells ring, here or in a successor.
   */
  rest?(): void;
  /** How many input bytes the device takes now (character frontends). */
  inputRoom?(): number;
  /** Input from the character backend, at most `inputRoom()` bytes. */
  input?(data: Uint8Array): void;
  /** A break condition arrived from the character backend. */
  inputBreak?(): void;
  /** The character backend takes bytes again. */
  writable?(): void;
  /** Somebody is there behind the character backend now, or nobody any more. */
  peerChanged?(isThere: boolean): void;
  /**
   * A user presses keys together (QEMU's QKeyCode) and releases them after `holdMs`.
   *
   * @returns false if the keyboard has no room for them
   */
  press?(keys: readonly string[], holdMs: number): boolean;
  /** Another device drives an interrupt input of this one, which is an interrupt controller. */
  setInput?(pin: number, level: boolean): void;
  /** The device's disk has another size. */
  resized?(): void;
  /**
   * The guest starts from a copy of its state: the device takes the generation that this VMM has for it.
   *
   * @returns whether that is another one
   */
  startGeneration?(): boolean;
  /** The guest is to hear that it is of another generation. */
  tellGeneration?(): void;
  /** A user presses the power button. */
  pressPowerButton?(): void;
  /** Whether the guest has put the machine to sleep. */
  isAsleep?(): boolean;
  /** Wakes the machine up. */
  wake?(): void;
  /** Its disk may do more in a second, or less, than so far. */
  limitsChanged?(): void;
  /** The backend has a connection that it had not, or a socket device its number. */
  connected?(): void;
  /** Plugs the network's cable in, or pulls it out. */
  setLink?(isUp: boolean): void;
  /**
   * The guest is stopped, and may go on from a copy of its memory: who works on the device's queues
   * beside this VMM finishes what it is at, and does no more before the device's thread runs again.
   *
   * @throws {Error} if that cannot be had
   */
  quiesce?(): void;
  /** The device is taken out of the machine: nothing that others have of it may stay. */
  unplugged?(): void;
  /** After saved state was loaded: sets interrupts, timers and places of ranges from the state. */
  restored?(): void;
}

/** A device property's value after the command line was checked against its declaration. */
export type PropertyValue = string | number | boolean;

/** Declares one `-device` property. */
export interface PropertyDeclaration {
  readonly type:
    | "uint8"
    | "uint16"
    | "uint32"
    | "uint64"
    | "bool"
    | "string"
    | "chardev"
    | "drive"
    | "netdev"
    | "link";
  /** Of a `link`, what the object that it names is, in QEMU's words. */
  readonly to?: "iothread" | "rng-backend";
  readonly default?: PropertyValue;
  /** One line for `-device NAME,help`. */
  readonly help: string;
  /** Whether the machine sets it: users neither set nor see it. */
  readonly internal?: true;
  /** Whether the guest does not see it, so that a successor may have another. Not for names of backends. */
  readonly unseen?: true;
}

/** A write of the driver's, of 4 bytes, that rings a doorbell. */
export interface DoorbellDeclaration {
  /**
   * Number of the device's range. If it does not move, the accelerator may ring without the vCPU's thread;
   * if it does, the device rings.
   */
  readonly range: number;
  readonly offset: number;
  /** The value that rings. */
  readonly value: number;
}

/** A device's properties by name. */
export type Properties = Readonly<Record<string, PropertyValue>>;

/** How a device's state is laid out. */
export interface DeviceLayout<F extends Fields = Fields> extends SavedLayout<F> {
  /** The saved state: also the device's only memory. */
  readonly state: Struct<F>;
  /** Parts of the state that are written only when they are needed. */
  readonly subsections?: readonly Subsection[];
}

/** Everything about one kind of device, declared in the device's own file. */
export interface DeviceType<F extends Fields = Fields> extends DeviceLayout<F> {
  /** QEMU's name for it, as `-device` and `info qtree` say it. */
  readonly name: string;
  /** One line for `-device help`. */
  readonly help: string;
  /** Whether a user may create it by `-device`; the machine creates the others. */
  readonly user: boolean;
  readonly properties: Readonly<Record<string, PropertyDeclaration>>;
  /**
   * The layout for a device's properties, where it depends on them (how many queues there are). The
   * type's own is then that of the defaults. What does not depend on properties is the same in all:
   * names of fields and subsections, and versions.
   */
  layout?(properties: Properties): DeviceLayout<F>;
  /**
   * Whether the state has to be written at all, for a device that older versions do not know; unless
   * given it always is. Without it in the stream the device is as at power-on, its state all zeros.
   */
  needed?(state: View<F>): boolean;
  /**
   * Checks the values that a user may have given.
   *
   * @throws {Error} in QEMU's words
   */
  check?(properties: Properties): void;
  /** The addresses it claims, from its properties. */
  ranges(properties: Properties): RangeDeclaration[];
  /** The global interrupt (GSI) of each line, from its properties. */
  irqs(properties: Properties): number[];
  /** The kind of bus that it sits on; the ISA bus unless given. */
  readonly bus?: "virtio-bus" | "virtio-serial-bus" | "main-system-bus" | "PCI";
  /** How many timers it has; none unless given. */
  readonly timers?: number;
  /** How many locks beside the one that is held around calls; none unless given. */
  readonly locks?: number;
  /** What it asks of a back-end behind its `chardev`, if one works on its queues. */
  vhostUser?(properties: Properties): VhostUserNeeds;
  /** Its doorbells, from its properties; none unless given. */
  doorbells?(properties: Properties): DoorbellDeclaration[];
  /** Builds the device on this thread over shared `state`. Must not change `state`. */
  create(state: View<F>, context: DeviceContext, properties: Properties): Device;
}

/** A type's layout for a device with these properties. */
export function layoutFor(type: DeviceType, properties: Properties): DeviceLayout {
  return type.layout?.(properties) ?? type;
}

/** All properties of a device of a type: what is given, and defaults for the rest. */
export function withDefaults(type: Pick<DeviceType, "properties">, given: Properties): Properties {
  const all: Record<string, PropertyValue> = {};
  for (const [name, declaration] of Object.entries(type.properties)) {
    const value = given[name] ?? declaration.default;
    if (value !== undefined) all[name] = value;
  }
  return all;
}

/** Identity function that gives a device declaration its types. */
export function defineDevice<F extends Fields>(type: DeviceType<F>): DeviceType<F> {
  return type;
}
