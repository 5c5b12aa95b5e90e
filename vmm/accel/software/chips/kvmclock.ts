/**
 * kvmclock: guest time from the TSC, as KVM's paravirtual interface gives it to guests
 * (Documentation/virt/kvm/x86/msr.rst, cpuid.rst) and to the VMM (KVM_GET_CLOCK, KVM_SET_CLOCK,
 * KVM_KVMCLOCK_CTRL in api.rst).
 *
 * The clock is a straight line through the host's TSC, the same for all vCPUs and for the VMM: it
 * changes only when the VMM sets it, while the vCPUs are parked. Each vCPU's page in guest memory
 * holds the line in terms of its own TSC.
 *
 * @module
 */
import { kvmClockData } from "../../../../ffi/kvm/structs.ts";
import { bytes, struct, u32, u64, u8, type View } from "../../../../ffi/struct.ts";
import { lapicWords, Word } from "./lapic_registers.ts";
import { chipsetState, lapicOffset, lapicState } from "./state.ts";
import type { GuestTsc, HostClock } from "./time.ts";

/** The MSRs: the old numbers, which overlap with Intel's, and the new ones. */
export const ClockMsr = {
  WALL_CLOCK: 0x11,
  SYSTEM_TIME: 0x12,
  WALL_CLOCK_NEW: 0x4b56_4d00,
  SYSTEM_TIME_NEW: 0x4b56_4d01,
} as const;

/** struct pvclock_vcpu_time_info */
export const pvclockTimeInfo = struct("pvclock_vcpu_time_info", {
  version: u32,
  pad0: u32,
  tsc_timestamp: u64,
  system_time: u64,
  tsc_to_system_mul: u32,
  tsc_shift: u8,
  flags: u8,
  pad: bytes(2),
});

/** struct pvclock_wall_clock */
export const pvclockWallClock = struct("pvclock_wall_clock", { version: u32, sec: u32, nsec: u32 });

/** Bits of `flags`: all vCPUs' TSCs are in step; the VMM has paused the guest. */
export const PvclockFlag = { TSC_STABLE: 1, GUEST_STOPPED: 2 } as const;
/** Bits of kvm_clock_data's `flags`. */
export const ClockFlag = { TSC_STABLE: 2, REALTIME: 4, HOST_TSC: 8 } as const;

/** `lapic_state.clock_request`: the page has to be written; and to say that the guest was paused. */
const Request = { UPDATE: 1, PAUSED: 2 } as const;

/** MSR_KVM_SYSTEM_TIME: the page is in use. */
const ENABLE = 1n;
const NS_PER_SECOND = 1_000_000_000n;
const MASK_64 = 0xffff_ffff_ffff_ffffn;
const EINVAL = 22;

/** Guest memory, by guest physical addresses. */
export interface ClockMemory {
  /** Reads a 32-bit word at an address that is a multiple of 4; 0 where no RAM is. */
  read(gpa: number): number;
  /** Writes a 32-bit word at an address that is a multiple of 4; nowhere but to RAM. */
  write(gpa: number, value: number): void;
}

/** How a TSC's ticks become ns: `((ticks << shift) * mul) >> 32`, `shift` signed. */
export interface TscScale {
  readonly mul: number;
  readonly shift: number;
}

/** Finds the scale of a TSC of `khz`, its factor as precise as 32 bits allow. */
export function tscScale(khz: number): TscScale {
  let hertz = BigInt(khz) * 1000n;
  let shift = 0;
  // A factor of at most 1: a tick that is shorter than 1 ns, or made so.
  while (hertz <= NS_PER_SECOND) {
    hertz *= 2n;
    shift++;
  }
  let divisor = 1n;
  while (hertz > 2n * NS_PER_SECOND * divisor) {
    divisor *= 2n;
    shift--;
  }
  return { mul: Number((NS_PER_SECOND * divisor << 32n) / hertz), shift };
}

/** The nanoseconds of a number of ticks. */
function scaled(ticks: bigint, { mul, shift }: TscScale): bigint {
  const shifted = shift < 0 ? ticks >> BigInt(-shift) : ticks << BigInt(shift);
  return (shifted * BigInt(mul)) >> 32n;
}

