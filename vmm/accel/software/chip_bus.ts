/**
 * Where a vCPU finds the machine's chips among its ports and addresses: before the devices are asked.
 *
 * @module
 */
import { Bus } from "../../bus/bus.ts";
import type { Chipset } from "./chips/chipset.ts";
import { ChipPorts, chipRanges } from "./chips/ports.ts";

/** The chips' addresses. */
export interface ChipBus {
  readonly bus: Bus;
  /** Whether a port is a chip's. */
  hasPort(port: number): boolean;
  /** Whether an address is a chip's. */
  hasMemory(address: number): boolean;
}

/** The chips of a machine with or without a PIT, as one thread sees them. */
export function chipBus(chipset: Chipset, pit: boolean): ChipBus {
  const device = new ChipPorts(chipset);
  const ranges = chipRanges(pit);
  // The chips have a mutex of their own.
  const claims = ranges.map((range) => ({ ...range, device, mutex: 0 }));
  const bus = new Bus(claims, new Int32Array(new SharedArrayBuffer(4)));
  const ports = new Uint8Array(0x1_0000);
  for (const { space, base, size } of ranges) if (space === "pio") ports.fill(1, base, base + size);
  const memory = ranges.filter(({ space }) => space === "mmio");
  return {
    bus,
    hasPort: (port) => ports[port] !== 0,
    hasMemory: (address) =>
      memory.some(({ base, size }) => address >= base && address < base + size),
  };
}
