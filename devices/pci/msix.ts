/**
 * MSI-X: interrupts as messages, each with an address and a word that the driver has chosen
 * (PCI Local Bus Specification 3.0, 6.8.2).
 *
 * @module
 */
import { array, type ArrayView, type Field, type Struct, struct, u32 } from "../../ffi/struct.ts";
import type { View } from "../../ffi/struct.ts";
import type { CapabilityDescription, ConfigSpace } from "./config_space.ts";

/** The most that a function can have. */
export const MAX_VECTORS = 2048;
/** What stands for no vector (virtio 1.2, 4.1.4.3). */
export const NO_VECTOR = 0xffff;

const CAPABILITY = 0x11;
/** Where the capability has its control word, and the bits of that. */
const CONTROL = 2;
const Control = { FUNCTION_MASK: 1 << 14, ENABLE: 1 << 15 } as const;
/** Bytes of a table entry; bit of its last word. */
const ENTRY = 16;
const MASKED = 1;
/** Half of the smallest memory is the table's, as QEMU has it. */
const LEAST_TABLE = 0x800;
/** Addresses that local APICs listen to (Intel SDM volume 3, 12.11.1), by their bits from 20 on. */
const APIC_PAGE = 0xfee;

const entryFields = {
  address_low: u32,
  address_high: u32,
  data: u32,
  control: u32,
};
const entry: Struct<typeof entryFields> = struct("msix-entry", entryFields);

/** The fields of the state: the table, and which messages wait behind a mask. */
export interface MsixFields {
  readonly table: Field<ArrayView<View<typeof entryFields>>>;
  readonly pending: Field<ArrayView<number>>;
  readonly [name: string]: Field<unknown>;
}

/** The state of as many vectors. */
export function msixState(vectors: number): Struct<MsixFields> {
  return struct("msix", {
    table: array(entry, vectors),
    pending: array(u32, Math.ceil(vectors / 32)),
  });
}

/** Where the pending bits are behind the table, and the bytes of memory that both take: a power of 2. */
export function msixPlaces(vectors: number): { readonly pending: number; readonly size: number } {
  const pending = Math.max(LEAST_TABLE, ENTRY * vectors);
  const end = pending + Math.max(LEAST_TABLE, 8 * Math.ceil(vectors / 64));
  return { pending, size: 2 ** Math.ceil(Math.log2(end)) };
}

/** The capability of as many vectors, in the memory of a base address register. */
export function msixCapability(vectors: number, bar: number): CapabilityDescription {
  const body = new Uint8Array(10);
  const view = new DataView(body.buffer);
  view.setUint16(0, vectors - 1, true);
  view.setUint32(2, bar, true);
  view.setUint32(6, msixPlaces(vectors).pending | bar, true);
  const writable = new Uint8Array(10);
  new DataView(writable.buffer).setUint16(0, Control.FUNCTION_MASK | Control.ENABLE, true);
  return { id: CAPABILITY, body, writable };
}

/** Sends a message. */
export type SendMessage = (address: number, data: number) => void;

/** MSI-X on one thread. Whoever calls holds the lock that its interrupts are under. */
export class Msix {
  readonly #state: View<MsixFields>;
  readonly #config: ConfigSpace;
  readonly #control: number;
  readonly #send: SendMessage;
  readonly #places: { readonly pending: number };

  /**
   * @param state table and pending bits
   * @param config the function's configuration space
   * @param capability where the capability is in it
   * @param send sends a message, if the function may
   */
  constructor(
    state: View<MsixFields>,
    config: ConfigSpace,
    capability: number,
    send: SendMessage,
  ) {
    this.#state = state;
    this.#config = config;
    this.#control = capability + CONTROL;
    this.#send = send;
    this.#places = msixPlaces(state.table.length);
  }

  /** Whether the driver takes messages in place of the line. */
  get isEnabled(): boolean {
    return (this.#config.read(this.#control, 2) & Control.ENABLE) !== 0;
  }

  /** Sends a vector's message, or notes that it waits. */
  notify(vector: number): void {
    if (vector >= this.#state.table.length) return;
    if (this.#isHeld || this.#state.table.at(vector).control & MASKED) {
      this.#setPending(vector, true);
    } else this.#sendMessage(vector);
  }

  /** Sends what has waited and waits no more: to be called when the control word may have changed. */
  flush(): void {
    if (this.#isHeld) return;
    for (let vector = 0; vector < this.#state.table.length; vector++) this.#release(vector);
  }

  /** Forgets what waits. */
  forget(): void {
    for (let i = 0; i < this.#state.pending.length; i++) this.#state.pending.put(i, 0);
  }

  /** Puts the table back to how a driver finds it: all masked. */
  reset(): void {
    this.forget();
    for (const entry of this.#state.table) {
      Object.assign(entry, { address_low: 0, address_high: 0, data: 0, control: MASKED });
    }
  }

  /** Reads the table or the pending bits, in words of 4 bytes; anything else reads as 0. */
  read(offset: number, size: number): number {
    if (size !== 4 || offset % 4 !== 0) return 0;
    const { table, pending } = this.#state;
    if (offset < ENTRY * table.length) {
      const entry = table.at(Math.floor(offset / ENTRY));
      return entry[fieldAt(offset)];
    }
    const word = (offset - this.#places.pending) / 4;
    return word >= 0 && word < pending.length ? pending.at(word) : 0;
  }

  /** Writes the table, in words of 4 bytes. */
  write(offset: number, size: number, value: number): void {
    if (size !== 4 || offset % 4 !== 0 || offset >= ENTRY * this.#state.table.length) return;
    const vector = Math.floor(offset / ENTRY);
    const field = fieldAt(offset);
    this.#state.table.at(vector)[field] = field === "control" ? value & MASKED : value;
    if (!this.#isHeld) this.#release(vector);
  }

  /** Whether nothing is sent at all now. */
  get #isHeld(): boolean {
    const control = this.#config.read(this.#control, 2);
    return (control & Control.ENABLE) === 0 || (control & Control.FUNCTION_MASK) !== 0;
  }

  #release(vector: number): void {
    if (!this.#isPending(vector) || this.#state.table.at(vector).control & MASKED) return;
    this.#setPending(vector, false);
    this.#sendMessage(vector);
  }

  /** A message to anywhere else than a local APIC is a write that nobody here waits for. */
  #sendMessage(vector: number): void {
    const { address_low: low, address_high: high, data } = this.#state.table.at(vector);
    if (high === 0 && low >>> 20 === APIC_PAGE) this.#send(low, data);
  }

  #isPending(vector: number): boolean {
    return (this.#state.pending.at(vector >>> 5) >>> (vector & 31) & 1) !== 0;
  }

  #setPending(vector: number, isPending: boolean): void {
    const bit = 1 << (vector & 31);
    const word = this.#state.pending.at(vector >>> 5);
    this.#state.pending.put(vector >>> 5, (isPending ? word | bit : word & ~bit) >>> 0);
  }
}

/** The field of a table entry at an offset. */
function fieldAt(offset: number): keyof typeof entryFields {
  const names = ["address_low", "address_high", "data", "control"] as const;
  return names[offset % ENTRY / 4];
}
