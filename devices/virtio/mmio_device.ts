/**
 * Virtio devices behind virtio-mmio transports.
 *
 * @module
 */
import {
  array,
  type ArrayView,
  type Field,
  type Fields,
  type Struct,
  struct,
  type View,
} from "../../ffi/struct.ts";
import { defineDevice, type DeviceType, type Properties, withDefaults } from "../device.ts";
import { MMIO_SIZE, mmioState, MmioTransport, QUEUE_NOTIFY } from "./mmio.ts";
import { virtqueue } from "./ring.ts";
import { commonProperties, LOCKS, makeVirtio, type VirtioDeviceType } from "./virtio_kind.ts";
import { virtioState } from "./virtio_state.ts";

/** The fields of such a device's state. */
export type MmioFields<F extends Fields> = {
  readonly mmio: typeof mmioState;
  readonly virtio: typeof virtioState;
  readonly queues: Field<ArrayView<View<typeof virtqueue.fields>>>;
  readonly device: Struct<F>;
};

/** Makes a device type behind a virtio-mmio transport. */
export function behindMmio<F extends Fields>(
  kind: VirtioDeviceType<F>,
): DeviceType<MmioFields<F>> {
  const layout = (properties: Properties) => ({
    version: kind.version,
    state: struct<MmioFields<F>>(kind.name, {
      mmio: mmioState,
      virtio: virtioState,
      queues: array(virtqueue, kind.queueSizes(properties).length),
      device: kind.state,
    }),
  });
  const properties = {
    ...commonProperties,
    // Where the machine has put it, which no user says.
    "mmio-base": { type: "uint32", internal: true, help: "address of its transport" },
    irq: { type: "uint32", internal: true, help: "interrupt of its transport" },
    ...kind.properties,
  } as const;
  return defineDevice<MmioFields<F>>({
    ...layout(withDefaults({ properties }, {})),
    layout,
    name: kind.name,
    help: kind.help,
    user: true,
    properties,
    timers: kind.timers,
    locks: LOCKS,
    bus: "virtio-bus",
    check(properties) {
      kind.check?.(properties);
      kind.queueSizes(properties);
    },
    ranges: (properties) => [{
      space: "mmio",
      base: Number(properties["mmio-base"]),
      size: MMIO_SIZE,
      name: "virtio-mmio",
    }],
    irqs: (properties) => [Number(properties.irq)],
    vhostUser: kind.vhostUser,
    doorbells: (properties) =>
      kind.queueSizes(properties).map((_, value) => ({ range: 0, offset: QUEUE_NOTIFY, value })),
    create(state, context, properties) {
      const interrupt = context.interrupts[0];
      const made = makeVirtio({ kind, state, context, properties, interrupt });
      const { virtio, config, reset } = made;
      const transport = new MmioTransport(state.mmio, virtio, kind.deviceId, config, reset);
      return {
        ...made.calls,
        read: (_range, offset, size) => transport.read(offset, size),
        write: (_range, offset, size, value) => transport.write(offset, size, value),
        reset() {
          reset();
          Object.assign(state.mmio, {
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
          });
        },
        restored() {
          virtio.driveInterrupt();
          made.backend.restored?.();
        },
      };
    },
  });
}
