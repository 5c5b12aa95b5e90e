/**
 * The I/O APIC, Intel's 82093AA, with the 24 inputs and the version that KVM's has.
 *
 * All calls come with the chipset's lock held. Messages to the local APICs have the layout of the
 * ICR's low word, which a redirection entry's low word shares (Intel SDM volume 3, 12.6.1).
 *
 * @module
 */
import { kvmIoapicState } from "../../../../ffi/kvm/structs.ts";
import type { View } from "../../../../ffi/struct.ts";
import { IOAPIC } from "../../../machine/microvm.ts";
import { chipsetState } from "./state.ts";

/** Number of inputs. */
export const IOAPIC_PINS = 24;
/** How many bytes of its place the registers take. */
export const IOAPIC_SIZE = 0x100;

/** 82093AA data sheet, 3.1: the memory-mapped registers. */
const Register = { SELECT: 0x00, WINDOW: 0x10 } as const;
/** 3.2: the indirect ones. */
const Index = { ID: 0, VERSION: 1, ARBITRATION: 2, REDIRECTION: 0x10 } as const;
/** Maximum redirection entry and version; without an EOI register. */
const VERSION = (IOAPIC_PINS - 1) << 16 | 0x11;
/** 3.2.4: bits of a redirection entry's low word. */
const Entry = {
  VECTOR: 0xff,
  /** Vector, delivery mode and destination mode. */
  MESSAGE: 0xfff,
  STATUS: 1 << 12,
  REMOTE_IRR: 1 << 14,
  LEVEL: 1 << 15,
  MASK: 1 << 16,
} as const;
/** What software cannot write. */
const READ_ONLY = Entry.STATUS | Entry.REMOTE_IRR;
/** Bit 14 of the ICR: assert. */
const ASSERT = 1 << 14;

/** What the IOAPIC tells its surroundings. */
export interface IoapicLines {
  /**
   * Sends an interrupt to the local APICs.
   *
   * @param message laid out like the ICR's low word
   * @param destination 8 bits
   * @returns whether one has accepted it
   */
  send(message: number, destination: number): boolean;
  /** An interrupt of input `pin` has been ended. */
  ended(pin: number): void;
  /** Input `pin` is no longer masked. */
  unmasked(pin: number): void;
}

/** The IOAPIC over shared state. */
export class Ioapic {
  readonly #state: View<typeof kvmIoapicState.fields>;
  readonly #chipset: View<typeof chipsetState.fields>;
  readonly #bytes: Uint8Array;
  /** The redirection table: low and high words by turns. */
  readonly #table: Uint32Array;
  readonly #eoiVectors: Int32Array;
  readonly #lines: IoapicLines;
  readonly #watched: number;

