/**
 * A vCPU's local APIC as its own thread uses it: registers in xAPIC and x2APIC mode, priorities, and
 * the base address MSR (Intel SDM volume 3, chapter 12). It behaves as KVM's: version 0x14 with six
 * entries in the local vector table, no suppression of EOI broadcasts.
 *
 * The main thread may use it while the vCPU is parked.
 *
 * @module
 */
import type { ApicBus } from "./apic_bus.ts";
import {
  ApicBase,
  Command,
  Delivery,
  highestVector,
  LapicError,
  lapicWords,
  Register,
  Svr,
  vectorWord,
  Word,
} from "./lapic_registers.ts";
import { LOCAL_APIC } from "../../../machine/microvm.ts";
import { isReadable, isReserved, isWritable } from "./lapic_access.ts";
import { LapicTimer, TimerMode } from "./lapic_timer.ts";
import { chipsetState, lapicOffset, lapicState } from "./state.ts";
import type { GuestTsc, HostClock } from "./time.ts";
import { lapicRegisters } from "../../../../ffi/kvm/structs.ts";

const VERSION = 0x5_0014;
/** What is writable in LVT entries: vector, delivery status and mask, as in KVM; and more. */
const LVT = Command.VECTOR | Command.BUSY | Command.MASK;
const LVT_WITH_MODE = LVT | Command.MODE;
/** Polarity (bit 13), remote IRR (14) and trigger mode (15) too. */
const LVT_PIN = LVT_WITH_MODE | 0xe000;
const LVT_WRITABLE: Readonly<Record<number, number>> = {
  [Register.LVT_THERMAL]: LVT_WITH_MODE,
  [Register.LVT_PERFORMANCE]: LVT_WITH_MODE,
  [Register.LVT_LINT0]: LVT_PIN,
  [Register.LVT_LINT1]: LVT_PIN,
  [Register.LVT_ERROR]: LVT,
};
const LVT_ENTRIES = [Register.LVT_TIMER, ...Object.keys(LVT_WRITABLE).map(Number)];
/** LINT0 of the bootstrap processor after reset, as in KVM: the 8259A reaches it. */
const LINT0_EXTINT = 0x700;
/** The first vector that can be sent (12.5.2). */
const FIRST_VECTOR = 16;
/** Bits of IA32_APIC_BASE that must be zero, below the address. */
const BASE_RESERVED = 0x2ff;
/** The page as KVM_GET_LAPIC and KVM_SET_LAPIC pass it. */
const PAGE = lapicRegisters.size;

/** What a LAPIC is connected to. */
export interface LapicOptions {
  /** The chips' state. */
  readonly buffer: ArrayBufferLike;
  /** The vCPU. */
  readonly index: number;
  readonly bus: ApicBus;
  readonly clock: HostClock;
  readonly tsc: GuestTsc;
  /** What the vCPU's CPUID offers. */
  readonly features: {
    readonly x2apic: boolean;
    readonly tscDeadline: boolean;
    /** MAXPHYADDR. */
    readonly physicalBits: number;
  };
  /** An interrupt that concerns the IOAPIC has ended; `level` is its TMR bit. */
  endOfInterrupt(vector: number, level: boolean): void;
}

/** A local APIC over shared state. */
export class Lapic {
  /** Its timer. */
  readonly timer: LapicTimer;
  readonly #index: number;
  readonly #words: Int32Array;
  readonly #page: Uint8Array;
  readonly #eoiVectors: Int32Array;
  readonly #bus: ApicBus;
  readonly #clock: HostClock;
  readonly #options: LapicOptions;

  /** Builds it over state that has been reset or will be. */
  constructor(options: LapicOptions) {
    const { buffer, index, bus, clock, tsc } = options;
    this.#options = options;
    this.#index = index;
    this.#bus = bus;
    this.#clock = clock;
    this.#words = lapicWords(buffer, index);
    this.#page = new Uint8Array(buffer, lapicOffset(index), PAGE);
    this.#eoiVectors = new Int32Array(buffer, chipsetState.offsets.eoi_vectors, 8);
    this.timer = new LapicTimer(buffer, index, clock, tsc);
  }