/** The machine's clock. */
export class Kvmclock {
  /** From ticks of the TSC to ns. */
  readonly scale: TscScale;
  readonly #chipset: View<typeof chipsetState.fields>;
  readonly #lapics: readonly Int32Array[];
  readonly #clock: HostClock;
  readonly #kick: (vcpu: number) => void;

  /**
   * @param buffer the chips' state
   * @param kick makes a vCPU look whether its page has to be written
   */
  constructor(
    buffer: ArrayBufferLike,
    vcpus: number,
    clock: HostClock,
    kick: (vcpu: number) => void,
  ) {
    this.#chipset = chipsetState.view(buffer);
    this.#lapics = Array.from({ length: vcpus }, (_, index) => lapicWords(buffer, index));
    this.#clock = clock;
    this.#kick = kick;
    this.scale = tscScale(clock.tscKhz);
  }

  /** Power-on: the clock begins at 0. */
  reset(): void {
    this.#chipset.wall_clock = 0n;
    this.#begin(0n);
  }

  /** The clock now, ns. */
  now(): bigint {
    return this.#at(this.#clock.tsc());
  }

  #at(tsc: bigint): bigint {
    const ticks = BigInt.asUintN(64, tsc - this.#chipset.clock_tsc);
    return BigInt.asUintN(64, this.#chipset.clock_ns + scaled(ticks, this.scale));
  }

  #begin(ns: bigint): void {
    this.#chipset.clock_ns = ns;
    this.#chipset.clock_tsc = this.#clock.tsc();
  }

  /** KVM_GET_CLOCK: the clock with the host's time and TSC of the same moment. */
  save(into: Uint8Array<ArrayBuffer>): void {
    const data = kvmClockData.view(into.buffer, into.byteOffset);
    into.fill(0);
    data.flags = ClockFlag.TSC_STABLE | ClockFlag.REALTIME | ClockFlag.HOST_TSC;
    data.host_tsc = this.#clock.tsc();
    data.realtime = this.#clock.realtimeNs();
    data.clock = this.#at(data.host_tsc);
  }

