/**
 * A machine's chips on clocks that the test sets.
 *
 * @module
 */
import type { AddressRange } from "../../../../devices/device.ts";
import { Chipset } from "../../../../vmm/accel/software/chips/chipset.ts";
import { ChipPorts, chipRanges } from "../../../../vmm/accel/software/chips/ports.ts";
import { chipsetSize } from "../../../../vmm/accel/software/chips/state.ts";
import { VcpuChips } from "../../../../vmm/accel/software/chips/vcpu_chips.ts";

/** How the machine is built: once, or anew over the same memory for each call, as on many threads. */
export type Mode = "kept" | "shared";

/** The LAPIC's registers in memory, and the IOAPIC's. */
export const LAPIC = 0xfee0_0000;
export const IOAPIC = 0xfec0_0000;

/** Chips under test, reset as at power-on. */
export class TestChips {
  /** CLOCK_MONOTONIC, CLOCK_REALTIME in ns. */
  monotonic = 5_000_000_000;
  realtime = 1_700_000_000_123_456_789n;
  readonly tscKhz = 2_500_000;
  /** Of each vCPU, by how much its TSC is ahead. */
  readonly tscOffsets: bigint[];
  /** vCPUs in the order in which they were kicked. */
  kicks: number[] = [];
  /** Guest memory, words by address. */
  readonly memory = new Map<number, number>();
  readonly buffer: SharedArrayBuffer;
  readonly #vcpus: number;
  readonly #mode: Mode;
  readonly #pic: boolean;
  readonly #tscDeadline: boolean;
  #chipset: Chipset;
  #chips: VcpuChips[];

  constructor(vcpus = 1, mode: Mode = "kept", { pic = true, tscDeadline = true } = {}) {
    this.#tscDeadline = tscDeadline;
    this.#pic = pic;
    this.buffer = new SharedArrayBuffer(chipsetSize(vcpus));
    this.tscOffsets = Array.from({ length: vcpus }, (_, i) => BigInt(i) * 1_000_000n);
    this.#vcpus = vcpus;
    this.#mode = mode;
    this.#chipset = this.#makeChipset();
    this.#chips = this.#makeVcpus();
    this.#chipset.reset();
    this.#chips.forEach(({ lapic }, index) => lapic.reset(index, index === 0));
  }

  get tsc(): bigint {
    return BigInt(Math.floor(this.monotonic)) * BigInt(this.tscKhz) / 1_000_000n;
  }

  get chipset(): Chipset {
    if (this.#mode === "shared") this.#chipset = this.#makeChipset();
    return this.#chipset;
  }

  vcpu(index = 0): VcpuChips {
    if (this.#mode === "shared") {
      this.#chipset = this.#makeChipset();
      this.#chips = this.#makeVcpus();
    }
    return this.#chips[index];
  }

  #makeChipset(): Chipset {
    return new Chipset({
      buffer: this.buffer,
      vcpus: this.#vcpus,
      pic: this.#pic,
      clock: {
        monotonicNs: () => this.monotonic,
        realtimeNs: () => this.realtime,
        tsc: () => this.tsc,
        tscKhz: this.tscKhz,
      },
      kick: (vcpu) => this.kicks.push(vcpu),
    });
  }

  #makeVcpus(): VcpuChips[] {
    return this.tscOffsets.map((_, index) =>
      new VcpuChips(this.#chipset, {
        index,
        tsc: {
          read: (into) => {
            const tsc = this.tsc + this.tscOffsets[index];
            into[0] = Number(tsc & 0xffff_ffffn);
            into[1] = Number(tsc >> 32n);
          },
          offset: () => this.tscOffsets[index],
        },
        memory: {
          read: (gpa) => this.memory.get(gpa) ?? 0,
          write: (gpa, value) => this.memory.set(gpa, value),
        },
        features: { x2apic: true, tscDeadline: this.#tscDeadline, physicalBits: 40 },
      })
    );
  }

  /** Lets time go by in one step, and the timers run out. */
  pass(ns: number): void {
    this.monotonic += ns;
    this.realtime += BigInt(ns);
    for (let index = 0; index < this.#vcpus; index++) this.vcpu(index).advance(this.monotonic);
  }

  out(port: number, value: number): void {
    const { range, base } = find("pio", port);
    new ChipPorts(this.chipset).write(range, port - base, 1, value);
  }

  in(port: number): number {
    const { range, base } = find("pio", port);
    return new ChipPorts(this.chipset).read(range, port - base, 1);
  }

  /** Writes a word as a vCPU's instruction does. */
  write(address: number, value: number, vcpu = 0): void {
    if (this.vcpu(vcpu).writeMemory(address, 4, value)) return;
    const { range, base } = find("mmio", address);
    new ChipPorts(this.chipset).write(range, address - base, 4, value);
  }

  /** Reads a word as a vCPU's instruction does. */
  read(address: number, vcpu = 0): number {
    const value = this.vcpu(vcpu).readMemory(address, 4);
    if (value >= 0) return value;
    const { range, base } = find("mmio", address);
    return new ChipPorts(this.chipset).read(range, address - base, 4);
  }

  /** Writes an IOAPIC register. */
  ioapic(register: number, value: number): void {
    this.write(IOAPIC, register);
    this.write(IOAPIC + 0x10, value);
  }

  /** Reads an IOAPIC register. */
  readIoapic(register: number): number {
    this.write(IOAPIC, register);
    return this.read(IOAPIC + 0x10);
  }

  /** Programs an IOAPIC pin. */
  redirect(pin: number, low: number, destination = 0): void {
    this.ioapic(0x11 + 2 * pin, destination * 2 ** 24);
    this.ioapic(0x10 + 2 * pin, low);
  }

  /** Reads an MSR of the chips; undefined is a general protection fault. */
  rdmsr(index: number, vcpu = 0): bigint | undefined {
    const chips = this.vcpu(vcpu);
    if (!chips.readMsr(index)) return undefined;
    return BigInt(chips.msrHigh) << 32n | BigInt(chips.msrLow);
  }

  /** Writes an MSR of the chips; false is a general protection fault. */
  wrmsr(index: number, value: bigint, vcpu = 0): boolean {
    return this.vcpu(vcpu).writeMsr(index, Number(value & 0xffff_ffffn), Number(value >> 32n));
  }

  /** Sets a vCPU's LAPIC up to take interrupts, but none of the 8259A. */
  enable(vcpu = 0): void {
    this.write(LAPIC + 0xf0, 0x1ff, vcpu);
    this.write(LAPIC + 0x350, 0x1_0000, vcpu);
  }

  /** Ends the interrupt in service. */
  eoi(vcpu = 0): void {
    this.write(LAPIC + 0xb0, 0, vcpu);
  }

  /** All vectors that a vCPU takes now, without ending them. */
  take(vcpu = 0): number[] {
    const vectors = [];
    for (let vector; (vector = this.vcpu(vcpu).acknowledge()) >= 0;) vectors.push(vector);
    return vectors;
  }
}

function find(space: "pio" | "mmio", address: number): AddressRange & { range: number } {
  const found = chipRanges(true).find((range) =>
    range.space === space && address >= range.base && address < range.base + range.size
  );
  if (!found) throw new Error(`No chip is at ${space} address 0x${address.toString(16)}`);
  return found;
}

/** Registers a test that runs in both modes. */
export function chipsTest(name: string, run: (chips: TestChips) => void, vcpus = 1): void {
  for (const mode of ["kept", "shared"] as const) {
    Deno.test(`${name} (${mode})`, () => run(new TestChips(vcpus, mode)));
  }
}