  /**
   * Power-on.
   *
   * @param id the initial id
   * @param isBsp whether this is the bootstrap processor
   */
  reset(id: number, isBsp: boolean): void {
    new Uint8Array(this.#words.buffer, this.#words.byteOffset, lapicState.size).fill(0);
    this.#words[Word.INITIAL_ID] = id;
    this.#words[Word.BASE_LOW] = LOCAL_APIC.base | ApicBase.ENABLE | (isBsp ? ApicBase.BSP : 0);
    this.#setXapicId();
    this.init();
  }

  /** The INIT signal (12.4.7.3): all but id, mode and, in x2APIC mode, the logical id. */
  init(): void {
    const words = this.#words;
    const id = words[Register.ID >> 2];
    const logical = words[Register.LDR >> 2];
    this.#page.fill(0);
    this.timer.stop();
    words[Register.ID >> 2] = id;
    words[Register.VERSION >> 2] = VERSION;
    if (this.isX2apic) words[Register.LDR >> 2] = logical;
    words[Register.DFR >> 2] = -1;
    words[Register.SVR >> 2] = Svr.VECTOR;
    for (const entry of LVT_ENTRIES) words[entry >> 2] = Command.MASK;
    if (words[Word.BASE_LOW] & ApicBase.BSP) words[Register.LVT_LINT0 >> 2] = LINT0_EXTINT;
    words[Word.ERRORS] = 0;
  }

  /** Whether the LAPIC is in x2APIC mode. */
  get isX2apic(): boolean {
    return (this.#words[Word.BASE_LOW] & ApicBase.X2APIC) !== 0;
  }

  /** Whether its registers are memory. */
  get isXapic(): boolean {
    return (this.#words[Word.BASE_LOW] & (ApicBase.ENABLE | ApicBase.X2APIC)) === ApicBase.ENABLE;
  }

  /** Whether IA32_APIC_BASE switches it on. */
  get isPresent(): boolean {
    return (this.#words[Word.BASE_LOW] & ApicBase.ENABLE) !== 0;
  }

  /** Guest physical address of the registers. */
  get address(): number {
    return this.baseHigh * 0x1_0000_0000 + ((this.#words[Word.BASE_LOW] & ~0xfff) >>> 0);
  }

  /** IA32_APIC_BASE's low word. */
  get baseLow(): number {
    return this.#words[Word.BASE_LOW] >>> 0;
  }

  /** IA32_APIC_BASE's high word. */
  get baseHigh(): number {
    return this.#words[Word.BASE_HIGH] >>> 0;
  }

  /**
   * Writes IA32_APIC_BASE (12.4.4, 12.12.1, 12.12.5).
   *
   * @param byHost whether it is not the guest that writes: then any mode may follow on any other
   * @returns false if that is a general protection fault
   */
  setBase(low: number, high: number, byHost = false): boolean {
    const { physicalBits, x2apic } = this.#options.features;
    if (low & BASE_RESERVED || Math.floor(high / 2 ** (physicalBits - 32)) > 0) return false;
    const enable = (low & ApicBase.ENABLE) !== 0;
    const toX2apic = (low & ApicBase.X2APIC) !== 0;
    if (toX2apic && (!x2apic || !enable)) return false;
    const wasEnabled = this.isPresent;
    const wasX2apic = this.isX2apic;
    if (!byHost && wasX2apic && enable && !toX2apic) return false;
    if (!byHost && !wasEnabled && toX2apic) return false;
    this.#words[Word.BASE_HIGH] = high;
    Atomics.store(this.#words, Word.BASE_LOW, low | 0);
    if (enable && !wasEnabled) this.#setXapicId();
    if (toX2apic && !wasX2apic) this.#setX2apicId(this.#words[Word.INITIAL_ID]);
    else if (wasX2apic && enable && !toX2apic) this.#setXapicId();
    return true;
  }

  #setXapicId(): void {
    this.#words[Register.ID >> 2] = this.#words[Word.INITIAL_ID] << 24;
  }

  /** The logical id follows from the other one (12.12.10.2). */
  #setX2apicId(id: number): void {
    this.#words[Register.ID >> 2] = id << 24;
    this.#words[Register.LDR >> 2] = (id >>> 4) << 16 | 1 << (id & 0xf);
  }

  /** Reads 1, 2 or 4 bytes of the registers' memory, in xAPIC mode. */
  readMemory(offset: number, size: number): number {
    const register = offset & 0xff0;
    if (!isReadable(register, false) || (offset & 0xf) + size > 4) {
      this.#checkReserved(register);
      return 0;
    }
    const value = this.#read(register);
    if (size === 4) return value;
    return (value >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff);
  }

  /** Writes the registers' memory, in xAPIC mode; only aligned words are taken (12.4.1). */
  writeMemory(offset: number, size: number, value: number): void {
    if (size !== 4 || (offset & 0xf) !== 0) return;
    if (isWritable(offset, false)) this.#write(offset, value);
    else this.#checkReserved(offset);
  }

  #checkReserved(register: number): void {
    if (isReserved(register)) this.#bus.error(this.#index, LapicError.REGISTER);
  }

  /**
   * Reads a register's low word in x2APIC mode (12.12.1.2).
   *
   * @returns undefined if that is a general protection fault
   */
  readX2apic(register: number): number | undefined {
    if (!this.isX2apic || !isReadable(register, true)) return undefined;
    const value = this.#read(register);
    return register === Register.ID ? value >>> 24 : value;
  }

  /** The high word of the interrupt command register. */
  get icrHigh(): number {
    return this.#words[Register.ICR_HIGH >> 2] >>> 0;
  }

  /** Writes a register in x2APIC mode; false if that is a general protection fault. */
  writeX2apic(register: number, low: number, high: number): boolean {
    if (!this.isX2apic || !isWritable(register, true)) return false;
    if (register === Register.ICR_LOW) this.#words[Register.ICR_HIGH >> 2] = high;
    else if (high !== 0) return false;
    if (low !== 0 && (register === Register.EOI || register === Register.ESR)) return false;
    if (register === Register.SELF_IPI) {
      if (low > Command.VECTOR) return false;
      this.#send(Command.SELF | low, 0);
    } else this.#write(register, low);
    return true;
  }

  #read(register: number): number {
    switch (register) {
      case Register.TIMER_CURRENT:
        return this.timer.currentCount;
      case Register.APR:
        return 0;
    }
    return this.#words[register >> 2] >>> 0;
  }

  #write(register: number, value: number): void {
    const words = this.#words;
    switch (register) {
      case Register.TPR:
        return this.#setTpr(value & 0xff);
      case Register.EOI:
        return this.#endOfInterrupt();
      case Register.ICR_LOW:
        words[register >> 2] = value & ~Command.BUSY;
        return this.#send(
          value,
          this.isX2apic
            ? words[Register.ICR_HIGH >> 2] >>> 0
            : words[Register.ICR_HIGH >> 2] >>> 24,
        );
      case Register.ICR_HIGH:
      case Register.ID:
      case Register.LDR:
        words[register >> 2] = value & 0xff00_0000;
        return;
      case Register.DFR:
        words[register >> 2] = value | 0x0fff_ffff;
        return;
      case Register.SVR:
        return this.#setSvr(value & Svr.WRITABLE);
      case Register.ESR:
        words[register >> 2] = Atomics.exchange(words, Word.ERRORS, 0);
        return;
      case Register.LVT_TIMER:
      case Register.TIMER_INITIAL:
      case Register.TIMER_DIVIDE:
        return this.#writeTimer(register, value);
      default:
        words[register >> 2] = this.#maskIfDisabled(value) & LVT_WRITABLE[register];
    }
  }

  #writeTimer(register: number, value: number): void {
    // An interrupt that is due came before whatever is written.
    this.advance(this.#clock.monotonicNs());
    if (register === Register.TIMER_INITIAL) this.timer.setInitialCount(value);
    else if (register === Register.TIMER_DIVIDE) this.timer.setDivide(value);
    else {
      const { tscDeadline } = this.#options.features;
      const modes = tscDeadline ? TimerMode.ALL : TimerMode.PERIODIC;
      this.timer.setEntry(this.#maskIfDisabled(value) & (LVT | modes));
    }
  }

  /** Entries of the local vector table stay masked while software has the LAPIC off (12.4.7.2). */
  #maskIfDisabled(value: number): number {
    return this.#words[Register.SVR >> 2] & Svr.ENABLE ? value : value | Command.MASK;
  }

  #setSvr(value: number): void {
    this.#words[Register.SVR >> 2] = value;
    if (value & Svr.ENABLE) return;
    for (const entry of LVT_ENTRIES) this.#words[entry >> 2] |= Command.MASK;
  }

