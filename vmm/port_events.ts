/**
 * What monitors are told of virtio serial ports: that somebody in the guest has opened one, or closed it
 * (QMP's VSERPORT_CHANGE).
 *
 * @module
 */
import { portState } from "../devices/virtio/serial_state.ts";
import type { DeviceInstance } from "./bus/device_set.ts";
import type { DeviceConfig } from "./config.ts";

/** Ports that have a name of the user's. */
export class PortEvents {
  readonly #ports: readonly DeviceInstance[];
  readonly #emit: (data: { readonly id: string; readonly open: boolean }) => void;
  readonly #open = new Set<string>();

  /**
   * @param devices the machine's devices, of which those on a virtio-serial bus are looked at
   * @param configs what the user has said of devices: one without an id is not told of, as in QEMU
   * @param emit takes an event's data
   */
  constructor(
    devices: readonly DeviceInstance[],
    configs: readonly DeviceConfig[],
    emit: (data: { readonly id: string; readonly open: boolean }) => void,
  ) {
    this.#ports = devices.filter(({ type, id }) =>
      type.bus === "virtio-serial-bus" && configs.some((config) => config.id === id)
    );
    this.#emit = emit;
  }

  /** Tells of all that has changed since. */
  look(): void {
    for (const { id, state: { buffer, byteOffset } } of this.#ports) {
      const open = portState.view(buffer, byteOffset).guest_connected !== 0;
      if (open === this.#open.has(id)) continue;
      if (open) this.#open.add(id);
      else this.#open.delete(id);
      this.#emit({ id, open });
    }
  }
}
