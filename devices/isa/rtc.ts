/**
 * `mc146818rtc`: Motorola's MC146818 real-time clock with the 128 bytes of CMOS RAM of a PC.
 *
 * Register names and rules are those of the MC146818 data sheet and of its successor DS12887. The
 * clock is not counted but computed: guest time is the host's CLOCK_REALTIME plus an offset, which is
 * 0 unless the user wants another time, and changes when the guest sets the clock. All time is in ticks of the chip's 32768 Hz crystal since
 * 1970-01-01 UTC, of which the low 15 bits are the divider chain.
 *
 * @module
 */
import { bytes, i64, struct, u8, type View } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "../device.ts";
import { ByteDevice, isaIrq, isaPort } from "./isa.ts";
import { bcd, fromBcd, mod, nextMatch } from "./rtc_time.ts";

const REG = {
  SECONDS: 0x00,
  SECONDS_ALARM: 0x01,
  MINUTES: 0x02,
  MINUTES_ALARM: 0x03,
  HOURS: 0x04,
  HOURS_ALARM: 0x05,
  DAY_OF_WEEK: 0x06,
  DAY: 0x07,
  MONTH: 0x08,
  YEAR: 0x09,
  A: 0x0a,
  B: 0x0b,
  C: 0x0c,
  D: 0x0d,
  /** Where PCs keep the century (ACPI FADT, CENTURY field). */
  CENTURY: 0x32,
} as const;

/** The registers that the clock itself advances. */
const TIME: ReadonlySet<number> = new Set([
  REG.SECONDS,
  REG.MINUTES,
  REG.HOURS,
  REG.DAY_OF_WEEK,
  REG.DAY,
  REG.MONTH,
  REG.YEAR,
  REG.CENTURY,
]);

/** Register A. */
const A = { UIP: 0x80, DIVIDER: 0x70, RATE: 0x0f } as const;
/** Divider settings up to this one let the chain count; above it is tested or held in reset. */
const LAST_RUNNING_DIVIDER = 0x20;
/** Register B. The three enables have the places of their flags in C. */
const B = { SET: 0x80, PIE: 0x40, AIE: 0x20, UIE: 0x10, SQWE: 0x08, BINARY: 0x04, H24: 0x02 };
/** Register C. */
const C = { IRQF: 0x80, PF: 0x40, AF: 0x20, UF: 0x10, FLAGS: 0x70 } as const;
/** Register D: time and RAM are valid, the battery has not failed. */
const VRT = 0x80;

const INDEX_MASK = 0x7f;
const PM = 0x80;
const SECOND = 32768;
/** UIP rises 244 µs before an update. */
const UIP_TICKS = 8;
/** The first update comes half a second after the divider chain is released. */
const DIVIDER_RELEASED = SECOND / 2;
const NS = 1_000_000_000n;
const TICKS = BigInt(SECOND);

const state = struct("mc146818rtc", {
  /** Guest time minus host time, in ticks. */
  offset: i64,
  /** Guest time up to which register C knows all events, in ticks. */
  synced: i64,
  /** Last byte written to port 0x70; its bit 7 masks NMI. */
  index: u8,
  cmos: bytes(128),
});

/** Sizes that firmware looks for in CMOS. */
interface CmosContent {
  /** KiB of RAM below 4 GiB. */
  readonly ramBelow4g: number;
  /** KiB of RAM above 4 GiB. */
  readonly ramAbove4g: number;
  readonly cpus: number;
  /** `utc`, `localtime`, or what the clock shows at the start in Unix seconds. */
  readonly base: string;
}

