/**
 * Guest RAM word by word, for who is no vCPU: page tables, kvmclock's page.
 *
 * @module
 */
import { MappedRegion } from "../../../ffi/memory.ts";
import type { ClockMemory } from "./chips/kvmclock.ts";
import type { SlotTable } from "./description.ts";

/** Where a guest physical address is in this process. */
interface Place {
  readonly mapping: MappedRegion;
  readonly offset: number;
}

/** The RAM behind a slot table. */
export class SlotMemory implements ClockMemory {
  readonly #slots: SlotTable;

  /** @param slots the VM's */
  constructor(slots: SlotTable) {
    this.#slots = slots;
  }

  read(gpa: number): number {
    return this.#view(gpa, 4)?.getUint32(0, true) ?? 0;
  }

  /** Reads a 64-bit word; undefined where no RAM is. */
  readWide(gpa: number): bigint | undefined {
    return this.#view(gpa, 8)?.getBigUint64(0, true);
  }

  write(gpa: number, value: number): void {
    const place = this.#find(gpa, 4);
    if (!place) return;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    place.mapping.write(place.offset, bytes);
  }

  #view(gpa: number, length: number): DataView | undefined {
    const place = this.#find(gpa, length);
    return place && new DataView(place.mapping.read(place.offset, length).buffer);
  }

  /** The mapping is its VM's: nobody closes this one. */
  #find(gpa: number, length: number): Place | undefined {
    for (const { gpa: start, size, address } of this.#slots.all()) {
      if (gpa < start || gpa + length > start + size) continue;
      return { mapping: new MappedRegion(address, size), offset: gpa - start };
    }
  }
}
