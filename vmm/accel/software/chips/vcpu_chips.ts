/**
 * The chips as one vCPU meets them: its local APIC, the interrupts and events that wait for it, its
 * clock, and the MSRs of both.
 *
 * They belong to the vCPU's thread; another may use them while the vCPU is parked.
 *
 * @module
 */
import { acceptsExtint } from "./apic_bus.ts";
import type { Chipset } from "./chipset.ts";
import { type ClockMemory, ClockMsr, VcpuClock } from "./kvmclock.ts";
import { Lapic, type LapicOptions } from "./lapic.ts";
import { LAPIC_SIZE, lapicWords, Register } from "./lapic_registers.ts";
import type { GuestTsc } from "./time.ts";

/** The MSRs of the local APIC (Intel SDM volume 4, table 2-2). */
const Msr = { APIC_BASE: 0x1b, TSC_DEADLINE: 0x6e0, X2APIC: 0x800, X2APIC_LAST: 0x8ff } as const;

/** What nobody has claimed: no value of a register is negative. */
export const UNCLAIMED = -1;

/** What a vCPU's chips need to know of it. */
export interface VcpuChipsOptions {
  /** The vCPU. */
  readonly index: number;
  readonly tsc: GuestTsc;
  readonly memory: ClockMemory;
  readonly features: LapicOptions["features"];
}

/** A vCPU's chips. */
export class VcpuChips {
  /** The local APIC. */
  readonly lapic: Lapic;
  /** The vCPU's view of kvmclock. */
  readonly clock: VcpuClock;
  /** The MSR that {@linkcode readMsr} has read: low word and high word. */
  msrLow = 0;
  msrHigh = 0;
  readonly #chipset: Chipset;
  readonly #words: Int32Array;
  readonly #index: number;
  readonly #hasTscDeadline: boolean;

  /** Builds them over memory that has been reset or will be. */
  constructor(chipset: Chipset, { index, tsc, memory, features }: VcpuChipsOptions) {
    const { buffer, bus } = chipset;
    this.#chipset = chipset;
    this.#words = lapicWords(buffer, index);
    this.#index = index;
    this.#hasTscDeadline = features.tscDeadline;
    this.clock = new VcpuClock(buffer, index, chipset.clock, tsc, memory);
    this.lapic = new Lapic({
      buffer,
      index,
      bus,
      clock: chipset.hostClock,
      tsc,
      features,
      endOfInterrupt: (vector, level) => chipset.endOfInterrupt(vector, level),
    });
  }