class Rtc extends ByteDevice implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #cmos: Uint8Array;
  readonly #context: DeviceContext;
  readonly #content: CmosContent;

  constructor(view: View<typeof state.fields>, context: DeviceContext, content: CmosContent) {
    super();
    this.#state = view;
    this.#cmos = view.cmos;
    this.#context = context;
    this.#content = content;
  }

  /** Port 0x70 can only be written; it reads as an undriven bus. */
  protected readByte(_range: number, offset: number): number {
    return offset === 1 ? this.#readRegister(this.#state.index & INDEX_MASK) : 0xff;
  }

  protected writeByte(_range: number, offset: number, value: number): void {
    if (offset === 0) this.#state.index = value;
    else if (offset === 1) this.#writeRegister(this.#state.index & INDEX_MASK, value);
  }

  timer(): void {
    this.#catchUp();
    this.#armTimer();
  }

  /** The RESET pin (data sheet, "RESET"): time and RAM live on, as on a battery. */
  reset(): void {
    if (!(this.#cmos[REG.D] & VRT)) this.#firstPower();
    this.#cmos[REG.B] &= ~(B.PIE | B.AIE | B.UIE | B.SQWE);
    this.#setFlags(0);
    this.#armTimer();
  }

  restored(): void {
    const c = this.#cmos[REG.C];
    this.#cmos[REG.A] &= ~A.UIP;
    this.#cmos[REG.C] = (c & C.FLAGS) | (c & this.#cmos[REG.B] & C.FLAGS ? C.IRQF : 0);
    this.#cmos[REG.D] = VRT;
    this.#context.interrupts[0].set((this.#cmos[REG.C] & C.IRQF) !== 0);
    this.#armTimer();
  }

  #firstPower(): void {
    const cmos = this.#cmos;
    cmos.fill(0);
    cmos[REG.A] = LAST_RUNNING_DIVIDER | 0x06; // 1024 Hz
    cmos[REG.B] = B.H24;
    cmos[REG.D] = VRT;
    this.#state.offset = BigInt(this.#firstOffset());
    this.#state.synced = BigInt(this.#now());
    const { ramBelow4g, ramAbove4g, cpus } = this.#content;
    const above1m = Math.min(Math.max(ramBelow4g - 1024, 0), 0xffff);
    const put = (register: number, value: number, length: number) => {
      for (let i = 0; i < length; i++) cmos[register + i] = Math.floor(value / 2 ** (8 * i));
    };
    put(0x15, Math.min(ramBelow4g, 640), 2);
    put(0x17, above1m, 2);
    put(0x30, above1m, 2);
    // The next two count in 64 KiB.
    put(0x34, Math.min(Math.floor(Math.max(ramBelow4g - 16 * 1024, 0) / 64), 0xffff), 2);
    put(0x5b, Math.floor(ramAbove4g / 64), 3);
    put(0x5f, cpus - 1, 1);
  }

  #firstOffset(): number {
    const { base } = this.#content;
    if (base === "utc") return 0;
    if (base !== "localtime") return Number(base) * SECOND - this.#hostNow();
    const hostMs = Number(this.#context.realtimeNs() / 1_000_000n);
    return -new Date(hostMs).getTimezoneOffset() * 60 * SECOND;
  }

  #readRegister(register: number): number {
    if (TIME.has(register)) this.#latch();
    if (register === REG.A) return this.#cmos[REG.A] | (this.#updateInProgress() ? A.UIP : 0);
    if (register === REG.C) return this.#readC();
    return this.#cmos[register];
  }

  #readC(): number {
    this.#catchUp();
    const flags = this.#cmos[REG.C];
    this.#setFlags(0);
    this.#armTimer();
    return flags;
  }

  #writeRegister(register: number, value: number): void {
    if (register > REG.D && register !== REG.CENTURY) {
      this.#cmos[register] = value;
      return;
    }
    if (register === REG.C || register === REG.D) return;
    this.#catchUp();
    this.#latch();
    const wasRunning = this.#running();
    const divided = this.#dividing();
    if (register === REG.A) {
      this.#cmos[REG.A] = value & ~A.UIP;
      if (!divided && this.#dividing()) this.#setClock(DIVIDER_RELEASED);
    } else if (register === REG.B) {
      this.#cmos[REG.B] = value & B.SET ? value & ~B.UIE : value;
      if (!wasRunning && this.#running()) this.#setClock(mod(this.#now(), SECOND));
    } else {
      // Bit 7 of the seconds is read-only.
      this.#cmos[register] = register === REG.SECONDS ? value & 0x7f : value;
      if (TIME.has(register) && wasRunning) this.#setClock(mod(this.#now(), SECOND));
    }
    this.#setFlags(this.#cmos[REG.C]);
    this.#armTimer();
  }

  /** Whether the divider chain counts, and with it the periodic interrupt. */
  #dividing(): boolean {
    return (this.#cmos[REG.A] & A.DIVIDER) <= LAST_RUNNING_DIVIDER;
  }

  /** Whether time advances; otherwise the time registers hold what they have. */
  #running(): boolean {
    return this.#dividing() && !(this.#cmos[REG.B] & B.SET);
  }

  #updateInProgress(): boolean {
    return this.#running() && mod(this.#now(), SECOND) >= SECOND - UIP_TICKS;
  }

  /** The offset, within what a tick count can hold: past that, timers could not advance. */
  #offset(): number {
    const limit = Number.MAX_SAFE_INTEGER;
    return Math.max(-limit, Math.min(Number(this.#state.offset), limit));
  }

  #hostNow(): number {
    return Number(this.#context.realtimeNs() * TICKS / NS);
  }

  /** Guest time in ticks. */
  #now(): number {
    return this.#hostNow() + this.#offset();
  }

  /** Makes the time registers' content the guest time, with the divider chain at `fraction`. */
  #setClock(fraction: number): void {
    const now = this.#decode() * SECOND + fraction;
    this.#state.offset = BigInt(now - this.#hostNow());
    this.#state.synced = BigInt(now);
  }

  /** Records the events between the last call and now in register C. */
  #catchUp(): void {
    const now = this.#now();
    const last = Number(this.#state.synced);
    this.#state.synced = BigInt(now);
    let flags = 0;
    if (this.#dividing() && this.#nextPeriod(last) <= now) flags |= C.PF;
    if (this.#running() && this.#nextSecond(last) <= now) {
      flags |= C.UF;
      if (this.#nextAlarm(last) <= now) flags |= C.AF;
    }
    this.#setFlags(this.#cmos[REG.C] | flags);
  }

  /** Replaces the flags in register C and drives the interrupt as they and the enables want. */
  #setFlags(flags: number): void {
    const before = this.#cmos[REG.C] & C.IRQF;
    const irqf = flags & this.#cmos[REG.B] & C.FLAGS ? C.IRQF : 0;
    this.#cmos[REG.C] = (flags & C.FLAGS) | irqf;
    if (irqf !== before) this.#context.interrupts[0].set(irqf !== 0);
  }

  /** Arms the timer for the first event that would raise the interrupt. */
  #armTimer(): void {
    const wanted = this.#cmos[REG.B] & ~this.#cmos[REG.C] & C.FLAGS;
    const now = this.#now();
    let due = Infinity;
    if (wanted & C.PF && this.#dividing()) due = Math.min(due, this.#nextPeriod(now));
    if (wanted & C.UF && this.#running()) due = Math.min(due, this.#nextSecond(now));
    if (wanted & C.AF && this.#running()) due = Math.min(due, this.#nextAlarm(now));
    this.#context.timers[0].arm(due === Infinity ? 0n : this.#deadline(due));
  }

  /** The monotonic time at which guest time reaches `due`, rounded up. */
  #deadline(due: number): bigint {
    const hostNs = (BigInt(due - this.#offset()) * NS + TICKS - 1n) / TICKS;
    return hostNs - this.#context.realtimeNs() + this.#context.monotonicNs();
  }

  /** The first tick after `ticks` at which the periodic interrupt falls due. */
  #nextPeriod(ticks: number): number {
    const rate = this.#cmos[REG.A] & A.RATE;
    if (rate === 0) return Infinity;
    // Rates 1 and 2 repeat 8 and 9 with this crystal (data sheet, table 5).
    const period = 2 ** (rate < 3 ? rate + 6 : rate - 1);
    return (Math.floor(ticks / period) + 1) * period;
  }

  #nextSecond(ticks: number): number {
    return (Math.floor(ticks / SECOND) + 1) * SECOND;
  }

  /** The first tick after `ticks` at which the alarm matches. */
  #nextAlarm(ticks: number): number {
    const second = nextMatch(Math.floor(ticks / SECOND), {
      hour: (hour) => this.#alarmMatches(REG.HOURS_ALARM, this.#encodeHour(hour)),
      minute: (minute) => this.#alarmMatches(REG.MINUTES_ALARM, this.#encode(minute)),
      second: (second) => this.#alarmMatches(REG.SECONDS_ALARM, this.#encode(second)),
    });
    return second * SECOND;
  }

  /** The two highest bits of an alarm byte mean: any. */
  #alarmMatches(register: number, value: number): boolean {
    const alarm = this.#cmos[register];
    return alarm >= 0xc0 || alarm === value;
  }

  /** Brings the time registers up to now unless they are held. */
  #latch(): void {
    if (!this.#running()) return;
    const cmos = this.#cmos;
    const date = new Date(Math.floor(this.#now() / SECOND) * 1000);
    const year = mod(date.getUTCFullYear(), 10000);
    cmos[REG.SECONDS] = this.#encode(date.getUTCSeconds());
    cmos[REG.MINUTES] = this.#encode(date.getUTCMinutes());
    cmos[REG.HOURS] = this.#encodeHour(date.getUTCHours());
    cmos[REG.DAY_OF_WEEK] = this.#encode(date.getUTCDay() + 1);
    cmos[REG.DAY] = this.#encode(date.getUTCDate());
    cmos[REG.MONTH] = this.#encode(date.getUTCMonth() + 1);
    cmos[REG.YEAR] = this.#encode(year % 100);
    cmos[REG.CENTURY] = this.#encode(Math.floor(year / 100));
  }

  /** The time registers as seconds since 1970; values out of range carry over. */
  #decode(): number {
    const read = (register: number) => this.#decodeByte(this.#cmos[register]);
    const year = Math.min(read(REG.CENTURY) * 100 + read(REG.YEAR), 9999);
    const date = new Date(0);
    date.setUTCFullYear(year, read(REG.MONTH) - 1, read(REG.DAY));
    date.setUTCHours(this.#decodeHour(), read(REG.MINUTES), read(REG.SECONDS));
    return date.getTime() / 1000;
  }

  #encode(value: number): number {
    return this.#cmos[REG.B] & B.BINARY ? value : bcd(value);
  }

  #encodeHour(hour: number): number {
    if (this.#cmos[REG.B] & B.H24) return this.#encode(hour);
    return this.#encode(hour % 12 || 12) | (hour >= 12 ? PM : 0);
  }

  #decodeByte(byte: number): number {
    return this.#cmos[REG.B] & B.BINARY ? byte : fromBcd(byte);
  }

  #decodeHour(): number {
    const byte = this.#cmos[REG.HOURS];
    if (this.#cmos[REG.B] & B.H24) return this.#decodeByte(byte);
    return this.#decodeByte(byte & ~PM) % 12 + (byte & PM ? 12 : 0);
  }
}

