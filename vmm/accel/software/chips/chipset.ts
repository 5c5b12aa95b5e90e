/**
 * The machine's interrupt and timer chips together: lines, messages, ports, and state in and out.
 *
 * Lines are numbered as KVM's default routing has them: GSI 0 to 15 go to the 8259A pair and to the
 * IOAPIC's pin of the same number, 16 to 23 to the IOAPIC alone. Any thread that has built a chipset
 * over the same memory may use it: a mutex there keeps them apart.
 *
 * @module
 */
import { lock, unlock } from "../../../../devices/mutex.ts";
import { kvmIrqchip } from "../../../../ffi/kvm/structs.ts";
import type { View } from "../../../../ffi/struct.ts";
import { ioapicPin, ISA_IRQS } from "../../../machine/microvm.ts";
import { ApicBus, NO_SOURCE } from "./apic_bus.ts";
import { Ioapic, IOAPIC_PINS } from "./ioapic.ts";
import { Kvmclock } from "./kvmclock.ts";
import { Command, Delivery } from "./lapic_registers.ts";
import { PicPair } from "./pic.ts";
import { Pit } from "./pit.ts";
import { chipsetState } from "./state.ts";
import type { HostClock } from "./time.ts";

/** The PIT's line. */
const PIT_GSI = 0;
/** The vCPU whose thread waits for the PIT. */
const PIT_VCPU = 0;
/** KVM_IRQCHIP_IOAPIC; 0 and 1 are the master and the slave 8259A. */
const IOAPIC_CHIP = 2;
const EINVAL = 22;
/** Index of the mutex in the chipset's words. */
const LOCK = 0;

/** Bits of an MSI's address and data (Intel SDM volume 3, 12.11). */
const Msi = {
  DESTINATION_SHIFT: 12,
  REDIRECTION_HINT: 1 << 3,
  LOGICAL: 1 << 2,
  /** Of the data: vector, delivery mode and trigger mode, which the ICR has in the same places. */
  DATA: Command.VECTOR | Command.MODE | Command.LEVEL,
} as const;

/** What a chipset is made of. */
export interface ChipsetOptions {
  /** `chipsetSize(vcpus)` bytes that all threads share. */
  readonly buffer: SharedArrayBuffer;
  readonly vcpus: number;
  readonly clock: HostClock;
  /** Whether lines reach the 8259A pair; without, the IOAPIC alone has them. */
  readonly pic: boolean;
  /** Makes a vCPU look at its LAPIC before its next instruction; from any thread, its own too. */
  kick(vcpu: number): void;
}

/** The chips of a machine as one thread uses them. */
export class Chipset {
  readonly buffer: SharedArrayBuffer;
  readonly hostClock: HostClock;
  /** The local APICs of all vCPUs. */
  readonly bus: ApicBus;
  /** Guest time. */
  readonly clock: Kvmclock;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #state: View<typeof chipsetState.fields>;
  readonly #picInputs: number;
  readonly #pic: PicPair;
  readonly #ioapic: Ioapic;
  readonly #pit: Pit;