  /**
   * KVM_SET_CLOCK: with the flag REALTIME the clock goes on over the time since it was read. The
   * vCPUs are parked; their pages are written before they go on.
   *
   * @returns 0, or EINVAL for flags that the interface does not know
   */
  load(from: Uint8Array<ArrayBuffer>): number {
    const { clock, flags, realtime } = kvmClockData.view(from.buffer, from.byteOffset);
    const known = ClockFlag.TSC_STABLE | ClockFlag.REALTIME | ClockFlag.HOST_TSC;
    if (flags & ~known) return EINVAL;
    const passed = flags & ClockFlag.REALTIME ? this.#clock.realtimeNs() - realtime : 0n;
    this.#begin((clock + (passed > 0n ? passed : 0n)) & MASK_64);
    for (let vcpu = 0; vcpu < this.#lapics.length; vcpu++) this.requestUpdate(vcpu);
    return 0;
  }

  /** Has a vCPU's page written again before its next instruction: its TSC has changed. */
  requestUpdate(vcpu: number): void {
    this.#request(vcpu, Request.UPDATE);
  }

  /** KVM_KVMCLOCK_CTRL: tells the guest that it was paused. EINVAL where it has no clock; else 0. */
  notePause(vcpu: number): number {
    const address = lapicOffset(vcpu);
    const { system_time } = lapicState.view(this.#lapics[vcpu].buffer, address);
    if (!(system_time & ENABLE)) return EINVAL;
    this.#request(vcpu, Request.UPDATE | Request.PAUSED);
    return 0;
  }

  #request(vcpu: number, request: number): void {
    Atomics.or(this.#lapics[vcpu], Word.CLOCK_REQUEST, request);
    this.#kick(vcpu);
  }

  /** MSR_KVM_WALL_CLOCK. */
  get wallClock(): bigint {
    return this.#chipset.wall_clock;
  }

  set wallClock(gpa: bigint) {
    this.#chipset.wall_clock = gpa;
  }

  /** CLOCK_REALTIME when the clock was 0, ns. */
  get epoch(): bigint {
    return this.#clock.realtimeNs() - this.now();
  }

  /** The line that a page holds: clock and the host's TSC at which it had this value. */
  get line(): { ns: bigint; tsc: bigint } {
    return { ns: this.#chipset.clock_ns, tsc: this.#chipset.clock_tsc };
  }
}

/** A vCPU's view of the clock: its MSR and its page. Its thread's, or another's while it is parked. */
export class VcpuClock {
  readonly #state: View<typeof lapicState.fields>;
  readonly #words: Int32Array;
  readonly #clock: Kvmclock;
  readonly #tsc: GuestTsc;
  readonly #memory: ClockMemory;
  readonly #page = pvclockTimeInfo.alloc();

  /**
   * @param buffer the chips' state
   * @param index the vCPU
   */
  constructor(
    buffer: ArrayBufferLike,
    index: number,
    clock: Kvmclock,
    tsc: GuestTsc,
    memory: ClockMemory,
  ) {
    this.#state = lapicState.view(buffer, lapicOffset(index));
    this.#words = lapicWords(buffer, index);
    this.#clock = clock;
    this.#tsc = tsc;
    this.#memory = memory;
  }

  /** MSR_KVM_SYSTEM_TIME: the page's address, and in bit 0 whether it is in use. */
  get systemTime(): bigint {
    return this.#state.system_time;
  }

  set systemTime(value: bigint) {
    this.#state.system_time = value;
    this.update();
  }

  /** Sets MSR_KVM_SYSTEM_TIME of a state: RAM may be another VMM's still, until the vCPU runs. */
  load(value: bigint): void {
    this.#state.system_time = value;
    Atomics.or(this.#words, Word.CLOCK_REQUEST, Request.UPDATE);
  }

  /**
   * Writes MSR_KVM_WALL_CLOCK: the time of day at which the clock was 0 goes to that address.
   *
   * @param byHost whether a state is loaded, whose memory has it already
   */
  writeWallClock(gpa: bigint, byHost: boolean): void {
    this.#clock.wallClock = gpa;
    const address = Number(gpa);
    if (byHost || address === 0 || address % 4 !== 0) return;
    const { epoch } = this.#clock;
    const { version, sec, nsec } = pvclockWallClock.offsets;
    const odd = (this.#memory.read(address + version) + 1) | 1;
    this.#memory.write(address + version, odd >>> 0);
    this.#memory.write(address + sec, Number(BigInt.asUintN(32, epoch / NS_PER_SECOND)));
    this.#memory.write(address + nsec, Number(epoch % NS_PER_SECOND));
    this.#memory.write(address + version, (odd + 1) >>> 0);
  }

  /** Writes the page if that was requested. */
  service(): void {
    if (Atomics.load(this.#words, Word.CLOCK_REQUEST) !== 0) this.update();
  }

  /** Writes the page (msr.rst, MSR_KVM_SYSTEM_TIME_NEW): the version is odd meanwhile. */
  update(): void {
    const request = Atomics.exchange(this.#words, Word.CLOCK_REQUEST, 0);
    const msr = this.#state.system_time;
    const address = Number(msr & ~ENABLE);
    if (!(msr & ENABLE) || address % 4 !== 0) return;
    const { view } = this.#page;
    const { ns, tsc } = this.#clock.line;
    const stopped = this.#flags(address) & PvclockFlag.GUEST_STOPPED;
    view.tsc_timestamp = BigInt.asUintN(64, tsc + this.#tsc.offset());
    view.system_time = ns;
    view.tsc_to_system_mul = this.#clock.scale.mul;
    view.tsc_shift = this.#clock.scale.shift & 0xff;
    view.flags = PvclockFlag.TSC_STABLE | stopped |
      (request & Request.PAUSED ? PvclockFlag.GUEST_STOPPED : 0);
    this.#write(address);
  }

  /** What the guest has left of the flags: it clears GUEST_STOPPED when it has seen it. */
  #flags(address: number): number {
    const at = pvclockTimeInfo.offsets.flags;
    return (this.#memory.read(address + (at & ~3)) >>> (8 * (at & 3))) & 0xff;
  }

  #write(address: number): void {
    const { bytes } = this.#page;
    const words = new Uint32Array(bytes.buffer);
    const odd = (this.#memory.read(address) + 1) | 1;
    this.#memory.write(address, odd >>> 0);
    for (let word = 1; word < words.length; word++) {
      this.#memory.write(address + 4 * word, words[word]);
    }
    this.#memory.write(address, (odd + 1) >>> 0);
  }
}
