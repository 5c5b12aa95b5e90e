/**
 * A driver of virtio devices that are PCI functions: for tests. It takes the registers by their offsets in
 * a virtio-mmio transport, so that what is written for one is a test of the other.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { AttachedDisk } from "../../../devices/block/disk.ts";
import type { Properties } from "../../../devices/device.ts";
import type { NetPort } from "../../../devices/net/port.ts";
import type { VirtioDevice } from "../../../devices/virtio/virtio_device.ts";
import type { Fields } from "../../../ffi/struct.ts";
import type { RigMode } from "../fake_context.ts";
import { VirtioRig } from "./rig.ts";

/** Where the registers' memory is put, and that of the interrupt messages. */
export const REGISTERS = 0xc0_0000_4000;
export const MESSAGES = 0xc000_1000;
/** The ranges. */
export const Range = { CONFIG: 0, REGISTERS: 1, MSIX: 2 } as const;

/** Offsets of virtio-mmio as those of the common structure, with sizes. */
const registers = new Map<number, readonly [offset: number, size: number]>([
  ...([[0x14, 0x00], [0x10, 0x04], [0x24, 0x08], [0x20, 0x0c]].map(([mmio, pci]) =>
    [mmio, [pci, 4]] as const
  )),
  ...([[0x80, 0x20], [0x84, 0x24], [0x90, 0x28], [0x94, 0x2c], [0xa0, 0x30], [0xa4, 0x34]].map((
    [mmio, pci],
  ) => [mmio, [pci, 4]] as const)),
  ...([[0x30, 0x16], [0x38, 0x18], [0x44, 0x1c], [0xc0, 0x3a]].map(([mmio, pci]) =>
    [mmio, [pci, 2]] as const
  )),
  [0x70, [0x14, 1]],
  [0xfc, [0x15, 1]],
]);
const CONFIG = 0x100;
const INTERRUPT_STATUS = 0x60;
const QUEUE_NOTIFY = 0x50;

/** A virtio device under test, as a PCI function that a driver has switched on. */
export class PciRig extends VirtioRig {
  constructor(
    type: VirtioDevice<Fields>,
    mode: RigMode = "kept",
    properties: Properties = {},
    disk?: AttachedDisk,
    netdev?: NetPort,
  ) {
    const place = { "config-base": 0xe000_8000, irq: 17 };
    super(type.pci, mode, { ...place, ...properties }, disk, netdev);
    this.configure(0x10 + 4 * 4, REGISTERS % 2 ** 32);
    this.configure(0x10 + 4 * 5, Math.floor(REGISTERS / 2 ** 32));
    this.configure(0x10 + 4 * 1, MESSAGES);
    this.configure(4, 6, 2);
  }

  /** Writes configuration space. */
  configure(offset: number, value: number, size = 4): void {
    super.write(offset, value, size, Range.CONFIG);
  }

  /** Reads configuration space. */
  look(offset: number, size = 4): number {
    return super.read(offset, size, Range.CONFIG);
  }

  /** Reads the registers' memory. */
  peek(offset: number, size: number): number {
    return super.read(offset, size, Range.REGISTERS);
  }

  /** Writes the registers' memory. */
  poke(offset: number, value: number, size: number): void {
    super.write(offset, value, size, Range.REGISTERS);
  }

  override read(offset: number, size = 1): number {
    if (offset >= CONFIG) return this.peek(0x2000 + offset - CONFIG, size);
    if (offset === INTERRUPT_STATUS) return this.peek(0x1000, 1);
    const [register, width] = registers.get(offset)!;
    return this.peek(register, width);
  }

  override write(offset: number, value: number, size = 1): void {
    if (offset >= CONFIG) return this.poke(0x2000 + offset - CONFIG, value, size);
    if (offset === QUEUE_NOTIFY) return this.poke(0x3000 + 4 * value, value, 2);
    const [register, width] = registers.get(offset)!;
    this.poke(register, value, width);
  }

  /** Why the line is high, which reading acknowledges. */
  override takeInterrupt(): number {
    const isHigh = this.context.levels[0] ?? false;
    const causes = this.read(INTERRUPT_STATUS);
    assert.equal(isHigh, causes !== 0);
    assert.equal(this.context.levels[0] ?? false, false);
    return causes;
  }

  /** Where a capability is: one of an id, or of virtio's structure of a type. */
  capability(id: number, type?: number): number {
    for (let at = this.look(0x34, 1); at !== 0; at = this.look(at + 1, 1)) {
      if (this.look(at, 1) !== id) continue;
      if (type === undefined || this.look(at + 3, 1) === type) return at;
    }
    throw new Error(`There is no capability ${id} of type ${type}`);
  }

  /** Gives a vector its message, and takes its mask away. */
  setVector(vector: number, data: number, masked = 0): void {
    [0xfee0_1000, 0, data, masked].forEach((word, i) =>
      super.write(16 * vector + 4 * i, word, 4, Range.MSIX)
    );
  }

  /** Reads the memory of the interrupt messages. */
  message(offset: number): number {
    return super.read(offset, 4, Range.MSIX);
  }
}