/** The `mc146818rtc` device type. */
export const mc146818rtc: DeviceType = defineDevice({
  name: "mc146818rtc",
  help: "real-time clock and CMOS RAM",
  user: false,
  properties: {
    iobase: { type: "uint16", default: 0x70, help: "first of its 2 I/O ports" },
    irq: { type: "uint8", default: 8, help: "interrupt, 0 to 15" },
    "ram-below-4g": { type: "uint32", default: 0, help: "KiB of RAM below 4 GiB, for firmware" },
    "ram-above-4g": { type: "uint32", default: 0, help: "KiB of RAM above 4 GiB, for firmware" },
    base: { type: "string", default: "utc", help: "utc, localtime, or Unix seconds at the start" },
    cpus: { type: "uint8", default: 1, help: "number of CPUs at start, for firmware" },
  },
  version: 1,
  state,
  ranges: (properties) => [{
    space: "pio",
    base: isaPort("iobase", properties.iobase, 2),
    size: 2,
    name: "rtc",
  }],
  irqs: (properties) => [isaIrq("irq", properties.irq)],
  timers: 1,
  create: (view, context, properties) =>
    new Rtc(view, context, {
      ramBelow4g: Number(properties["ram-below-4g"]),
      ramAbove4g: Number(properties["ram-above-4g"]),
      cpus: Number(properties.cpus),
      base: String(properties.base),
    }),
});
