/**
 * `isa-debugcon`: a port whose written bytes go to a character backend; Bochs' port 0xe9 and the
 * debug port 0x402 of SeaBIOS and OVMF.
 *
 * @module
 */
import { struct, type View } from "../../ffi/struct.ts";
import { ByteFifo, byteFifo } from "./byte_fifo.ts";
import { nullSink } from "../chardev/sink.ts";
import {
  type CharacterSink,
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
} from "../device.ts";
import { ByteDevice, isaPort } from "./isa.ts";

/**
 * The port cannot tell the guest to wait, so bytes that the host does not take are kept here; the
 * 1 KiB is a screenful of log lines. Once full, further bytes are lost until the host reads.
 */
const state = struct("isa-debugcon", { backlog: byteFifo(1024) });

class Debugcon extends ByteDevice implements Device {
  readonly #chardev: CharacterSink;
  readonly #readback: number;
  readonly #backlog: ByteFifo;
  readonly #byte = new Uint8Array(1);

  constructor(view: View<typeof state.fields>, context: DeviceContext, readback: number) {
    super();
    this.#chardev = context.chardev ?? nullSink;
    this.#readback = readback;
    this.#backlog = new ByteFifo(view.backlog);
  }

  protected readByte(_range: number, offset: number): number {
    return offset === 0 ? this.#readback & 0xff : 0xff;
  }

  protected writeByte(_range: number, offset: number, value: number): void {
    if (offset !== 0) return;
    if (this.#backlog.length === 0) {
      this.#byte[0] = value;
      if (this.#chardev.write(this.#byte) === 1) return;
    }
    this.#backlog.push(value);
  }

  writable(): void {
    this.#backlog.drainTo(this.#chardev);
  }

  /** Nothing to do: what was written before a reset is still on its way to the host. */
  reset(): void {}

  restored(): void {
    this.#backlog.normalise();
  }
}

/** The `isa-debugcon` device type. */
export const isaDebugcon: DeviceType = defineDevice({
  name: "isa-debugcon",
  help: "debug console port",
  user: true,
  properties: {
    chardev: { type: "chardev", help: "ID of a chardev to use as a backend" },
    iobase: { type: "uint32", default: 0xe9, help: "its I/O port" },
    readback: { type: "uint32", default: 0xe9, help: "what the port reads as" },
  },
  version: 1,
  state,
  ranges: (properties) => [{
    space: "pio",
    base: isaPort("iobase", properties.iobase, 1),
    size: 1,
    name: "isa-debugcon",
  }],
  irqs: () => [],
  create: (view, context, properties) => new Debugcon(view, context, Number(properties.readback)),
});
