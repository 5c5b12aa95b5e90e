/**
 * `port92`: PS/2 system control port A, the fast way to reset the machine and to move A20.
 *
 * @module
 */
import { struct, u8, type View } from "../../ffi/struct.ts";
import { defineDevice, type Device, type DeviceContext, type DeviceType } from "../device.ts";
import { ByteDevice } from "./isa.ts";

const FAST_RESET = 0x01;
const A20 = 0x02;

const state = struct("port92", { value: u8 });

class Port92 extends ByteDevice implements Device {
  readonly #state: View<typeof state.fields>;
  readonly #context: DeviceContext;

  constructor(view: View<typeof state.fields>, context: DeviceContext) {
    super();
    this.#state = view;
    this.#context = context;
  }

  protected readByte(_range: number, offset: number): number {
    return offset === 0 ? this.#state.value : 0xff;
  }

  protected writeByte(_range: number, offset: number, value: number): void {
    if (offset !== 0) return;
    const resets = value & ~this.#state.value & FAST_RESET;
    this.#state.value = value;
    if (resets) this.#context.request({ kind: "reset", reason: "guest-reset" });
  }

  /** KVM has no A20 gate: the line is always on, so the bit starts out saying so. */
  reset(): void {
    this.#state.value = A20;
  }
}

/** The `port92` device type. */
export const port92: DeviceType = defineDevice({
  name: "port92",
  help: "PS/2 system control port A: A20 and fast reset",
  user: false,
  properties: {},
  version: 1,
  state,
  ranges: () => [{ space: "pio", base: 0x92, size: 1, name: "port92" }],
  irqs: () => [],
  create: (view, context) => new Port92(view, context),
});