  #send(command: number, destination: number): void {
    const mode = (command & Command.MODE) >> Command.MODE_SHIFT;
    if (mode <= Delivery.LOWEST_PRIORITY && (command & Command.VECTOR) < FIRST_VECTOR) {
      this.#bus.error(this.#index, LapicError.SEND_VECTOR);
      return;
    }
    this.#bus.send(command, destination, this.#index);
  }

  /** CR8: the high half of the task priority. */
  get cr8(): number {
    return (this.#words[Register.TPR >> 2] >> 4) & 0xf;
  }

  set cr8(value: number) {
    this.#setTpr((value & 0xf) << 4);
  }

  #setTpr(value: number): void {
    this.#words[Register.TPR >> 2] = value;
    this.#updatePpr();
    this.#kickIfPending();
  }

  /** 12.8.3.1: the higher of the task's priority and that of the interrupt in service. */
  #updatePpr(): void {
    const tpr = this.#words[Register.TPR >> 2] & 0xff;
    const inService = highestVector(this.#words, Register.ISR);
    const isr = inService < 0 ? 0 : inService & 0xf0;
    this.#words[Register.PPR >> 2] = (tpr & 0xf0) >= isr ? tpr : isr;
  }

  /** The vector that the processor would take now, if its interrupts were enabled; or -1. */
  get pending(): number {
    if (!this.isPresent) return -1;
    const vector = highestVector(this.#words, Register.IRR);
    return vector >= 0 && (vector & 0xf0) > this.#words[Register.PPR >> 2] ? vector : -1;
  }

  /** The processor takes {@linkcode pending} (12.8.4): returns it and puts it in service, or -1. */
  acknowledge(): number {
    const vector = this.pending;
    if (vector < 0) return -1;
    const bit = 1 << (vector & 31);
    Atomics.and(this.#words, vectorWord(Register.IRR, vector), ~bit);
    this.#words[vectorWord(Register.ISR, vector)] |= bit;
    this.#updatePpr();
    return vector;
  }

  #endOfInterrupt(): void {
    const vector = highestVector(this.#words, Register.ISR);
    if (vector < 0) return;
    const bit = 1 << (vector & 31);
    this.#words[vectorWord(Register.ISR, vector)] &= ~bit;
    this.#updatePpr();
    const level = (this.#words[vectorWord(Register.TMR, vector)] & bit) !== 0;
    if (level || Atomics.load(this.#eoiVectors, vector >> 5) & bit) {
      this.#options.endOfInterrupt(vector, level);
    }
    this.#kickIfPending();
  }

  #kickIfPending(): void {
    if (this.pending >= 0) this.#bus.kick(this.#index);
  }

  /** Interrupts if the timer has expired by `now`, nanoseconds of CLOCK_MONOTONIC. */
  advance(now: number): void {
    if (this.timer.advance(now)) this.#bus.local(this.#index, Register.LVT_TIMER);
  }

  /** What waits besides interrupts: bits of `LapicEvent`. */
  get events(): number {
    return Atomics.load(this.#words, Word.EVENTS);
  }

  /** Takes a `LapicEvent` out; whether it was there. */
  take(event: number): boolean {
    return (Atomics.and(this.#words, Word.EVENTS, ~event) & event) !== 0;
  }

  /** Vector of the last startup IPI: the vCPU starts at `vector << 12`. */
  get sipiVector(): number {
    return Atomics.load(this.#words, Word.SIPI_VECTOR);
  }

  /**
   * Copies the registers as KVM_GET_LAPIC does, after a timer by count that has expired has
   * interrupted. A TSC deadline interrupts when its MSR is read, before the LAPIC: one that runs out
   * between the two is in the MSR alone.
   */
  save(into: Uint8Array<ArrayBuffer>): void {
    if (!this.timer.hasTscMode) this.advance(this.#clock.monotonicNs());
    into.set(this.#page);
    lapicRegisters.view(into.buffer, into.byteOffset).timer_current = this.timer.currentCount;
  }

  /** Takes registers over as KVM_SET_LAPIC does; IA32_APIC_BASE has been set before. */
  load(from: Uint8Array): void {
    const words = this.#words;
    this.#page.set(from.subarray(0, PAGE));
    const count = words[Register.TIMER_CURRENT >> 2] >>> 0;
    words[Register.VERSION >> 2] = VERSION;
    words[Register.TIMER_CURRENT >> 2] = 0;
    if (this.isX2apic) this.#setX2apicId(words[Register.ID >> 2] >>> 24);
    this.#updatePpr();
    this.timer.restored(count);
    this.#kickIfPending();
  }
}
