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
import type { Fields, Struct, View } from "../ffi/struct.ts";
import type { SavedLayout, Subsection } from "./saved_state.ts";

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

/** Why a device asks for the machine to be stopped, QEMU's ShutdownCause. */
export type GuestRequest =
  | { kind: "reset"; reason: "guest-reset" }
  | { kind: "shutdown"; reason: "guest-shutdown" }
  | { kind: "debug-exit"; status: number };

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

/** Guest RAM, for devices that read and write it themselves. Addresses may be anything. */
export interface DeviceMemory {
  /** Copies RAM out; undefined if it is not RAM throughout. */
  read(gpa: number, length: number): Uint8Array<ArrayBuffer> | undefined;
  /** Copies bytes into RAM; false, and nothing is written, if it is not RAM throughout. */
  write(gpa: number, data: Uint8Array<ArrayBuffer>): boolean;
  /** Fills RAM with zeros; false, and nothing is written, if it is not RAM throughout. */
  zero(gpa: number, length: number): boolean;
}

/** What a device may do to its surroundings; the same on every thread. */
export interface DeviceContext {
  /** Drives the device's interrupt line `line` (0 unless it has several) to a level. */
  setIrq(level: boolean, line?: number): void;
  /** The character backend bound to the device's `chardev` property, or a sink that drops bytes. */
  readonly chardev: CharacterSink;
  readonly memory: DeviceMemory;
  /** What the machine gave the device when it made it, which never changes; empty for most. */
  readonly content: Uint8Array;
  /** Nanoseconds of CLOCK_REALTIME. */
  realtimeNs(): bigint;
  /** Nanoseconds of CLOCK_MONOTONIC: the virtual clock of timers. */
  monotonicNs(): bigint;
  /** Arms the device's one timer for an absolute CLOCK_MONOTONIC time; 0n disarms it. */
  armTimer(deadlineNs: bigint): void;
  /** Asks the main thread for a reset, a shutdown or an exit; returns at once. */
  request(request: GuestRequest): void;
}

/** A device at work on one thread. Calls come with the device's lock held. */
export interface Device {
  /** Reads `size` (1, 2, 4 or 8) bytes at `offset` in range number `range`; little-endian. */
  read(range: number, offset: number, size: number): number;
  /** Writes `size` bytes; values of 8 bytes arrive as two writes of 4. */
  write(range: number, offset: number, size: number, value: number): void;
  /** Puts the registers into their power-on state. */
  reset(): void;
  /** The timer that `armTimer` set has fallen due. */
  timer?(nowNs: bigint): void;
  /** How many input bytes the device takes now (character frontends). */
  inputRoom?(): number;
  /** Input from the character backend, at most `inputRoom()` bytes. */
  input?(data: Uint8Array): void;
  /** A break condition arrived from the character backend. */
  inputBreak?(): void;
  /** The character backend takes bytes again. */
  writable?(): void;
  /**
   * A user presses keys together (QEMU's QKeyCode) and releases them after `holdMs`.
   *
   * @returns false if the keyboard has no room for them
   */
  press?(keys: readonly string[], holdMs: number): boolean;
  /** After saved state was loaded: re-drive interrupt lines and timers from the state. */
  restored?(): void;
}

/** A device property's value after the command line was checked against its declaration. */
export type PropertyValue = string | number | boolean;

/** Declares one `-device` property. */
export interface PropertyDeclaration {
  readonly type: "uint8" | "uint16" | "uint32" | "bool" | "string" | "chardev";
  readonly default?: PropertyValue;
  /** One line for `-device NAME,help`. */
  readonly help: string;
}

/** Everything about one kind of device, declared in the device's own file. */
export interface DeviceType<F extends Fields = Fields> extends SavedLayout<F> {
  /** QEMU's name for it, as `-device` and `info qtree` say it. */
  readonly name: string;
  /** One line for `-device help`. */
  readonly help: string;
  /** Whether a user may create it by `-device`; the machine creates the others. */
  readonly user: boolean;
  readonly properties: Readonly<Record<string, PropertyDeclaration>>;
  /** The saved state: also the device's only memory. */
  readonly state: Struct<F>;
  /** Parts of the state that are written only when they are needed. */
  readonly subsections?: readonly Subsection[];
  /**
   * Whether the state has to be written at all, for a device that older versions do not know; unless
   * given it always is. Without it in the stream the device is as at power-on, its state all zeros.
   */
  needed?(state: View<F>): boolean;
  /** The addresses it claims, from its properties. */
  ranges(properties: Readonly<Record<string, PropertyValue>>): AddressRange[];
  /** The global interrupt (GSI) of each line, from its properties. */
  irqs(properties: Readonly<Record<string, PropertyValue>>): number[];
  /** Builds the device on this thread over shared `state`. Must not change `state`. */
  create(
    state: View<F>,
    context: DeviceContext,
    properties: Readonly<Record<string, PropertyValue>>,
  ): Device;
}

/** Identity function that gives a device declaration its types. */
export function defineDevice<F extends Fields>(type: DeviceType<F>): DeviceType<F> {
  return type;
}
