/**
 * Guest RAM in the stream, for the modes that copy it: `ram` sections of up to 1 MiB, after a
 * `capabilities` section that says whether some of it stays where it is.
 *
 * ```text
 * section name "capabilities", data = u8 1 if x-ignore-shared is on
 * section name "ram", id = the memory region's name, data = u64 offset in the region, bytes
 * section name "ram/zero", id = the same, data = u64 offset, u64 length of a chunk of zeros
 * ```
 *
 * @module
 */
import type { GuestMemory, MemoryRegion } from "../vmm/guest_memory.ts";
import { type Section, StateError } from "./stream.ts";

/** Name of a section with a piece of RAM. */
export const RAM = "ram";
/** Name of a section that stands for a piece of RAM in which there are only zeros. */
export const ZERO = "ram/zero";
/** Name of the section that says whether some RAM stays where it is. */
export const CAPABILITIES = "capabilities";
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

/**
 * Gives the RAM as sections; no vCPU runs.
 *
 * @param ignoreShared the capability x-ignore-shared: leave out what outlives the VMM in a file
 */
export function* ramSections(
  memory: GuestMemory,
  statistics: RamStatistics,
  ignoreShared: boolean,
): Generator<Section> {
  yield { name: CAPABILITIES, id: "", version: 1, data: Uint8Array.of(ignoreShared ? 1 : 0) };
  for (const region of memory.regions) {
    if (ignoreShared && isSharedFile(memory, region)) continue;
    statistics.total += region.size;
    for (let offset = 0; offset < region.size; offset += CHUNK) {
      const length = Math.min(CHUNK, region.size - offset);
      const pages = Math.ceil(length / PAGE);
      if (region.mapping.isZero(region.offset + offset, length)) {
        statistics.duplicate += pages;
        yield { name: ZERO, id: region.name, version: 1, data: zeroRange(offset, length) };
        continue;
      }
      statistics.normal += pages;
      const data = new Uint8Array(HEAD + length);
      new DataView(data.buffer).setBigUint64(0, BigInt(offset), true);
      data.set(region.mapping.read(region.offset + offset, length), HEAD);
      yield { name: RAM, id: region.name, version: 1, data };
    }
  }
}

function zeroRange(offset: number, length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigUint64Array([BigInt(offset), BigInt(length)]).buffer);
}

/** Whether a region is RAM in a file that a later VMM finds as it was. */
function isSharedFile({ ram }: GuestMemory, { mapping }: MemoryRegion): boolean {
  const { qomType, share } = ram.config;
  return mapping === ram.mapping && qomType === "memory-backend-file" && share;
}

/**
 * Puts one RAM section into memory.
 *
 * @param ignoreShared the capability x-ignore-shared here, which must be as it was there
 * @returns false if it is another section
 * @throws {StateError} if it does not belong there
 */
export function loadRam(memory: GuestMemory, section: Section, ignoreShared: boolean): boolean {
  switch (section.name) {
    case CAPABILITIES:
      checkIgnoreShared(section, ignoreShared);
      return true;
    case RAM:
    case ZERO:
      loadChunk(memory, section);
      return true;
    default:
      return false;
  }
}

function checkIgnoreShared({ data }: Section, here: boolean): void {
  const there = data[0] === 1;
  if (there === here) return;
  const word = (on: boolean) => on ? "on" : "off";
  throw new StateError(
    `Capability x-ignore-shared is ${word(here)}, but received capability is ${word(there)}`,
  );
}

function loadChunk(memory: GuestMemory, section: Section): void {
  const region = memory.regions.find((region) => region.name === section.id);
  if (!region) throw new StateError(`Unknown ramblock "${section.id}", cannot accept migration`);
  if (section.data.length < HEAD) {
    throw new StateError(`RAM section of '${section.id}' is too short`);
  }
  const head = new DataView(section.data.buffer, section.data.byteOffset);
  const offset = Number(head.getBigUint64(0, true));
  const bytes = section.data.subarray(HEAD);
  const isZero = section.name === ZERO && bytes.length === HEAD;
  const length = isZero ? Number(head.getBigUint64(HEAD, true)) : bytes.length;
  if (!fits(region, offset, length)) {
    throw new StateError(
      `RAM section of '${section.id}' at ${offset} is outside a region of ${region.size} bytes`,
    );
  }
  if (!isZero) region.mapping.write(region.offset + offset, bytes);
  else if (isSharedFile(memory, region)) clear(region, offset, length);
}

/** RAM is zero in a new machine, unless it is in a file that was used before. */
function clear({ mapping, offset: start }: MemoryRegion, offset: number, length: number): void {
  if (length > 0 && !mapping.isZero(start + offset, length)) mapping.zero(start + offset, length);
}

function fits(region: MemoryRegion, offset: number, length: number): boolean {
  return Number.isSafeInteger(offset) && offset + length <= region.size;
}