  /**
   * @param buffer where a {@linkcode chipsetState} begins
   * @param watched bit mask of the inputs whose every end `lines.ended` is told, by edge too
   */
  constructor(buffer: ArrayBufferLike, lines: IoapicLines, watched = 0) {
    const offset = chipsetState.offsets.ioapic;
    this.#chipset = chipsetState.view(buffer);
    this.#state = kvmIoapicState.view(buffer, offset);
    this.#bytes = new Uint8Array(buffer, offset, kvmIoapicState.size);
    this.#table = new Uint32Array(
      buffer,
      offset + kvmIoapicState.offsets.redirtbl,
      2 * IOAPIC_PINS,
    );
    this.#eoiVectors = new Int32Array(buffer, chipsetState.offsets.eoi_vectors, 8);
    this.#lines = lines;
    this.#watched = watched;
  }

  /** Power-on: all inputs masked. */
  reset(): void {
    this.#bytes.fill(0);
    this.#state.base_address = BigInt(IOAPIC.base);
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.#table[2 * pin] = Entry.MASK;
    this.#chipset.irr_delivered = 0;
    this.#findEoiVectors();
  }

  /** Copies the state as KVM_GET_IRQCHIP does: without edges that have been sent. */
  save(into: Uint8Array<ArrayBuffer>): void {
    into.set(this.#bytes);
    const copy = kvmIoapicState.view(into.buffer, into.byteOffset);
    copy.irr &= ~this.#chipset.irr_delivered;
  }

  /** Takes a state over as KVM_SET_IRQCHIP does: what is requested is sent, if it may be. */
  load(from: Uint8Array): void {
    this.#bytes.set(from.subarray(0, kvmIoapicState.size));
    const requested = this.#state.irr;
    this.#state.irr = 0;
    this.#chipset.irr_delivered = 0;
    this.#findEoiVectors();
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if ((requested >>> pin) & 1) this.setInput(pin, true);
    }
  }

  /** Drives input `pin`. */
  setInput(pin: number, level: boolean): void {
    const mask = 1 << pin;
    const before = this.#state.irr;
    if (!level) {
      this.#state.irr = before & ~mask;
      return;
    }
    this.#state.irr = before | mask;
    if ((this.#table[2 * pin] & Entry.LEVEL) === 0) {
      this.#chipset.irr_delivered &= ~mask;
      if (before & mask) return;
    }
    this.#service(pin);
  }

  /** Reads 1, 2 or 4 bytes at `offset` of the registers. */
  read(offset: number, size: number): number {
    const value = offset === Register.SELECT
      ? this.#state.ioregsel
      : offset === Register.WINDOW
      ? this.#readIndirect(this.#state.ioregsel)
      : 0;
    return size === 4 ? value : value & (size === 1 ? 0xff : 0xffff);
  }

  /** Writes 1, 2 or 4 bytes at `offset` of the registers. */
  write(offset: number, value: number): void {
    if (offset === Register.SELECT) this.#state.ioregsel = value & 0xff;
    else if (offset === Register.WINDOW) this.#writeIndirect(this.#state.ioregsel, value);
  }

  /**
   * A local APIC has ended an interrupt of this vector.
   *
   * @param level whether it was level-triggered (its TMR bit)
   */
  endOfInterrupt(vector: number, level: boolean): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      if ((this.#table[2 * pin] & Entry.VECTOR) === vector) this.#endOf(pin, level);
    }
  }

  #endOf(pin: number, level: boolean): void {
    if (level) this.#table[2 * pin] &= ~Entry.REMOTE_IRR;
    this.#lines.ended(pin);
    if (!level) return;
    // Still asserted: the interrupt comes again.
    const repeats = (this.#table[2 * pin] & Entry.LEVEL) !== 0 && (this.#state.irr >>> pin) & 1;
    if (repeats) this.#service(pin);
  }

  #readIndirect(index: number): number {
    switch (index) {
      case Index.ID:
      case Index.ARBITRATION:
        return (this.#state.id & 0xf) << 24;
      case Index.VERSION:
        return VERSION;
    }
    return this.#table[index - Index.REDIRECTION] ?? 0xffff_ffff;
  }

  #writeIndirect(index: number, value: number): void {
    if (index === Index.ID) this.#state.id = (value >>> 24) & 0xf;
    const word = index - Index.REDIRECTION;
    if (word < 0 || word >= this.#table.length) return;
    if (word & 1) this.#table[word] = value;
    else this.#writeLow(word >> 1, value);
    this.#findEoiVectors();
    const pin = word >> 1;
    if ((this.#table[2 * pin] & Entry.LEVEL) && (this.#state.irr >>> pin) & 1) this.#service(pin);
  }

  #writeLow(pin: number, value: number): void {
    const before = this.#table[2 * pin];
    let entry = (value & ~READ_ONLY) | (before & READ_ONLY);
    // Software clears a stuck remote IRR by making the input edge-triggered for a moment.
    if ((entry & Entry.LEVEL) === 0) entry &= ~Entry.REMOTE_IRR;
    this.#table[2 * pin] = entry;
    if (before & ~entry & Entry.MASK) this.#lines.unmasked(pin);
  }

  /** Sends input `pin`'s interrupt, unless it is masked or not yet ended. */
  #service(pin: number): void {
    const entry = this.#table[2 * pin];
    const level = entry & Entry.LEVEL;
    if (entry & Entry.MASK || (level && entry & Entry.REMOTE_IRR)) return;
    if (!level) this.#chipset.irr_delivered |= 1 << pin;
    const destination = this.#table[2 * pin + 1] >>> 24;
    const sent = this.#lines.send((entry & Entry.MESSAGE) | level | ASSERT, destination);
    if (sent && level) this.#table[2 * pin] |= Entry.REMOTE_IRR;
  }

  /** Notes for the local APICs, of which vectors they have to report the end. */
  #findEoiVectors(): void {
    const vectors = new Int32Array(8);
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.#table[2 * pin];
      if ((entry & Entry.LEVEL) === 0 && ((this.#watched >>> pin) & 1) === 0) continue;
      const vector = entry & Entry.VECTOR;
      vectors[vector >> 5] |= 1 << (vector & 31);
    }
    for (let i = 0; i < 8; i++) Atomics.store(this.#eoiVectors, i, vectors[i]);
  }
}
