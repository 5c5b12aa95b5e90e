/**
 * Guest RAM in the stream, for the modes that copy it: `ram` sections of up to 1 MiB. Chunks that
 * hold only zeros are left out, because a new machine's RAM is zero.
 *
 * ```text
 * section name "ram", id = the memory region's name, data = u64 offset in the region, bytes
 * ```
 *
 * @module
 */
import type { GuestMemory, MemoryRegion } from "../vmm/guest_memory.ts";
import { type Section, StateError } from "./stream.ts";

/** The name of RAM sections. */
export const RAM_SECTION = "ram";
const CHUNK = 1 << 20;
const PAGE = 4096;
const HEAD = 8;

/** What was written, for `query-migrate`. */
export interface RamStatistics {
  /** Bytes of RAM looked at. */
  total: number;
  /** Pages that held only zeros. */
  duplicate: number;
  /** Pages written. */
  normal: number;
}

/** Gives the RAM as sections; no vCPU runs. */
export function* ramSections(memory: GuestMemory, statistics: RamStatistics): Generator<Section> {
  for (const region of memory.regions) {
    statistics.total += region.size;
    for (let offset = 0; offset < region.size; offset += CHUNK) {
      const length = Math.min(CHUNK, region.size - offset);
      const pages = Math.ceil(length / PAGE);
      if (region.mapping.isZero(region.offset + offset, length)) {
        statistics.duplicate += pages;
        continue;
      }
      statistics.normal += pages;
      const data = new Uint8Array(HEAD + length);
      new DataView(data.buffer).setBigUint64(0, BigInt(offset), true);
      data.set(region.mapping.read(region.offset + offset, length), HEAD);
      yield { name: RAM_SECTION, id: region.name, version: 1, data };
    }
  }
}

/** Puts one RAM section into memory. @throws {StateError} if it does not belong there */
export function loadRam(memory: GuestMemory, section: Section): void {
  const region = memory.regions.find((region) => region.name === section.id);
  if (!region) throw new StateError(`Unknown ramblock "${section.id}", cannot accept migration`);
  if (section.data.length < HEAD) {
    throw new StateError(`RAM section of '${section.id}' is too short`);
  }
  const offset = Number(new DataView(section.data.buffer).getBigUint64(0, true));
  const bytes = section.data.subarray(HEAD);
  if (!fits(region, offset, bytes.length)) {
    throw new StateError(
      `RAM section of '${section.id}' at ${offset} is outside a region of ${region.size} bytes`,
    );
  }
  region.mapping.write(region.offset + offset, bytes);
}

function fits(region: MemoryRegion, offset: number, length: number): boolean {
  return Number.isSafeInteger(offset) && offset >= 0 && offset + length <= region.size;
}
