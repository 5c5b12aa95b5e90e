/**
 * What devices on the ISA bus share: byte-wide registers and the checks of `iobase` and `irq`.
 *
 * @module
 */
import type { PropertyValue } from "../device.ts";

/**
 * A device whose registers are all one byte wide.
 *
 * The ISA bus carries a wider access to an 8-bit device out as byte accesses to consecutive ports,
 * lowest first.
 */
export abstract class ByteDevice {
  /** Reads one byte; an offset without a register reads as an undriven bus, 0xff. */
  protected abstract readByte(range: number, offset: number): number;
  /** Writes one byte; an offset without a register ignores it. */
  protected abstract writeByte(range: number, offset: number, value: number): void;

  /** Reads `size` bytes at `offset` of range number `range`, little-endian. */
  read(range: number, offset: number, size: number): number {
    let value = this.readByte(range, offset);
    for (let i = 1; i < size; i++) value += this.readByte(range, offset + i) * 2 ** (8 * i);
    return value;
  }

  /** Writes the `size` (1, 2 or 4) bytes of `value` at `offset` of range number `range`. */
  write(range: number, offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.writeByte(range, offset + i, (value >>> (8 * i)) & 0xff);
  }
}

/**
 * Checks a property that holds the first of `size` consecutive I/O ports.
 *
 * @returns the port
 * @throws RangeError when the ports do not fit below 0x10000
 */
export function isaPort(name: string, value: PropertyValue, size: number): number {
  const port = Number(value);
  if (port + size > 0x10000) {
    throw new RangeError(`Maximum value for "${name}" is: ${0x10000 - size}, not ${port}`);
  }
  return port;
}

/**
 * Checks a property that holds the number of an ISA interrupt.
 *
 * @returns the interrupt, which is the GSI of the same number
 * @throws RangeError above 15, in QEMU's words
 */
export function isaIrq(name: string, value: PropertyValue): number {
  const irq = Number(value);
  if (irq > 15) throw new RangeError(`Maximum value for "${name}" is: 15`);
  return irq;
}
