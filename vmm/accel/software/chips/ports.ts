/**
 * Where a guest finds the machine's chips: their ports and the IOAPIC's memory, as a device for the
 * bus. The local APICs are not here: each vCPU has its own at the same address.
 *
 * @module
 */
import type { AddressRange, Device } from "../../../../devices/device.ts";
import { ByteDevice } from "../../../../devices/isa/isa.ts";
import { ELCR, IOAPIC, PICS, PIT, SPEAKER } from "../../../machine/microvm.ts";
import type { Chipset } from "./chipset.ts";
import { IOAPIC_SIZE } from "./ioapic.ts";

/** Numbers of {@linkcode ranges}. */
const Range = { PIC_MASTER: 0, PIC_SLAVE: 1, ELCR: 2, PIT: 3, PORT_61: 4, IOAPIC: 5 } as const;

/** The addresses, by range number. */
const ranges: readonly AddressRange[] = [
  ...[...PICS, ELCR, PIT, SPEAKER].map((place): AddressRange => ({ space: "pio", ...place })),
  { space: "mmio", ...IOAPIC, size: IOAPIC_SIZE },
];

/** The ranges of a machine with or without a PIT, each with its number. */
export function chipRanges(pit: boolean): (AddressRange & { readonly range: number })[] {
  return ranges.map((claimed, range) => ({ ...claimed, range }))
    .filter(({ range }) => pit || (range !== Range.PIT && range !== Range.PORT_61));
}

/** The chips' registers as a device. */
export class ChipPorts extends ByteDevice implements Device {
  readonly #chipset: Chipset;

  /** @param chipset this thread's */
  constructor(chipset: Chipset) {
    super();
    this.#chipset = chipset;
  }

  override read(range: number, offset: number, size: number): number {
    if (range === Range.IOAPIC) return this.#chipset.readIoapic(offset, size);
    return super.read(range, offset, size);
  }

  override write(range: number, offset: number, size: number, value: number): void {
    if (range === Range.IOAPIC) this.#chipset.writeIoapic(offset, value);
    else super.write(range, offset, size, value);
  }

  reset(): void {
    this.#chipset.reset();
  }

  protected readByte(range: number, offset: number): number {
    switch (range) {
      case Range.PIC_MASTER:
      case Range.PIC_SLAVE:
        return this.#chipset.readPic(range - Range.PIC_MASTER, offset);
      case Range.ELCR:
        return this.#chipset.readElcr(offset);
      case Range.PIT:
        return this.#chipset.readPit(offset);
    }
    return this.#chipset.readPort61();
  }

  protected writeByte(range: number, offset: number, value: number): void {
    switch (range) {
      case Range.PIC_MASTER:
      case Range.PIC_SLAVE:
        return this.#chipset.writePic(range - Range.PIC_MASTER, offset, value);
      case Range.ELCR:
        return this.#chipset.writeElcr(offset, value);
      case Range.PIT:
        return this.#chipset.writePit(offset, value);
      case Range.PORT_61:
        this.#chipset.writePort61(value);
    }
  }
}
