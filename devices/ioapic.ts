/**
 * `ioapic`: an I/O APIC of its own (Intel's 82093AA) beside the accelerator's, with the inputs from GSI
 * 24 on. What it sends are messages to the local APICs, which no accelerator treats in a way of its own.
 *
 * Local APICs do not tell it of the end of an interrupt (KVM does for its own I/O APIC only), so every
 * entry works by edge, whatever its trigger mode, and ACPI tables say so. A device that sets its
 * input while it is set already has something new to tell: that is an edge as well, so that nothing is
 * lost where a driver acknowledges a part of what a level-triggered input would repeat.
 *
 * @module
 */
import { array, struct, u32, type View } from "../ffi/struct.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "./device.ts";

/** Number of inputs. */
export const IOAPIC2_PINS = 24;

/** Data sheet, 3.1: the memory-mapped registers. */
const Register = { SELECT: 0x00, WINDOW: 0x10 } as const;
/** 3.2: the indirect ones. */
const Index = { ID: 0, VERSION: 1, ARBITRATION: 2, REDIRECTION: 0x10 } as const;
/** Maximum redirection entry and version, those of KVM's. */
const VERSION = (IOAPIC2_PINS - 1) << 16 | 0x11;
/** 3.2.4: bits of a redirection entry's low word. */
const Entry = {
  VECTOR: 0xff,
  DELIVERY_MODE: 7 << 8,
  LOGICAL: 1 << 11,
  STATUS: 1 << 12,
  REMOTE_IRR: 1 << 14,
  MASK: 1 << 16,
} as const;
/** What software cannot write. */
const READ_ONLY = Entry.STATUS | Entry.REMOTE_IRR;

/** Addresses to which messages are written (Intel SDM volume 3, 12.11.1). */
const MSI_ADDRESS = 0xfee0_0000;
const MSI_LOGICAL = 1 << 2;
const MSI_DESTINATION_SHIFT = 12;

const state = struct("ioapic", {
  id: u32,
  select: u32,
  /** Inputs that were set and whose messages have not been sent. */
  pending: u32,
  /**
   * The redirection table, low and high words by turns, with the mask bits inverted: all zeros is
   * power-on, when every input is masked.
   */
  table: array(u32, 2 * IOAPIC2_PINS),
});

class Ioapic implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    this.#state = view;
    this.#context = context;
  }

  read(_range: number, offset: number, size: number): number {
    const value = offset === Register.SELECT
      ? this.#state.select
      : offset === Register.WINDOW
      ? this.#readIndirect(this.#state.select)
      : 0;
    return size >= 4 ? value : value & (size === 1 ? 0xff : 0xffff);
  }

  write(_range: number, offset: number, _size: number, value: number): void {
    if (offset === Register.SELECT) this.#state.select = value & 0xff;
    else if (offset === Register.WINDOW) this.#writeIndirect(this.#state.select, value);
  }

  reset(): void {
    const { table } = this.#state;
    this.#state.id = 0;
    this.#state.select = 0;
    this.#state.pending = 0;
    for (let word = 0; word < 2 * IOAPIC2_PINS; word++) table.put(word, 0);
  }

  setInput(pin: number, level: boolean): void {
    // What waits behind a mask waits on: an edge is not taken back.
    if (!level || pin >= IOAPIC2_PINS) return;
    this.#state.pending |= 1 << pin;
    this.#send(pin);
  }

  restored(): void {
    if (this.#state.pending === 0) return;
    for (let pin = 0; pin < IOAPIC2_PINS; pin++) this.#send(pin);
  }

  #readIndirect(index: number): number {
    switch (index) {
      case Index.ID:
      case Index.ARBITRATION:
        return ((this.#state.id & 0xf) << 24) >>> 0;
      case Index.VERSION:
        return VERSION;
    }
    const word = index - Index.REDIRECTION;
    if (word < 0 || word >= 2 * IOAPIC2_PINS) return 0xffff_ffff;
    const value = this.#state.table.at(word);
    return word & 1 ? value : this.#low(word >> 1);
  }

  #writeIndirect(index: number, value: number): void {
    if (index === Index.ID) this.#state.id = value >>> 24 & 0xf;
    const word = index - Index.REDIRECTION;
    if (word < 0 || word >= 2 * IOAPIC2_PINS) return;
    this.#state.table.put(word, (word & 1 ? value : value & ~READ_ONLY ^ Entry.MASK) >>> 0);
    this.#send(word >> 1);
  }

  #low(pin: number): number {
    return (this.#state.table.at(2 * pin) ^ Entry.MASK) >>> 0;
  }

  /** Sends the message of an input, if it waits and is not masked. */
  #send(pin: number): void {
    const low = this.#low(pin);
    const bit = 1 << pin;
    if ((this.#state.pending & bit) === 0 || low & Entry.MASK) return;
    this.#state.pending = (this.#state.pending & ~bit) >>> 0;
    const destination = this.#state.table.at(2 * pin + 1) >>> 24;
    const address = MSI_ADDRESS + (destination << MSI_DESTINATION_SHIFT) +
      (low & Entry.LOGICAL ? MSI_LOGICAL : 0);
    this.#context.sendMsi(address, low & (Entry.VECTOR | Entry.DELIVERY_MODE));
  }
}

/** Asked in a pause, where what an array's methods are made of costs more than the numbers. */
function isEmpty(table: View<typeof state.fields>["table"]): boolean {
  for (let word = 0; word < 2 * IOAPIC2_PINS; word++) if (table.at(word) !== 0) return false;
  return true;
}

/** The `ioapic` device type. */
export const ioapic: DeviceType = defineDevice({
  name: "ioapic",
  help: "second I/O APIC, with 24 more interrupts",
  user: false,
  bus: "main-system-bus",
  properties: {
    base: { type: "uint32", default: 0xfec1_0000, help: "address of its registers" },
  },
  version: 1,
  state,
  // A guest that has never touched it goes on in VMMs that have none.
  needed: ({ id, pending, table }) => id !== 0 || pending !== 0 || !isEmpty(table),
  ranges: (properties) => [
    { space: "mmio", base: Number(properties.base), size: 0x1000, name: "ioapic" },
  ],
  irqs: () => [],
  create: (view, context) => new Ioapic(view, context),
});
