/**
 * Address decoding: from a port or guest physical address to the device that claims it.
 *
 * @module
 */
import type { AddressRange, Device } from "../../devices/device.ts";
import { lock, unlock } from "../../devices/mutex.ts";

/** A device's claim on a range of addresses. */
export interface Claim extends AddressRange {
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

/** One thread's view of the port and memory space. */
export class Bus {
  readonly #mutexes: Int32Array<SharedArrayBuffer>;
  /** Claim number + 1 by port; 0 where nobody answers. */
  readonly #ports = new Uint8Array(PORTS);
  readonly #pio: Claim[];
  readonly #mmio: Claim[];

  /**
   * @param claims the claims, which do not overlap; at most 255 on ports
   * @param mutexes the devices' mutex words
   */
  constructor(claims: readonly Claim[], mutexes: Int32Array<SharedArrayBuffer>) {
    this.#mutexes = mutexes;
    this.#pio = claims.filter((claim) => claim.space === "pio");
    this.#mmio = claims.filter((claim) => claim.space === "mmio");
    this.#pio.forEach((c, i) => this.#ports.fill(i + 1, c.base, c.base + c.size));
  }

  /** Reads 1, 2 or 4 bytes from a port. */
  readPort(port: number, size: number): number {
    const number = this.#ports[port];
    if (number === 0) return size === 1 ? 0xff : this.#splitRead(port, size);
    const claim = this.#pio[number - 1];
    if (port + size > claim.base + claim.size) return this.#splitRead(port, size);
    return this.#read(claim, port - claim.base, size);
  }

  /** Writes 1, 2 or 4 bytes to a port. */
  writePort(port: number, size: number, value: number): void {
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

  #find(address: number, size: number): Claim | undefined {
    for (const claim of this.#mmio) {
      if (address >= claim.base && address + size <= claim.base + claim.size) return claim;
    }
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
