/**
 * What a kind of virtio device is, whatever its transport, and how one is made of it on a thread.
 *
 * @module
 */
import type { Fields, Struct, View } from "../../ffi/struct.ts";
import type {
  Balloon,
  Device,
  DeviceContext,
  Interrupt,
  Properties,
  PropertyDeclaration,
} from "../device.ts";
import type { VhostUserNeeds } from "../vhost_user/port.ts";
import type { QueueState } from "./ring.ts";
import { type InterruptMessages, Virtio } from "./virtio.ts";
import { Feature, type VirtioState } from "./virtio_state.ts";

/** The configuration space of a device. */
export interface ConfigSpace {
  /** Reads 1, 2 or 4 bytes; zeros where there is nothing. */
  readConfig(offset: number, size: number): number;
  /** Writes 1, 2 or 4 bytes. */
  writeConfig(offset: number, size: number, value: number): void;
}

/** What a virtio device does, on one thread. */
export interface VirtioBackend extends Partial<ConfigSpace> {
  /** What devices on the device's own bus work with. */
  readonly provides?: object;
  /** See {@linkcode Device.balloon}. */
  readonly balloon?: Balloon;
  /** There are requests in a queue. Called on the I/O thread, while nobody else works on queues. */
  handleQueue(index: number): void;
  /**
   * Nobody beside the I/O thread, such as the kernel, must work on queues when this returns. Called on any
   * thread, while nobody on this side works on them, before the driver has one back; it may go on
   * when a doorbell rings.
   */
  halt?(): void;
  /** See {@linkcode Device.rest}. */
  rest?(): void;
  /** See {@linkcode Device.quiesce}. */
  quiesce?(): void;
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
  /** Base class, subclass and programming interface of it as a PCI function; "other" unless given. */
  readonly pciClass?: number;
  /** How many interrupt messages it has as a PCI function; one a queue, and one more, unless given. */
  readonly pciVectors?: number;
  /** See {@linkcode DeviceType.check}. */
  check?(properties: Properties): void;
  /** Feature bits of its kind. */
  features(properties: Properties): bigint;
  /** What of all wanted features there is; all unless given. */
  offered?(wanted: bigint, context: DeviceContext): bigint;
  /** See {@linkcode DeviceType.vhostUser}. */
  vhostUser?(properties: Properties): VhostUserNeeds;
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
export const commonProperties = {
  indirect_desc: { type: "bool", default: true, help: "offer indirect descriptors" },
  event_idx: { type: "bool", default: true, help: "offer notifications by ring index" },
  packed: { type: "bool", default: false, help: "offer packed rings" },
  queue_reset: { type: "bool", default: true, help: "offer resets of single queues" },
} as const satisfies Record<string, PropertyDeclaration>;

function commonFeatures(properties: Properties): bigint {
  const bit = (name: string, feature: number) => properties[name] ? 1n << BigInt(feature) : 0n;
  return 1n << BigInt(Feature.VERSION_1) |
    bit("indirect_desc", Feature.INDIRECT_DESC) |
    bit("event_idx", Feature.EVENT_IDX) |
    bit("packed", Feature.RING_PACKED) |
    bit("queue_reset", Feature.RING_RESET);
}

/** How many locks such a device has, and which is which. */
export const LOCKS = 2;
const WORK = 0;
/** The number of the lock that its interrupts are under. */
export const LINE = 1;

/** What a transport gives a device. */
export interface TransportParts<F extends Fields> {
  readonly kind: VirtioDeviceType<F>;
  /** The state of the device: what all have, its queues, its own. */
  readonly state: {
    readonly virtio: VirtioState;
    readonly queues: { at(index: number): QueueState };
    readonly device: View<F>;
  };
  readonly context: DeviceContext;
  readonly properties: Properties;
  readonly interrupt: Interrupt;
  readonly messages?: InterruptMessages;
  /** Whether it may read and write memory; always unless given. */
  mayUseMemory?(): boolean;
}

/** A device on one thread, as its transport has it. */
export interface VirtioParts {
  readonly virtio: Virtio;
  readonly backend: VirtioBackend;
  readonly config: ConfigSpace;
  /** What does not depend on the transport. */
  readonly calls: Omit<Device, "read" | "write" | "reset" | "restored">;
  /** Resets all but the transport. */
  reset(): void;
}

/** Makes a device on this thread. */
export function makeVirtio<F extends Fields>(parts: TransportParts<F>): VirtioParts {
  const { kind, state, context, properties, interrupt, messages } = parts;
  const queueSizes = kind.queueSizes(properties);
  const wanted = commonFeatures(properties) | kind.features(properties);
  const virtio = new Virtio({
    name: kind.name,
    state: state.virtio,
    queues: queueSizes.map((_, i) => state.queues.at(i)),
    queueSizes,
    features: kind.offered?.(wanted, context) ?? wanted,
    memory: context.memory,
    interrupt,
    messages,
    mayUseMemory: parts.mayUseMemory,
    halt: () => backend.halt?.(),
    doorbells: context.doorbells,
    work: context.locks[WORK],
    line: context.locks[LINE],
    isParking: () => context.isParking(),
    warn: (text) => context.warn(text),
  });
  const backend: VirtioBackend = kind.create(state.device, virtio, context, properties);
  return {
    virtio,
    backend,
    config: {
      readConfig: (offset, size) => backend.readConfig?.(offset, size) ?? 0,
      writeConfig: (offset, size, value) => backend.writeConfig?.(offset, size, value),
    },
    reset() {
      virtio.reset();
      backend.reset?.();
    },
    calls: {
      provides: backend.provides,
      balloon: backend.balloon,
      rung: (index) => virtio.work(() => backend.handleQueue(index)),
      rest: () => backend.rest?.(),
      resized: () => virtio.configChanged(),
      timer: (index, nowNs) => backend.timer?.(index, nowNs),
      limitsChanged: () => backend.limitsChanged?.(),
      connected: () => backend.connected?.(),
      quiesce: () => backend.quiesce?.(),
      setLink: (isUp) => backend.setLink?.(isUp),
    },
  };
}
