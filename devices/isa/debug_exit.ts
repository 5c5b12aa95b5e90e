/**
 * `isa-debug-exit`: a port that ends the VMM with a status the guest chooses.
 *
 * @module
 */
import { struct } from "../../ffi/struct.ts";
import {
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
  type PropertyValue,
} from "../device.ts";
import { isaPort } from "./isa.ts";

const state = struct("isa-debug-exit", {});

class DebugExit implements Device {
  readonly #context: DeviceContext;
  readonly #size: number;

  constructor(context: DeviceContext, size: number) {
    this.#context = context;
    this.#size = size;
  }

  read(): number {
    return 0;
  }

  /** Exits with an odd status, so that no value a guest writes looks like success. */
  write(_range: number, offset: number, size: number, value: number): void {
    const bits = 8 * Math.min(size, this.#size - offset, 4);
    if (bits <= 0) return;
    const written = bits === 32 ? value : value & (2 ** bits - 1);
    this.#context.request({ kind: "debug-exit", status: ((written << 1) | 1) >>> 0 });
  }

  /** Nothing to do: the device has no registers. */
  reset(): void {}
}

function iosize(value: PropertyValue): number {
  const size = Number(value);
  if (size < 1) throw new RangeError(`Property 'iosize' must be at least 1, not ${size}`);
  return size;
}

/** The `isa-debug-exit` device type. */
export const isaDebugExit: DeviceType = defineDevice({
  name: "isa-debug-exit",
  help: "port that exits with status (value << 1) | 1",
  user: true,
  properties: {
    iobase: { type: "uint32", default: 0x501, help: "first of its I/O ports" },
    iosize: { type: "uint32", default: 2, help: "number of its I/O ports" },
  },
  version: 1,
  state,
  ranges: (properties) => [{
    space: "pio",
    base: isaPort("iobase", properties.iobase, iosize(properties.iosize)),
    size: iosize(properties.iosize),
    name: "isa-debug-exit",
  }],
  irqs: () => [],
  create: (_view, context, properties) => new DebugExit(context, Number(properties.iosize)),
});
