/**
 * The keyboard behind the i8042: its commands (IBM's PS/2 Hardware Interface Technical Reference,
 * "Keyboards"), and the keys that a user has pressed by a monitor.
 *
 * Nobody sits in front of it: keys are pressed together, held for a while and released. While some
 * are held, others wait; so what is typed quickly comes out in order, as far as the guest reads it.
 *
 * @module
 */
import {
  bytes,
  i64,
  packed,
  type Struct,
  struct,
  u16,
  u32,
  u8,
  type View,
} from "../../ffi/struct.ts";
import type { DeviceContext, Timer } from "../device.ts";
import { ByteFifo, type ByteFifoFields } from "./byte_fifo.ts";
import { keyBytes, keyNames } from "./ps2_keys.ts";

/** Keyboard commands (port 0x60) and answers. */
const KEYBOARD = {
  SET_LEDS: 0xed,
  ECHO: 0xee,
  SCANCODE_SET: 0xf0,
  IDENTIFY: 0xf2,
  TYPEMATIC: 0xf3,
  ENABLE: 0xf4,
  DISABLE: 0xf5,
  DEFAULTS: 0xf6,
  RESEND: 0xfe,
  RESET: 0xff,
} as const;
const ACK = 0xfa;
const RESEND = 0xfe;
const SELF_TEST_DONE = 0xaa;
const IDENTITY = [0xab, 0x83];
const DEFAULT_SCANCODE_SET = 2;

/** Keys that can be pressed together. */
export const MAX_KEYS = 16;
/** Before the keys of an entry that waits: how many there are, and how long they are held. */
const ENTRY_HEAD = 5;
const NS_PER_MS = 1_000_000n;

/**
 * The keys, as part of the controller's saved state. Keys are numbers from 1, by their names. Packed,
 * because they lie behind a state of 34 bytes, which had no padding before there were keys.
 */
export const keysState: Struct<KeysFields> = struct("keys", {
  scanningOff: u8,
  heldCount: u8,
  waitingLength: u16,
  /** How long the held keys are held, in ms. */
  holdMs: packed(u32),
  /** When they are released, CLOCK_MONOTONIC in ns. */
  deadline: packed(i64),
  held: bytes(MAX_KEYS),
  /** Entries: a count, milliseconds (32 bits), and so many keys. */
  waiting: bytes(240),
});

type KeysFields = {
  scanningOff: typeof u8;
  heldCount: typeof u8;
  waitingLength: typeof u16;
  holdMs: typeof u32;
  deadline: typeof i64;
  held: ReturnType<typeof bytes>;
  waiting: ReturnType<typeof bytes>;
};

/** Whether the keys' state is other than at power-on. */
export function keysAreUsed({ scanningOff, heldCount, waitingLength }: View<KeysFields>): boolean {
  return scanningOff !== 0 || heldCount !== 0 || waitingLength !== 0;
}

/** The keyboard's part of the controller's state. */
export interface KeyboardState {
  /** Command whose argument is awaited, 0 for none. */
  keyboardCommand: number;
  scancodeSet: number;
  lastSent: number;
  /** What the keyboard has to say. */
  readonly keyboard: View<ByteFifoFields>;
  readonly keys: View<KeysFields>;
}

/** The keyboard at work over its part of the state. */
export class Ps2Keyboard {
  readonly #state: KeyboardState;
  readonly #keys: View<KeysFields>;
  readonly #output: ByteFifo;
  readonly #clock: Pick<DeviceContext, "monotonicNs">;
  readonly #timer: Timer;

  /**
   * Works in place.
   *
   * @param state the keyboard's part of the device's state
   * @param clock the time
   * @param timer used by the keyboard alone
   */
  constructor(state: KeyboardState, clock: Pick<DeviceContext, "monotonicNs">, timer: Timer) {
    this.#state = state;
    this.#keys = state.keys;
    this.#output = new ByteFifo(state.keyboard);
    this.#clock = clock;
    this.#timer = timer;
  }

  /** Whether it has something to say. */
  get speaks(): boolean {
    return this.#output.length > 0;
  }

  /** Its next byte. */
  next(): number {
    return this.#state.lastSent = this.#output.shift();
  }

  /** Power-on. */
  reset(): void {
    this.#restart();
    this.#state.lastSent = 0;
    this.#forgetKeys();
  }

  /** After saved state was loaded: brings it into its bounds, and arms the timer. */
  restored(): void {
    this.#output.normalise();
    const keys = this.#keys;
    keys.scanningOff &= 1;
    keys.heldCount = Math.min(keys.heldCount, MAX_KEYS);
    keys.waitingLength = Math.min(keys.waitingLength, keys.waiting.length);
    if (keys.heldCount === 0) {
      // A timer that was set for others finds nothing to release.
      keys.waitingLength = 0;
      keys.deadline = 0n;
      return;
    }
    // Another host's clock, or the same one's after it was booted, may be far behind.
    const latest = this.#clock.monotonicNs() + BigInt(keys.holdMs) * NS_PER_MS;
    if (keys.deadline > latest) keys.deadline = latest;
    if (keys.deadline < 1n) keys.deadline = 1n;
    this.#timer.arm(keys.deadline);
  }

