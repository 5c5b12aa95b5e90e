/**
 * Guest RAM as devices reach it, from any thread.
 *
 * @module
 */
import type { DeviceMemory } from "../../devices/device.ts";
import { MappedRegion } from "../../ffi/memory.ts";

/** Where a range of guest RAM is mapped: plain data. */
export interface RamRange {
  /** First guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** The host address of the first byte. */
  readonly address: number;
  /** Whose it is, for messages. */
  readonly name: string;
}

/** Guest RAM on this thread. */
export class GuestRam implements DeviceMemory {
  readonly #ranges: readonly { readonly gpa: number; readonly mapping: MappedRegion }[];

  /** @param ranges where it is; the mappings outlive the devices */
  constructor(ranges: readonly RamRange[]) {
    this.#ranges = ranges.map(({ gpa, size, address, name }) => {
      const mapping = new MappedRegion(address, size);
      mapping.name = name;
      return { gpa, mapping };
    });
  }

  read(gpa: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    const range = this.#find(gpa, length);
    return range?.mapping.read(gpa - range.gpa, length);
  }

  write(gpa: number, data: Uint8Array<ArrayBuffer>): boolean {
    const range = this.#find(gpa, data.length);
    range?.mapping.write(gpa - range.gpa, data);
    return range !== undefined;
  }

  zero(gpa: number, length: number): boolean {
    const range = this.#find(gpa, length);
    range?.mapping.zero(gpa - range.gpa, length);
    return range !== undefined;
  }

  #find(gpa: number, length: number) {
    return this.#ranges.find(({ gpa: start, mapping }) =>
      gpa >= start && gpa + length <= start + mapping.size
    );
  }
}
