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
import { dataRanges } from "../../ffi/fd.ts";
import { type GuestMemory, type MemoryRegion, RAM_ABOVE } from "../../vmm/machine/guest_memory.ts";
import { checkVersion, describeSection, type Section, StateError } from "../stream/stream.ts";

/** Name of a section with a piece of RAM. */
export const RAM = "ram";
/** Name of a section that stands for a piece of RAM in which there are only zeros. */
export const ZERO = "ram/zero";
/** Name of the section that says whether some RAM stays where it is. */
export const CAPABILITIES = "capabilities";
const VERSION = 1;
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
  yield { name: CAPABILITIES, id: "", version: VERSION, data: Uint8Array.of(ignoreShared ? 1 : 0) };
  for (const region of memory.regions) {
    if (ignoreShared && isSharedFile(memory, region)) continue;
    statistics.total += region.size;
    const isHole = holesOf(memory, region);
    for (let offset = 0; offset < region.size; offset += CHUNK) {
      const length = Math.min(CHUNK, region.size - offset);
      const pages = Math.ceil(length / PAGE);
      if (isHole(offset, length) || region.mapping.isZero(region.offset + offset, length)) {
        statistics.duplicate += pages;
        yield { name: ZERO, id: region.name, version: VERSION, data: zeroRange(offset, length) };
        continue;
      }
      statistics.normal += pages;
      const data = new Uint8Array(HEAD + length);
      new DataView(data.buffer).setBigUint64(0, BigInt(offset), true);
      data.set(region.mapping.read(region.offset + offset, length), HEAD);
      yield { name: RAM, id: region.name, version: VERSION, data };
    }
  }
}

/**
 * Tells what of a region has no memory, as what the guest has given back: it would get some by being read.
 * Only a memfd knows for sure. It is to be asked from the region's start to its end.
 */
function holesOf(
  { ram }: GuestMemory,
  { mapping, file, size }: MemoryRegion,
): (offset: number, length: number) => boolean {
  const { qomType, hugetlb } = ram.config;
  const isMemfd = mapping === ram.mapping && qomType !== "memory-backend-file" && !hugetlb;
  if (!file || !isMemfd) return () => false;
  // A guest may have made a great many holes.
  const ranges = dataRanges(file.fd.fd, file.offset, file.offset + size);
  let data = ranges.next().value;
  return (offset, length) => {
    const start = file.offset + offset;
    while (data && data[1] <= start) data = ranges.next().value;
    return !data || data[0] >= start + length;
  };
}

function zeroRange(offset: number, length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new BigUint64Array([BigInt(offset), BigInt(length)]).buffer);
}

/** Whether a region is RAM in a file that a later VMM finds as it was. */
function isSharedFile({ ram }: GuestMemory, { mapping }: MemoryRegion): boolean {
  const { qomType, share } = ram.config;
  return mapping === ram.mapping && qomType === "memory-backend-file" && share;
}

/** A range of a region. */
interface Chunk {
  readonly region: MemoryRegion;
  readonly offset: number;
  readonly length: number;
}

/** Puts RAM that comes in a stream into memory, and sees to it that all of it comes, once. */
export class RamLoader {
  readonly #memory: GuestMemory;
  readonly #ignoreShared: boolean;
  /** Whether the stream has said that it brings RAM. */
  #announced = false;
  /** Up to where each region has come, by its name: a VM with more RAM may have more of them. */
  readonly #ends = new Map<string, number>();
  /** What is not zero any more. */
  readonly #written: Chunk[] = [];

  /**
   * @param memory where it goes
   * @param ignoreShared the capability x-ignore-shared here, which must be as it was there
   */
  constructor(memory: GuestMemory, ignoreShared: boolean) {
    this.#memory = memory;
    this.#ignoreShared = ignoreShared;
  }

  /**
   * Takes one section.
   *
   * @returns false if it is not one of RAM
   * @throws {StateError} if it does not belong there
   */
  take(section: Section): boolean {
    switch (section.name) {
      case CAPABILITIES:
        this.#begin(section);
        return true;
      case RAM:
      case ZERO:
        this.#load(section);
        return true;
      default:
        return false;
    }
  }

