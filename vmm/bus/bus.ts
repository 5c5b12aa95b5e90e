/**
 * Address decoding: from a port or guest physical address to the device that claims it.
 *
 * @module
 */
import type { AddressRange, Device, RangeDeclaration } from "../../devices/device.ts";
import { lock, unlock } from "../../devices/mutex.ts";
import { RangeBases } from "./bases.ts";

/** A range of a device, which may be one that moves. */
export interface PlacedRange extends RangeDeclaration {
  /** The slot of its base in {@linkcode RangeBases}, if it moves. */
  readonly slot?: number;
}

/** A device's claim on a range of addresses. */
export interface Claim extends PlacedRange {
  readonly device: Device;
  /** The range's number among the device's ranges. */
  readonly range: number;
  /** The device's mutex: an index into the shared mutex words. */
  readonly mutex: number;
}

const PORTS = 0x1_0000;

/** Every bit of an access of `size` bytes: what nobody answers reads as. */
export function allOnes(size: number): number {
  return size === 1 ? 0xff : size === 2 ? 0xffff : 0xffff_ffff;
}

/** Throws when two ranges share an address. */
export function checkOverlap(ranges: readonly AddressRange[]): void {
  const sorted = ranges.toSorted((a, b) =>
    a.space === b.space ? a.base - b.base : a.space < b.space ? -1 : 1
  );
  sorted.forEach((range, i) => {
    const before = sorted[i - 1];
    if (before?.space === range.space && before.base + before.size > range.base) {
      throw new Error(
        `Device range '${range.name}' at 0x${range.base.toString(16)} overlaps '${before.name}'` +
          ` at 0x${before.base.toString(16)}`,
      );
    }
  });
}

/**
 * The ranges that decode addresses, each with its base: those that do not move, and of those that do
 * every one that fits into its space and overlaps none before it.
 */
export function placeRanges<R extends PlacedRange>(
  ranges: readonly R[],
  bases: RangeBases,
): (R & AddressRange)[] {
  const placed: (R & AddressRange)[] = [];
  for (const range of ranges) if (hasBase(range)) placed.push(range);
  for (const range of ranges) {
    const base = range.slot === undefined ? undefined : bases.get(range.slot);
    if (base === undefined) continue;
    const moved = { ...range, base };
    if (fits(moved) && !placed.some((other) => overlap(moved, other))) placed.push(moved);
  }
  return placed;
}

function hasBase<R extends RangeDeclaration>(range: R): range is R & AddressRange {
  return range.base !== undefined;
}

function fits({ space, base, size }: AddressRange): boolean {
  const end = base + size;
  return base >= 0 && (space === "pio" ? end <= PORTS : Number.isSafeInteger(end));
}

function overlap(a: AddressRange, b: AddressRange): boolean {
  return a.space === b.space && a.base < b.base + b.size && b.base < a.base + a.size;
}

/** One thread's view of the port and memory space. */
export class Bus {
  readonly #mutexes: Int32Array<SharedArrayBuffer>;
  #claims: readonly Claim[];
  readonly #bases: RangeBases;
  /** Of the bases that the tables were made for. */
  #generation: number;
  /** Claim number + 1 by port; 0 where nobody answers. */
  readonly #ports = new Uint16Array(PORTS);
  #pio: (Claim & AddressRange)[] = [];
  /** By address. */
  #mmio: (Claim & AddressRange)[] = [];
  /** Their bases. */
  #starts = new Float64Array();

  /**
   * @param claims the claims; those with a base do not overlap
   * @param mutexes the devices' mutex words
   * @param bases where the others are
   */
  constructor(
    claims: readonly Claim[],
    mutexes: Int32Array<SharedArrayBuffer>,
    bases: RangeBases = new RangeBases(RangeBases.allocate(0)),
  ) {
    this.#mutexes = mutexes;
    this.#claims = claims;
    this.#bases = bases;
    this.#generation = bases.generation;
    this.#place();
  }

  /** Takes other claims: a device has come or gone. */
  claim(claims: readonly Claim[]): void {
    this.#claims = claims;
    this.#place();
  }

  /** Reads 1, 2 or 4 bytes from a port. */
  readPort(port: number, size: number): number {
    this.#lookForMoves();
    const number = this.#ports[port];
    if (number === 0) return size === 1 ? 0xff : this.#splitRead(port, size);
    const claim = this.#pio[number - 1];
    if (port + size > claim.base + claim.size) return this.#splitRead(port, size);
    return this.#read(claim, port - claim.base, size);
  }

  /** Writes 1, 2 or 4 bytes to a port. */
  writePort(port: number, size: number, value: number): void {
    this.#lookForMoves();
    const number = this.#ports[port];
    if (number === 0) {
      if (size > 1) this.#splitWrite(port, size, value);
      return;
    }
    const claim = this.#pio[number - 1];
    if (port + size > claim.base + claim.size) this.#splitWrite(port, size, value);
    else this.#write(claim, port - claim.base, size, value);
  }

  /** Reads 1, 2 or 4 bytes of memory that is a device's. */
  readMemory(address: number, size: number): number {
    const claim = this.#find(address, size);
    return claim ? this.#read(claim, address - claim.base, size) : allOnes(size);
  }

  /** Writes 1, 2 or 4 bytes of memory that is a device's. */
  writeMemory(address: number, size: number, value: number): void {
    const claim = this.#find(address, size);
    if (claim) this.#write(claim, address - claim.base, size, value);
  }

  #find(address: number, size: number): Claim & AddressRange | undefined {
    this.#lookForMoves();
    const starts = this.#starts;
    let low = 0;
    let high = starts.length;
    // The number of claims that start at the address or before it.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (starts[middle] <= address) low = middle + 1;
      else high = middle;
    }
    if (low === 0) return undefined;
    const claim = this.#mmio[low - 1];
    return address + size <= claim.base + claim.size ? claim : undefined;
  }

  #lookForMoves(): void {
    const { generation } = this.#bases;
    if (generation === this.#generation) return;
    // Before the bases are read: a move meanwhile is found at the next access.
    this.#generation = generation;
    this.#place();
  }

  #place(): void {
    const placed = placeRanges(this.#claims, this.#bases);
    this.#pio = placed.filter((claim) => claim.space === "pio");
    this.#ports.fill(0);
    this.#pio.forEach((c, i) => this.#ports.fill(i + 1, c.base, c.base + c.size));
    this.#mmio = placed.filter((claim) => claim.space === "mmio").sort((a, b) => a.base - b.base);
    this.#starts = Float64Array.from(this.#mmio, ({ base }) => base);
  }

  #read(claim: Claim, offset: number, size: number): number {
    lock(this.#mutexes, claim.mutex);
    try {
      return claim.device.read(claim.range, offset, size);
    } finally {
      unlock(this.#mutexes, claim.mutex);
    }
  }

  #write(claim: Claim, offset: number, size: number, value: number): void {
    lock(this.#mutexes, claim.mutex);
    try {
      claim.device.write(claim.range, offset, size, value);
    } finally {
      unlock(this.#mutexes, claim.mutex);
    }
  }

  /** The ISA bus cuts a wide access to narrow neighbours into byte accesses. */
  #splitRead(port: number, size: number): number {
    let value = 0;
    for (let i = size - 1; i >= 0; i--) {
      value = value * 256 + (port + i < PORTS ? this.readPort(port + i, 1) : 0xff);
    }
    return value;
  }

  #splitWrite(port: number, size: number, value: number): void {
    for (let i = 0; i < size && port + i < PORTS; i++) {
      this.writePort(port + i, 1, (value >>> (8 * i)) & 0xff);
    }
  }
}
