/**
 * What is plugged into a virtio-serial device: `virtconsole`, a console, and `virtserialport`, a port of
 * characters with a name that programs in the guest find it by, such as `org.qemu.guest_agent.0`.
 *
 * @module
 */
import type { DeviceType } from "../device.ts";
import { SerialBus, type SerialPort } from "./serial.ts";
import { portState } from "./serial_state.ts";

const properties = {
  bus: { type: "string", help: "the virtio-serial device to be on, ID.0", unseen: true },
  chardev: { type: "chardev", help: "character device behind it" },
  name: { type: "string", default: "", help: "name that the guest finds it by" },
  nr: { type: "uint32", help: "number on the bus; the first free one unless given" },
} as const;

function definePort(
  name: string,
  help: string,
  isConsole: boolean,
): DeviceType<typeof portState.fields> {
  return {
    name,
    help,
    user: true,
    bus: "virtio-serial-bus",
    properties,
    version: 1,
    state: portState,
    ranges: () => [],
    irqs: () => [],
    create(state, context, properties) {
      const bus = context.parent?.provides;
      if (!(bus instanceof SerialBus)) throw new TypeError(`A ${name} is on no virtio-serial bus`);
      const port: SerialPort = {
        nr: Number(properties.nr),
        name: String(properties.name),
        isConsole,
        state,
        sink: context.chardev,
      };
      bus.plug(port);
      return {
        read: () => 0,
        write: () => {},
        // The bus, which is reset with the port, has put it back.
        reset: () => {},
        inputRoom: () => bus.inputRoom(port),
        input: (data) => bus.input(port, data),
        writable: () => bus.writable(port),
        peerChanged: (isThere) => bus.peerChanged(port, isThere),
      };
    },
  };
}

/** A console. */
export const virtconsole = definePort("virtconsole", "Console on a virtio-serial bus", true);
/** A port. */
export const virtserialport = definePort("virtserialport", "Port on a virtio-serial bus", false);