  /** At the stream's end. @throws {StateError} if there is RAM that did not come */
  finish(): void {
    for (const [id, end] of this.#ends) {
      const size = this.#memory.regions.find((region) => region.name === id)?.size ?? 0;
      if (end === size) continue;
      throw new StateError(`Size mismatch: ${id}: 0x${end.toString(16)} != 0x${size.toString(16)}`);
    }
    for (const region of this.#memory.regions) {
      if (this.#ends.has(region.name) || this.#isInPlace(region)) continue;
      throw new StateError(
        `RAM of '${region.name}' is missing from the stream: 0 of ${region.size} bytes came`,
      );
    }
  }

  /**
   * After a stream that was refused: makes RAM zero again, as the next stream expects to find it.
   * What a file held before is lost.
   */
  undo(): void {
    for (const { region: { mapping, offset: start }, offset, length } of this.#written) {
      mapping.zero(start + offset, length);
    }
    this.#written.length = 0;
  }

  #begin(section: Section): void {
    checkVersion(section, VERSION);
    const { id, data } = section;
    if (this.#announced || id !== "" || data.length !== 1 || data[0] > 1) {
      throw new StateError(`Section ${describeSection(section)} is not what it should be`);
    }
    checkIgnoreShared(data[0] === 1, this.#ignoreShared);
    this.#announced = true;
  }

  /** Whether a region's RAM does not come in the stream. */
  #isInPlace(region: MemoryRegion): boolean {
    const stays = this.#announced && this.#ignoreShared && isSharedFile(this.#memory, region);
    return region.inherited || stays;
  }

  #load(section: Section): void {
    checkVersion(section, VERSION);
    const chunk = this.#locate(section);
    // What another VM has more is counted, for finish() to say so: what it is comes behind its RAM.
    if (!chunk) return;
    const { region, offset, length } = chunk;
    if (section.name === ZERO) {
      if (isSharedFile(this.#memory, region)) clear(region, offset, length);
      return;
    }
    this.#written.push(chunk);
    region.mapping.write(region.offset + offset, section.data.subarray(HEAD));
  }

  /**
   * Where a section's RAM goes: behind what came before, without a gap.
   *
   * @returns undefined where this VM has none
   */
  #locate(section: Section): Chunk | undefined {
    const { name, id, data } = section;
    const region = this.#memory.regions.find((region) => region.name === id);
    if (!region && id !== RAM_ABOVE) {
      throw new StateError(
        `Unknown ramblock ${JSON.stringify(id)}, cannot accept migration`,
      );
    }
    if (!this.#announced || (region && this.#isInPlace(region))) {
      throw new StateError(`Section ${describeSection(section)} brings RAM that nobody awaits`);
    }
    if (name === ZERO ? data.length !== 2 * HEAD : data.length <= HEAD) {
      throw new StateError(`RAM section of '${id}' has ${data.length} bytes`);
    }
    const head = new DataView(data.buffer, data.byteOffset);
    const offset = Number(head.getBigUint64(0, true));
    const length = name === ZERO ? Number(head.getBigUint64(HEAD, true)) : data.length - HEAD;
    const end = this.#ends.get(id) ?? 0;
    if (offset !== end || length === 0 || !Number.isSafeInteger(offset + length)) {
      throw new StateError(
        `RAM section of '${id}' has ${length} bytes at ${offset}, expected some at ${end}`,
      );
    }
    this.#ends.set(id, offset + length);
    return region && offset + length <= region.size ? { region, offset, length } : undefined;
  }
}

function checkIgnoreShared(there: boolean, here: boolean): void {
  if (there === here) return;
  const word = (on: boolean) => on ? "on" : "off";
  throw new StateError(
    `Capability x-ignore-shared is ${word(here)}, but received capability is ${word(there)}`,
  );
}

/** RAM is zero in a new machine, unless it is in a file that was used before. */
function clear({ mapping, offset: start }: MemoryRegion, offset: number, length: number): void {
  if (length > 0 && !mapping.isZero(start + offset, length)) mapping.zero(start + offset, length);
}