  /**
   * Presses keys together, and releases them after some time.
   *
   * @returns false if too many are waiting already
   */
  press(names: readonly string[], holdMs: number): boolean {
    const keys = this.#keys;
    if (keys.scanningOff) return true;
    const pressed = names.map((name) => keyNames.indexOf(name) + 1);
    if (keys.heldCount === 0) {
      this.#hold(pressed, holdMs);
      return true;
    }
    const end = keys.waitingLength + ENTRY_HEAD + pressed.length;
    if (end > keys.waiting.length) return false;
    const ms = Array.from({ length: 4 }, (_, i) => (holdMs >>> (8 * i)) & 0xff);
    keys.waiting.set([pressed.length, ...ms, ...pressed], keys.waitingLength);
    keys.waitingLength = end;
    return true;
  }

  /** The timer has fallen due: releases what is held, and presses what waits. */
  timer(nowNs: bigint): void {
    const keys = this.#keys;
    if (keys.heldCount === 0) return;
    if (nowNs < keys.deadline) return this.#timer.arm(keys.deadline);
    const held = [...keys.held.subarray(0, Math.min(keys.heldCount, MAX_KEYS))];
    keys.heldCount = 0;
    keys.deadline = 0n;
    for (const key of held.reverse()) this.#send(key, false);
    this.#takeWaiting();
  }

  /** A byte for the keyboard. */
  write(byte: number): void {
    const s = this.#state;
    const command = s.keyboardCommand;
    s.keyboardCommand = 0;
    // A byte from 0x80 up is never an argument: it starts a new command.
    if (command && byte < 0x80) return this.#finishCommand(command, byte);
    switch (byte) {
      case KEYBOARD.SET_LEDS:
      case KEYBOARD.SCANCODE_SET:
      case KEYBOARD.TYPEMATIC:
        s.keyboardCommand = byte;
        return this.#say(ACK);
      case KEYBOARD.ECHO:
        return this.#say(KEYBOARD.ECHO);
      case KEYBOARD.IDENTIFY:
        return this.#say(ACK, ...IDENTITY);
      case KEYBOARD.ENABLE:
        this.#keys.scanningOff = 0;
        return this.#say(ACK);
      case KEYBOARD.DISABLE:
      case KEYBOARD.DEFAULTS:
        s.scancodeSet = DEFAULT_SCANCODE_SET;
        this.#forgetKeys();
        if (byte === KEYBOARD.DISABLE) this.#keys.scanningOff = 1;
        return this.#say(ACK);
      case KEYBOARD.RESEND:
        return this.#say(s.lastSent);
      case KEYBOARD.RESET:
        this.#restart();
        this.#forgetKeys();
        return this.#say(ACK, SELF_TEST_DONE);
      default:
        return this.#say(RESEND);
    }
  }

  #finishCommand(command: number, argument: number): void {
    const s = this.#state;
    if (command !== KEYBOARD.SCANCODE_SET) return this.#say(ACK);
    if (argument === 0) return this.#say(ACK, s.scancodeSet);
    if (argument > 3) return this.#say(RESEND);
    s.scancodeSet = argument;
    this.#say(ACK);
  }

  #restart(): void {
    this.#output.clear();
    this.#state.keyboardCommand = 0;
    this.#state.scancodeSet = DEFAULT_SCANCODE_SET;
  }

  #say(...answer: number[]): void {
    for (const byte of answer) this.#output.push(byte);
  }

  #forgetKeys(): void {
    const keys = this.#keys;
    if (keysAreUsed(keys)) this.#timer.arm(0n);
    keys.scanningOff =
      keys.heldCount =
      keys.waitingLength =
      keys.holdMs =
        0;
    keys.deadline = 0n;
    keys.held.fill(0);
    keys.waiting.fill(0);
  }

  #hold(pressed: readonly number[], holdMs: number): void {
    const keys = this.#keys;
    const held = pressed.slice(0, MAX_KEYS);
    for (const key of held) this.#send(key, true);
    keys.held.set(held);
    keys.heldCount = held.length;
    keys.holdMs = holdMs;
    keys.deadline = held.length === 0 ? 0n : this.#clock.monotonicNs() + BigInt(holdMs) * NS_PER_MS;
    this.#timer.arm(keys.deadline);
  }

  /** Presses the keys that have waited longest. */
  #takeWaiting(): void {
    const keys = this.#keys;
    const length = Math.min(keys.waitingLength, keys.waiting.length);
    if (length === 0) return;
    const [count, ...rest] = keys.waiting.subarray(0, length);
    const end = ENTRY_HEAD + count;
    const ms = rest.slice(0, 4).reduce((sum, byte, i) => sum + byte * 2 ** (8 * i), 0);
    const pressed = rest.slice(4, end - 1);
    keys.waiting.copyWithin(0, end);
    keys.waitingLength = Math.max(0, length - end);
    if (pressed.length > 0) this.#hold(pressed, ms);
    else keys.waitingLength = 0;
  }

  /** All bytes of a key, or none if there is no room for them. */
  #send(key: number, down: boolean): void {
    const name = keyNames[key - 1];
    if (name === undefined || this.#keys.scanningOff) return;
    const sequence = keyBytes(name, down, this.#state.scancodeSet);
    if (sequence.length <= this.#output.room) this.#say(...sequence);
  }
}