  /** Builds it over memory that has been reset or will be. */
  constructor({ buffer, vcpus, clock, pic, kick }: ChipsetOptions) {
    this.buffer = buffer;
    this.hostClock = clock;
    this.#picInputs = pic ? ISA_IRQS : 0;
    this.#words = new Int32Array(buffer);
    this.#state = chipsetState.view(buffer);
    this.bus = new ApicBus(buffer, vcpus, kick);
    this.clock = new Kvmclock(buffer, vcpus, clock, kick);
    const ended = (line: number) => line === PIT_GSI && this.#pit.ended();
    const unmasked = (line: number) => line === PIT_GSI && this.#pit.forgetTicks();
    this.#pic = new PicPair(buffer, { interrupt: () => this.bus.lint0(), ended, unmasked });
    this.#ioapic = new Ioapic(buffer, {
      send: (message, destination) => this.bus.send(message, destination, NO_SOURCE) > 0,
      ended,
      unmasked,
    }, 1 << PIT_GSI);
    this.#pit = new Pit(buffer, clock, () => this.#pulse(PIT_GSI));
  }

  /** Power-on of all but the local APICs. */
  reset(): void {
    this.#locked(() => {
      this.#state.levels = 0;
      this.#pic.reset();
      this.#ioapic.reset();
      this.#pit.reset();
      this.clock.reset();
    });
  }

  /** Drives a line, GSI 0 to 23, to a level. @throws {RangeError} for another one */
  setLine(gsi: number, level: boolean): void {
    checkGsi(gsi);
    this.#locked(() => {
      const bit = 1 << gsi;
      this.#state.levels = level ? this.#state.levels | bit : this.#state.levels & ~bit;
      this.#drive(gsi, level);
    });
  }

  /** Makes an edge on a line, as an irqfd does. @throws {RangeError} for no line, GSI 0 to 23 */
  pulse(gsi: number): void {
    checkGsi(gsi);
    this.#locked(() => this.#pulse(gsi));
  }

  /**
   * Delivers a message-signaled interrupt (Intel SDM volume 3, 12.11).
   *
   * @param address low word of the address that is written
   * @param data the word that is written
   * @returns how many local APICs have accepted it
   */
  sendMsi(address: number, data: number): number {
    const mode = (data & Command.MODE) >> Command.MODE_SHIFT;
    let message = (data & Msi.DATA) | Command.ASSERT;
    if (address & Msi.LOGICAL) message |= Command.LOGICAL;
    // With the hint it goes to one of those addressed.
    if (address & Msi.REDIRECTION_HINT && mode === Delivery.FIXED) {
      message |= Delivery.LOWEST_PRIORITY << Command.MODE_SHIFT;
    }
    const destination = (address >>> Msi.DESTINATION_SHIFT) & 0xff;
    return this.bus.send(message, destination, NO_SOURCE);
  }

  /** Reads a byte of the PIC: `offset` 0 or 1 of chip 0 (master) or 1 (slave). */
  readPic(chip: number, offset: number): number {
    return this.#locked(() => this.#pic.read(chip, offset));
  }

  /** Writes a byte of the PIC: `offset` 0 or 1 of chip 0 (master) or 1 (slave). */
  writePic(chip: number, offset: number, value: number): void {
    this.#locked(() => this.#pic.write(chip, offset, value));
  }

  /** Reads the edge/level register of chip 0 or 1. */
  readElcr(chip: number): number {
    return this.#locked(() => this.#pic.readElcr(chip));
  }

  /** Writes the edge/level register of chip 0 or 1. */
  writeElcr(chip: number, value: number): void {
    this.#locked(() => this.#pic.writeElcr(chip, value));
  }

  /** Reads a byte of the PIT, `offset` 0 to 3. */
  readPit(offset: number): number {
    return this.#locked(() => this.#pit.read(offset));
  }

  /** Writes a byte of the PIT, `offset` 0 to 3. What was due comes first. */
  writePit(offset: number, value: number): void {
    this.#locked(() => {
      this.#pit.advance(this.hostClock.monotonicNs());
      const before = this.#pit.deadline;
      this.#pit.write(offset, value);
      if (this.#pit.deadline < before) this.bus.kick(PIT_VCPU);
    });
  }

  /** Reads port 0x61. */
  readPort61(): number {
    return this.#locked(() => this.#pit.readPort61());
  }

  /** Writes port 0x61. */
  writePort61(value: number): void {
    this.#locked(() => this.#pit.writePort61(value));
  }

  /** Reads 1, 2 or 4 bytes of the IOAPIC. */
  readIoapic(offset: number, size: number): number {
    return this.#locked(() => this.#ioapic.read(offset, size));
  }

  /** Writes the IOAPIC. */
  writeIoapic(offset: number, value: number): void {
    this.#locked(() => this.#ioapic.write(offset, value));
  }

  /** A local APIC has ended an interrupt that the IOAPIC wants to know of. */
  endOfInterrupt(vector: number, level: boolean): void {
    this.#locked(() => this.#ioapic.endOfInterrupt(vector, level));
  }

  /** Whether the 8259A pair asks for an interrupt. */
  get hasExtint(): boolean {
    return this.#state.pic_output !== 0;
  }

  /** Acknowledges the 8259A pair's interrupt; its vector, or -1 if another vCPU has been faster. */
  acknowledgeExtint(): number {
    return this.#locked(() => this.hasExtint ? this.#pic.acknowledge() : -1);
  }

  /** When the PIT interrupts next, nanoseconds of CLOCK_MONOTONIC; Infinity for never. */
  get deadline(): number {
    return this.#locked(() => this.#pit.deadline);
  }

  /** Brings the PIT up to `now`, nanoseconds of CLOCK_MONOTONIC. */
  advance(now: number): void {
    this.#locked(() => this.#pit.advance(now));
  }

  /**
   * KVM_GET_IRQCHIP: fills the chip that struct kvm_irqchip's `chip_id` says.
   *
   * @returns 0, or EINVAL for another chip than the three that there are
   */
  saveIrqchip(irqchip: Uint8Array<ArrayBuffer>): number {
    const { chip_id, chip } = kvmIrqchip.view(irqchip.buffer, irqchip.byteOffset);
    if (chip_id > IOAPIC_CHIP) return EINVAL;
    this.#locked(() => {
      if (chip_id === IOAPIC_CHIP) this.#ioapic.save(chip as Uint8Array<ArrayBuffer>);
      else this.#pic.save(chip_id, chip);
    });
    return 0;
  }

  /** KVM_SET_IRQCHIP: 0, or EINVAL for another chip than the three that there are. */
  loadIrqchip(irqchip: Uint8Array<ArrayBuffer>): number {
    const { chip_id, chip } = kvmIrqchip.view(irqchip.buffer, irqchip.byteOffset);
    if (chip_id > IOAPIC_CHIP) return EINVAL;
    this.#locked(() => {
      if (chip_id === IOAPIC_CHIP) this.#ioapic.load(chip);
      else this.#pic.load(chip_id, chip);
    });
    return 0;
  }

  /** KVM_GET_PIT2: fills a struct kvm_pit_state2, after what was due has interrupted. */
  savePit(into: Uint8Array<ArrayBuffer>): void {
    this.#locked(() => {
      this.#pit.advance(this.hostClock.monotonicNs());
      this.#pit.save(into);
    });
  }

  /** KVM_SET_PIT2. */
  loadPit(from: Uint8Array<ArrayBuffer>): void {
    this.#locked(() => this.#pit.load(from));
    this.bus.kick(PIT_VCPU);
  }

  /** The PIT's line goes up and down; a device that holds it keeps it up. */
  #pulse(gsi: number): void {
    this.#drive(gsi, true);
    this.#drive(gsi, ((this.#state.levels >>> gsi) & 1) !== 0);
  }

  #drive(gsi: number, level: boolean): void {
    if (gsi < this.#picInputs) this.#pic.setInput(gsi, level);
    this.#ioapic.setInput(ioapicPin(gsi), level);
  }

  #locked<T>(action: () => T): T {
    lock(this.#words, LOCK);
    try {
      return action();
    } finally {
      unlock(this.#words, LOCK);
    }
  }
}

function checkGsi(gsi: number): void {
  if (!Number.isInteger(gsi) || gsi < 0 || gsi >= IOAPIC_PINS) {
    throw new RangeError(`There is no interrupt line ${gsi}, only 0 to ${IOAPIC_PINS - 1}`);
  }
}
