/**
 * Guest RAM as devices reach it, from any thread.
 *
 * @module
 */
import type { DeviceMemory, MemoryRange } from "../../devices/device.ts";
import { OsError } from "../../ffi/errno.ts";
import type { IoVector } from "../../ffi/iovec.ts";
import { MappedRegion, MemoryLost, viewMemory } from "../../ffi/memory.ts";

const PAGE = 4096;

/** Where a range of guest RAM is mapped: plain data. */
export interface RamRange extends MemoryRange {
  /** Whose it is, for messages. */
  readonly name: string;
  /** Whether the guest cannot write it: devices do not for it either. */
  readonly readonly: boolean;
  /** How its pages can be given back to the host; undefined if they are kept. */
  readonly pages?: "shared" | "anonymous";
}

/** Guest RAM on this thread. */
export class GuestRam implements DeviceMemory {
  readonly changed: () => void;
  readonly ranges: readonly MemoryRange[];
  readonly #ranges: readonly {
    readonly gpa: number;
    readonly mapping: MappedRegion;
    readonly readonly: boolean;
    readonly pages: RamRange["pages"];
  }[];

  /**
   * @param ranges where it is; the mappings outlive the devices
   * @param changed told after devices have written it
   */
  constructor(ranges: readonly RamRange[], changed: () => void = () => {}) {
    this.changed = changed;
    this.ranges = ranges.filter(({ readonly }) => !readonly)
      .map(({ gpa, size, address, file }) => ({ gpa, size, address, ...file && { file } }));
    this.#ranges = ranges.map(({ gpa, size, address, name, readonly, pages }) => {
      const mapping = new MappedRegion(address, size);
      mapping.name = name;
      return { gpa, mapping, readonly, pages };
    });
  }

  read(gpa: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    const range = this.#find(gpa, length);
    return range?.mapping.read(gpa - range.gpa, length);
  }

  write(gpa: number, data: Uint8Array<ArrayBuffer>): boolean {
    const range = this.#find(gpa, data.length);
    range?.mapping.write(gpa - range.gpa, data);
    if (range) this.changed();
    return range !== undefined;
  }

  zero(gpa: number, length: number): boolean {
    const range = this.#find(gpa, length);
    range?.mapping.zero(gpa - range.gpa, length);
    if (range) this.changed();
    return range !== undefined;
  }

  collect(vector: IoVector, gpa: number, length: number): "added" | "outside" | "full" {
    const range = this.#find(gpa, length);
    if (!range || range.readonly) return "outside";
    return vector.push(range.mapping.address + gpa - range.gpa, length) ? "added" : "full";
  }

  view(gpa: number, length: number): ArrayBuffer | undefined {
    const range = this.#find(gpa, length);
    if (!range || range.readonly || length === 0) return undefined;
    const offset = gpa - range.gpa;
    const from = offset - offset % PAGE;
    try {
      range.mapping.populate(from, Math.ceil((offset + length - from) / PAGE) * PAGE);
    } catch (error) {
      if (error instanceof OsError || error instanceof MemoryLost) return undefined;
      throw error;
    }
    return viewMemory(range.mapping.address + offset, length).buffer;
  }

  giveBack(vector: IoVector): void {
    for (const [address, length] of vector.ranges()) {
      for (const { mapping, pages } of this.#ranges) {
        if (!pages) continue;
        // A piece that is in two ranges, which lie one after the other on the host, is given back in two.
        const from = Math.ceil(Math.max(address - mapping.address, 0) / PAGE) * PAGE;
        const end = Math.min(address + length - mapping.address, mapping.size);
        const size = end - end % PAGE - from;
        if (size > 0) mapping.giveBack(from, size, pages === "shared");
      }
    }
    this.changed();
  }

  #find(gpa: number, length: number) {
    for (const range of this.#ranges) {
      if (gpa >= range.gpa && gpa + length <= range.gpa + range.mapping.size) return range;
    }
    return undefined;
  }
}