  /** Whether a vector waits that the processor would take if its interrupts were enabled. */
  get hasInterrupt(): boolean {
    return (this.#chipset.hasExtint && acceptsExtint(this.#words)) || this.lapic.pending >= 0;
  }

  /** The processor takes an interrupt: its vector, the 8259A's before the LAPIC's; -1 for none. */
  acknowledge(): number {
    if (this.#chipset.hasExtint && acceptsExtint(this.#words)) {
      const vector = this.#chipset.acknowledgeExtint();
      if (vector >= 0) return vector;
    }
    return this.lapic.acknowledge();
  }

  /** When its timers next want {@linkcode advance}, ns of CLOCK_MONOTONIC; the PIT is vCPU 0's. */
  get deadline(): number {
    const own = this.lapic.timer.deadline;
    return this.#index === 0 ? Math.min(own, this.#chipset.deadline) : own;
  }

  /** Lets timers that have run out by `now` interrupt. */
  advance(now: number): void {
    this.lapic.advance(now);
    if (this.#index === 0) this.#chipset.advance(now);
  }

  /** The vCPU's TSC has been set, or its offset. */
  tscChanged(): void {
    this.lapic.timer.tscChanged();
    this.clock.update();
  }

  /** Reads 1, 2 or 4 bytes of the LAPIC's memory; {@linkcode UNCLAIMED} if it is not there. */
  readMemory(address: number, size: number): number {
    const offset = address - this.lapic.address;
    if (offset < 0 || offset >= LAPIC_SIZE || !this.lapic.isXapic) return UNCLAIMED;
    return this.lapic.readMemory(offset, size);
  }

  /** Writes the LAPIC's memory; false if it is not there. */
  writeMemory(address: number, size: number, value: number): boolean {
    const offset = address - this.lapic.address;
    if (offset < 0 || offset >= LAPIC_SIZE || !this.lapic.isXapic) return false;
    this.lapic.writeMemory(offset, size, value);
    return true;
  }

  /** Reads an MSR of the chips into `msrLow` and `msrHigh`; false is a general protection fault. */
  readMsr(index: number): boolean {
    switch (index) {
      case Msr.APIC_BASE:
        return this.#give(this.lapic.baseLow, this.lapic.baseHigh);
      case Msr.TSC_DEADLINE: {
        return this.#hasTscDeadline && this.#readTscDeadline();
      }
      case ClockMsr.WALL_CLOCK:
      case ClockMsr.WALL_CLOCK_NEW:
        return this.#giveWide(this.#chipset.clock.wallClock);
      case ClockMsr.SYSTEM_TIME:
      case ClockMsr.SYSTEM_TIME_NEW:
        return this.#giveWide(this.clock.systemTime);
    }
    return this.#readX2apic(index);
  }

  /**
   * Writes an MSR of the chips.
   *
   * @param byHost whether it is not the guest that writes, but a state that is loaded
   * @returns false if that is a general protection fault
   */
  writeMsr(index: number, low: number, high: number, byHost = false): boolean {
    switch (index) {
      case Msr.APIC_BASE:
        return this.lapic.setBase(low, high, byHost);
      case Msr.TSC_DEADLINE:
        if (this.#hasTscDeadline) this.#writeTscDeadline(low, high);
        return this.#hasTscDeadline;
      case ClockMsr.WALL_CLOCK:
      case ClockMsr.WALL_CLOCK_NEW:
        this.clock.writeWallClock(wide(low, high), byHost);
        return true;
      case ClockMsr.SYSTEM_TIME:
      case ClockMsr.SYSTEM_TIME_NEW:
        if (byHost) this.clock.load(wide(low, high));
        else this.clock.systemTime = wide(low, high);
        return true;
    }
    if (index < Msr.X2APIC || index > Msr.X2APIC_LAST) return false;
    return this.lapic.writeX2apic((index - Msr.X2APIC) << 4, low >>> 0, high >>> 0);
  }

  /** One that has run out is 0, and its interrupt is there (SDM volume 3, 12.5.4.1). */
  #readTscDeadline(): boolean {
    this.lapic.advance(this.#chipset.hostClock.monotonicNs());
    const { tscDeadlineLow, tscDeadlineHigh } = this.lapic.timer;
    return this.#give(tscDeadlineLow, tscDeadlineHigh);
  }

  #writeTscDeadline(low: number, high: number): void {
    const { lapic } = this;
    // One that has run out came before whatever is written.
    lapic.advance(this.#chipset.hostClock.monotonicNs());
    lapic.timer.setTscDeadline(low, high);
  }

  #readX2apic(index: number): boolean {
    if (index < Msr.X2APIC || index > Msr.X2APIC_LAST) return false;
    const register = (index - Msr.X2APIC) << 4;
    const low = this.lapic.readX2apic(register);
    if (low === undefined) return false;
    return this.#give(low, register === Register.ICR_LOW ? this.lapic.icrHigh : 0);
  }

  #give(low: number, high: number): boolean {
    this.msrLow = low;
    this.msrHigh = high;
    return true;
  }

  #giveWide(value: bigint): boolean {
    return this.#give(Number(value & 0xffff_ffffn), Number(value >> 32n));
  }
}

function wide(low: number, high: number): bigint {
  return BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
}
