/**
 * Declares virtio devices: an ordinary device type out of what is a virtio device's own.
 *
 * @module
 */
import type { Field, Fields, Struct, View } from "../../ffi/struct.ts";
import { array, struct } from "../../ffi/struct.ts";
import type { ArrayView } from "../../ffi/struct.ts";
import type {
  Balloon,
  Device,
  DeviceContext,
  DeviceType,
  Properties,
  PropertyDeclaration,
} from "../device.ts";
import { type ConfigSpace, MMIO_SIZE, mmioState, MmioTransport, QUEUE_NOTIFY } from "./mmio.ts";
import { virtqueue } from "./ring.ts";
import { Virtio } from "./virtio.ts";
import { Feature, virtioState } from "./virtio_state.ts";

/** What a virtio device does, on one thread. */
export interface VirtioBackend extends Partial<ConfigSpace> {
  /** What devices on the device's own bus work with. */
  readonly provides?: object;
  /** See {@linkcode Device.balloon}. */
  readonly balloon?: Balloon;
  /** There are requests in a queue. Called on the I/O thread, while nobody else works on queues. */
  handleQueue(index: number): void;
  /** Puts the device's own state back to how a driver finds it. */
  reset?(): void;
  /** See {@linkcode Device.timer}. */
  timer?(index: number, nowNs: bigint): void;
  /** See {@linkcode Device.limitsChanged}. */
  limitsChanged?(): void;
  /** See {@linkcode Device.connected}. */
  connected?(): void;
  /** See {@linkcode Device.setLink}. */
  setLink?(isUp: boolean): void;
  /** After saved state was loaded. */
  restored?(): void;
}

/** What is a virtio device's own. */
export interface VirtioDeviceType<F extends Fields> {
  /** QEMU's name for it, ending in `-device`. */
  readonly name: string;
  /** One line for `-device help`. */
  readonly help: string;
  /** Its kind (virtio 1.2, 5). */
  readonly deviceId: number;
  readonly properties: Readonly<Record<string, PropertyDeclaration>>;
  /** Version of its own state. */
  readonly version: number;
  /** Its own state. */
  readonly state: Struct<F>;
  /** How many timers it has. */
  readonly timers?: number;
  /** See {@linkcode DeviceType.check}. */
  check?(properties: Properties): void;
  /** Feature bits of its kind. */
  features(properties: Properties): bigint;
  /** The size of each of its queues. */
  queueSizes(properties: Properties): readonly number[];
  /** Builds it on this thread. Must not change `state`. */
  create(
    state: View<F>,
    virtio: Virtio,
    context: DeviceContext,
    properties: Properties,
  ): VirtioBackend;
}

/** Properties that all virtio devices have, with QEMU's defaults. */
const commonProperties = {
  indirect_desc: { type: "bool", default: true, help: "offer indirect descriptors" },
  event_idx: { type: "bool", default: true, help: "offer notifications by ring index" },
  packed: { type: "bool", default: false, help: "offer packed rings" },
  queue_reset: { type: "bool", default: true, help: "offer resets of single queues" },
  // Where the machine has put it, which no user says.
  "mmio-base": { type: "uint32", internal: true, help: "address of its transport" },
  irq: { type: "uint32", internal: true, help: "interrupt of its transport" },
} as const satisfies Record<string, PropertyDeclaration>;

function commonFeatures(properties: Properties): bigint {
  const bit = (name: string, feature: number) => properties[name] ? 1n << BigInt(feature) : 0n;
  return 1n << BigInt(Feature.VERSION_1) |
    bit("indirect_desc", Feature.INDIRECT_DESC) |
    bit("event_idx", Feature.EVENT_IDX) |
    bit("packed", Feature.RING_PACKED) |
    bit("queue_reset", Feature.RING_RESET);
}

/** The extra locks of a virtio device, by their numbers. */
const WORK = 0;
const LINE = 1;

type AllFields<F extends Fields> = {
  readonly mmio: typeof mmioState;
  readonly virtio: typeof virtioState;
  readonly queues: Field<ArrayView<View<typeof virtqueue.fields>>>;
  readonly device: Struct<F>;
};

/** Makes a device type behind a virtio-mmio transport. */
export function defineVirtioDevice<F extends Fields>(
  type: VirtioDeviceType<F>,
): DeviceType<AllFields<F>> {
  const layout = (properties: Properties) => ({
    version: type.version,
    state: struct<AllFields<F>>(type.name, {
      mmio: mmioState,
      virtio: virtioState,
      queues: array(virtqueue, type.queueSizes(properties).length),
      device: type.state,
    }),
  });
  const properties = { ...commonProperties, ...type.properties };
  const defaults = Object.fromEntries(
    Object.entries(properties).flatMap(([name, declaration]) =>
      "default" in declaration ? [[name, declaration.default!]] : []
    ),
  );
  return {
    ...layout(defaults),
    layout,
    name: type.name,
    help: type.help,
    user: true,
    properties,
    timers: type.timers,
    locks: 2,
    bus: "virtio-bus",
    check(properties) {
      type.check?.(properties);
      type.queueSizes(properties);
    },
    ranges: (properties) => [{
      space: "mmio",
      base: Number(properties["mmio-base"]),
      size: MMIO_SIZE,
      name: "virtio-mmio",
    }],
    irqs: (properties) => [Number(properties.irq)],
    doorbells: (properties) =>
      type.queueSizes(properties).map((_, value) => ({ range: 0, offset: QUEUE_NOTIFY, value })),
    create(state, context, properties): Device {
      const queueSizes = type.queueSizes(properties);
      const virtio = new Virtio({
        name: type.name,
        state: state.virtio,
        queues: queueSizes.map((_, i) => state.queues.at(i)),
        queueSizes,
        features: commonFeatures(properties) | type.features(properties),
        memory: context.memory,
        interrupt: context.interrupts[0],
        doorbells: context.doorbells,
        work: context.locks[WORK],
        line: context.locks[LINE],
        isParking: () => context.isParking(),
        warn: (text) => context.warn(text),
      });
      const backend = type.create(state.device, virtio, context, properties);
      const config: ConfigSpace = {
        readConfig: (offset, size) => backend.readConfig?.(offset, size) ?? 0,
        writeConfig: (offset, size, value) => backend.writeConfig?.(offset, size, value),
      };
      const reset = () => {
        virtio.reset();
        backend.reset?.();
      };
      const transport = new MmioTransport(state.mmio, virtio, type.deviceId, config, reset);
      return {
        provides: backend.provides,
        balloon: backend.balloon,
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
        rung: (index) => virtio.work(() => backend.handleQueue(index)),
        resized: () => virtio.configChanged(),
        timer: (index, nowNs) => backend.timer?.(index, nowNs),
        limitsChanged: () => backend.limitsChanged?.(),
        connected: () => backend.connected?.(),
        setLink: (isUp) => backend.setLink?.(isUp),
        restored() {
          virtio.driveInterrupt();
          backend.restored?.();
        },
      };
    },
  };
}
