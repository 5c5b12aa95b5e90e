/**
 * The 8254 programmable interval timer of a PC, and the part of port 0x61 that belongs to it.
 *
 * Names are those of Intel's 8254 data sheet. The counters are not counted down but computed from the
 * time. State is KVM's; a loaded state begins its counts anew, as KVM's does. Where KVM simplifies
 * (BCD, OUT in the modes with a strobe, a gate that stops channel 2) the data sheet is followed.
 *
 * All calls come with the chipset's lock held.
 *
 * @module
 */
import { kvmPitChannelState, kvmPitState2 } from "../../../../ffi/kvm/structs.ts";
import type { View } from "../../../../ffi/struct.ts";
import { chipsetState } from "./state.ts";
import type { HostClock } from "./time.ts";

type Channel = View<typeof kvmPitChannelState.fields>;

const CHANNELS = 3;
/** The channel that interrupts, and the one whose gate and output are at port 0x61. */
const TIMER = 0;
const SPEAKER = 2;
/** Ticks in a second. */
const FREQUENCY = 1_193_181;
const NS_PER_SECOND = 1e9;
/** KVM's shortest period, ns, lest a guest keep a vCPU in interrupts alone. */
const MIN_PERIOD = 200_000;
/** A count of 0 is the largest one. */
const LARGEST = 0x1_0000;
/** `mode` before the first control word, as in KVM. */
const NO_MODE = 0xff;

/** `rw_mode`, `read_state`, `write_state` and `count_latched`. */
const Access = { LATCH: 0, LSB: 1, MSB: 2, WORD: 3, WORD_MSB: 4 } as const;
/** The control word's register, and its select bits for a read-back command. */
const CONTROL = 3;
const READ_BACK = 3;
const ReadBack = { NO_COUNT: 0x20, NO_STATUS: 0x10 } as const;
/** Port 0x61. */
const Port61 = { GATE: 0x01, SPEAKER: 0x02, REFRESH: 0x10, OUT: 0x20 } as const;
/** The refresh request toggles about every 15 µs: after 2^14 ns. */
const REFRESH_NS = 0x4000;
/** KVM_PIT_FLAGS_SPEAKER_DATA_ON */
const SPEAKER_DATA_ON = 2;

/** The PIT over shared state. */
export class Pit {
  readonly #chipset: View<typeof chipsetState.fields>;
  readonly #state: View<typeof kvmPitState2.fields>;
  readonly #channels: readonly Channel[];
  readonly #bytes: Uint8Array;
  readonly #clock: HostClock;
  readonly #pulse: () => void;

  /**
   * @param buffer where a {@linkcode chipsetState} begins
   * @param pulse makes an interrupt of channel 0
   */
  constructor(buffer: ArrayBufferLike, clock: HostClock, pulse: () => void) {
    const offset = chipsetState.offsets.pit;
    this.#chipset = chipsetState.view(buffer);
    this.#state = kvmPitState2.view(buffer, offset);
    this.#channels = Array.from(
      { length: CHANNELS },
      (_, i) => kvmPitChannelState.view(buffer, offset + i * kvmPitChannelState.size),
    );
    this.#bytes = new Uint8Array(buffer, offset, kvmPitState2.size);
    this.#clock = clock;
    this.#pulse = pulse;
  }

  /** Power-on. */
  reset(): void {
    this.#bytes.fill(0);
    this.#channels.forEach((channel, index) => {
      channel.mode = NO_MODE;
      channel.gate = index === SPEAKER ? 0 : 1;
      this.#load(index, 0);
    });
    this.forgetTicks();
  }

  /** Copies the state as KVM_GET_PIT2 does. */
  save(into: Uint8Array): void {
    into.set(this.#bytes);
  }

  /** Takes a state over as KVM_SET_PIT2 does. */
  load(from: Uint8Array): void {
    this.#bytes.set(from.subarray(0, kvmPitState2.size));
    this.#channels.forEach((channel, index) => this.#load(index, channel.count % LARGEST));
    this.forgetTicks();
  }

  /** When channel 0 interrupts next, nanoseconds of CLOCK_MONOTONIC; Infinity for never. */
  get deadline(): number {
    return this.#chipset.pit_deadline || Infinity;
  }

  /**
   * Interrupts as often as channel 0 has come round by `now`. An interrupt waits until the one before
   * has been ended, so that a guest that counts them does not lose time.
   */
  advance(now: number): void {
    const { pit_deadline: deadline, pit_period: period } = this.#chipset;
    if (deadline === 0 || now < deadline) return;
    const rounds = period > 0 ? Math.floor((now - deadline) / period) + 1 : 1;
    this.#chipset.pit_deadline = period > 0 ? deadline + rounds * period : 0;
    this.#chipset.pit_pending += rounds;
    this.#interrupt();
  }

  /** The last interrupt has been ended. */
  ended(): void {
    this.#chipset.pit_acknowledged = 1;
    if (this.#chipset.pit_pending === 0) return;
    this.#chipset.pit_pending--;
    if (this.#chipset.pit_pending > 0) this.#interrupt();
  }

  /** Interrupts that wait are given up: nobody has taken them, or the channel starts anew. */
  forgetTicks(): void {
    this.#chipset.pit_pending = 0;
    this.#chipset.pit_acknowledged = 1;
  }

  #interrupt(): void {
    if (this.#chipset.pit_acknowledged === 0) return;
    this.#chipset.pit_acknowledged = 0;
    this.#pulse();
  }

  /** Reads port 0x40 to 0x43, from 0 on. */
  read(port: number): number {
    if (port === CONTROL) return 0;
    const channel = this.#channels[port];
    if (channel.status_latched) {
      channel.status_latched = 0;
      return channel.status;
    }
    if (channel.count_latched) return readLatch(channel);
    const count = this.#count(port);
    switch (channel.read_state) {
      case Access.MSB:
        return count >> 8;
      case Access.WORD:
        channel.read_state = Access.WORD_MSB;
        return count & 0xff;
      case Access.WORD_MSB:
        channel.read_state = Access.WORD;
        return count >> 8;
    }
    return count & 0xff;
  }

  /** Writes port 0x40 to 0x43, from 0 on. */
  write(port: number, value: number): void {
    if (port === CONTROL) return this.#writeControl(value);
    const channel = this.#channels[port];
    switch (channel.write_state) {
      case Access.MSB:
        return this.#load(port, value << 8);
      case Access.WORD:
        channel.write_latch = value;
        channel.write_state = Access.WORD_MSB;
        return;
      case Access.WORD_MSB:
        channel.write_state = Access.WORD;
        return this.#load(port, channel.write_latch | value << 8);
    }
    this.#load(port, value);
  }

  /** Reads port 0x61. */
  readPort61(): number {
    const gate = this.#channels[SPEAKER].gate ? Port61.GATE : 0;
    const speaker = this.#state.flags & SPEAKER_DATA_ON ? Port61.SPEAKER : 0;
    const out = this.#out(SPEAKER) ? Port61.OUT : 0;
    const refresh = Math.floor(this.#clock.monotonicNs() / REFRESH_NS) % 2 ? Port61.REFRESH : 0;
    return gate | speaker | out | refresh;
  }

  /** Writes port 0x61. */
  writePort61(value: number): void {
    const flags = this.#state.flags & ~SPEAKER_DATA_ON;
    this.#state.flags = flags | (value & Port61.SPEAKER ? SPEAKER_DATA_ON : 0);
    this.#setGate((value & Port61.GATE) !== 0);
  }

  #writeControl(value: number): void {
    const select = value >> 6;
    if (select === READ_BACK) return this.#readBack(value);
    const access = (value >> 4) & 3;
    if (access === Access.LATCH) return this.#latchCount(select);
    const channel = this.#channels[select];
    channel.rw_mode = channel.read_state = channel.write_state = access;
    const mode = (value >> 1) & 7;
    // Bit 3 is "don't care" in modes 2 and 3.
    channel.mode = mode > 5 ? mode - 4 : mode;
    channel.bcd = value & 1;
    // OUT rests until a count is written.
    if (select === TIMER) this.#chipset.pit_deadline = 0;
  }

  #readBack(value: number): void {
    for (let index = 0; index < CHANNELS; index++) {
      if (((value >> (index + 1)) & 1) === 0) continue;
      if (!(value & ReadBack.NO_COUNT)) this.#latchCount(index);
      if (!(value & ReadBack.NO_STATUS)) this.#latchStatus(index);
    }
  }

  #latchCount(index: number): void {
    const channel = this.#channels[index];
    if (channel.count_latched) return;
    channel.latched_count = this.#count(index);
    channel.count_latched = channel.rw_mode;
  }

  #latchStatus(index: number): void {
    const channel = this.#channels[index];
    if (channel.status_latched) return;
    const { rw_mode, mode, bcd } = channel;
    channel.status = (this.#out(index) ? 0x80 : 0) | rw_mode << 4 | (mode & 7) << 1 | bcd;
    channel.status_latched = 1;
  }

  #load(index: number, count: number): void {
    const channel = this.#channels[index];
    channel.count = count || LARGEST;
    channel.count_load_time = BigInt(Math.floor(this.#clock.monotonicNs()));
    if (index === SPEAKER) this.#chipset.pit_gated = 0;
    if (index === TIMER) this.#startTimer(channel);
  }

  /** As KVM: modes 0, 1 and 4 interrupt once, 2 and 3 periodically. */
  #startTimer(channel: Channel): void {
    const wait = initialCount(channel) * NS_PER_SECOND / FREQUENCY;
    const isPeriodic = channel.mode === 2 || channel.mode === 3;
    const interrupts = isPeriodic || channel.mode === 0 || channel.mode === 1 || channel.mode === 4;
    const period = isPeriodic ? Math.max(wait, MIN_PERIOD) : 0;
    this.forgetTicks();
    this.#chipset.pit_period = period;
    this.#chipset.pit_deadline = interrupts ? this.#clock.monotonicNs() + (period || wait) : 0;
  }

  /** The gate of channel 2; that of the others is always high (data sheet, figure 22). */
  #setGate(high: boolean): void {
    const channel = this.#channels[SPEAKER];
    if (high === (channel.gate !== 0)) return;
    if (high) this.#gateRises(channel);
    else this.#chipset.pit_gated = this.#elapsed(SPEAKER);
    channel.gate = high ? 1 : 0;
  }

  #gateRises(channel: Channel): void {
    const resumes = channel.mode === 0 || channel.mode === 4;
    const elapsed = resumes ? this.#chipset.pit_gated : 0;
    channel.count_load_time = BigInt(Math.floor(this.#clock.monotonicNs() - elapsed));
  }

  /** How long a channel has counted, ns. */
  #elapsed(index: number): number {
    const channel = this.#channels[index];
    const stops = channel.mode !== 1 && channel.mode !== 5;
    if (!channel.gate && stops) return this.#chipset.pit_gated;
    return Math.max(this.#clock.monotonicNs() - Number(channel.count_load_time), 0);
  }

  #ticks(index: number): number {
    return Math.floor(this.#elapsed(index) * FREQUENCY / NS_PER_SECOND);
  }

  /** The counting element's content, 16 bits. */
  #count(index: number): number {
    const channel = this.#channels[index];
    const initial = initialCount(channel);
    const ticks = this.#ticks(index);
    const wrap = channel.bcd ? 10_000 : LARGEST;
    let left: number;
    if (channel.mode === 3) left = initial - 2 * ticks % initial;
    else if (channel.mode === 2 || channel.mode === NO_MODE) left = initial - ticks % initial;
    else left = ((initial - ticks) % wrap + wrap) % wrap;
    return channel.bcd ? toBcd(left % wrap) : left % wrap;
  }

  /** The level of a channel's output. */
  #out(index: number): boolean {
    const channel = this.#channels[index];
    const initial = initialCount(channel);
    const ticks = this.#ticks(index);
    const gateHolds = !channel.gate;
    switch (channel.mode) {
      case 0:
      case 1:
        return ticks >= initial;
      case 2:
        return gateHolds || ticks % initial !== initial - 1;
      case 3:
        return gateHolds || ticks % initial < Math.ceil(initial / 2);
      case 4:
      case 5:
        return ticks !== initial;
    }
    return true;
  }
}

function readLatch(channel: Channel): number {
  const { latched_count: count, count_latched: access } = channel;
  // The low byte first; the high one follows at the next read.
  channel.count_latched = access === Access.WORD ? Access.MSB : 0;
  return access === Access.MSB ? count >> 8 : count & 0xff;
}

/** The count that was written, as a number of ticks from 1 on. */
function initialCount({ count, bcd }: Channel): number {
  if (!bcd) return count;
  let ticks = 0;
  for (let shift = 16; shift >= 0; shift -= 4) ticks = ticks * 10 + ((count >> shift) & 0xf);
  return ticks;
}

function toBcd(value: number): number {
  let digits = 0;
  for (let shift = 0; shift < 16; shift += 4) {
    digits |= value % 10 << shift;
    value = Math.floor(value / 10);
  }
  return digits;
}
