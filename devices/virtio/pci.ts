/**
 * The virtio-pci transport: a virtio device's registers as PCI functions have them (virtio 1.2, 4.1).
 *
 * They lie in one memory, a page for each of the four structures, where QEMU has them.
 *
 * @module
 */
import { NO_VECTOR } from "../pci/msix.ts";
import type { CapabilityDescription } from "../pci/config_space.ts";
import {
  array,
  type ArrayView,
  type Field,
  type Struct,
  struct,
  u16,
  u32,
} from "../../ffi/struct.ts";
import type { View } from "../../ffi/struct.ts";
import type { QueueState } from "./ring.ts";
import type { Virtio } from "./virtio.ts";
import type { ConfigSpace } from "./virtio_kind.ts";
import { Feature } from "./virtio_state.ts";

const PAGE = 0x1000;
/** Where the structures are. */
const Structure = { COMMON: 0, ISR: PAGE, DEVICE: 2 * PAGE, NOTIFY: 3 * PAGE } as const;
/** Bytes of the memory that they are in. */
export const REGISTERS_SIZE: number = 4 * PAGE;
/** Bytes from one queue's doorbell to the next one's. */
const NOTIFY_MULTIPLIER = 4;

/** Types of capabilities (4.1.4). */
const CapabilityType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;
const VENDOR_SPECIFIC = 9;

/** Registers of the common structure (4.1.4.3). */
const Register = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_MSIX_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  DEVICE_STATUS: 0x14,
  CONFIG_GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_MSIX_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC_LOW: 0x20,
  QUEUE_DESC_HIGH: 0x24,
  QUEUE_DRIVER_LOW: 0x28,
  QUEUE_DRIVER_HIGH: 0x2c,
  QUEUE_DEVICE_LOW: 0x30,
  QUEUE_DEVICE_HIGH: 0x34,
  QUEUE_NOTIFY_DATA: 0x38,
  QUEUE_RESET: 0x3a,
} as const;

/** Bytes of the common structure. */
const COMMON_SIZE = 0x3c;

/** Their sizes, where they are not 2 bytes; each is accessed as a whole (4.1.3.1). */
const sizes = new Map<number, number>([
  [Register.DEVICE_FEATURE_SELECT, 4],
  [Register.DEVICE_FEATURE, 4],
  [Register.DRIVER_FEATURE_SELECT, 4],
  [Register.DRIVER_FEATURE, 4],
  [Register.DEVICE_STATUS, 1],
  [Register.CONFIG_GENERATION, 1],
]);

/** Where a queue register's value is kept; these have 4 bytes as well. */
const addressRegisters = new Map<number, keyof QueueState>([
  [Register.QUEUE_DESC_LOW, "desc_low"],
  [Register.QUEUE_DESC_HIGH, "desc_high"],
  [Register.QUEUE_DRIVER_LOW, "driver_low"],
  [Register.QUEUE_DRIVER_HIGH, "driver_high"],
  [Register.QUEUE_DEVICE_LOW, "device_low"],
  [Register.QUEUE_DEVICE_HIGH, "device_high"],
]);

function sizeOf(register: number): number {
  return sizes.get(register) ?? (addressRegisters.has(register) ? 4 : 2);
}

/** The fields of the state. */
interface TransportFields {
  readonly device_feature_select: typeof u32;
  readonly driver_feature_select: typeof u32;
  readonly queue_select: typeof u16;
  /** The vector that tells of the configuration, and those of the queues. */
  readonly config_vector: typeof u16;
  readonly queue_vectors: Field<ArrayView<number>>;
  readonly [name: string]: Field<unknown>;
}

/** The transport's own state: what its registers select, and vectors. */
export function transportState(queues: number): Struct<TransportFields> {
  return struct("virtio-pci", {
    device_feature_select: u32,
    driver_feature_select: u32,
    queue_select: u16,
    config_vector: u16,
    queue_vectors: array(u16, queues),
  });
}

/** The offset at which a driver rings a queue's bell. */
export function doorbellOffset(queue: number): number {
  return Structure.NOTIFY + NOTIFY_MULTIPLIER * queue;
}

/** A capability, without its first two bytes: a structure, and what else there is to say of it. */
function capability(
  type: number,
  { bar, offset, length }: { bar: number; offset: number; length: number },
  extra: readonly number[] = [],
): CapabilityDescription {
  const body = new Uint8Array(14 + 4 * extra.length);
  const view = new DataView(body.buffer);
  body.set([2 + body.length, type, bar]);
  view.setUint32(6, offset, true);
  view.setUint32(10, length, true);
  extra.forEach((value, i) => view.setUint32(14 + 4 * i, value, true));
  return { id: VENDOR_SPECIFIC, body };
}

/**
 * The capabilities by which a driver finds the structures (4.1.4); the last one is a window onto the
 * memory, for those who have given it no address (4.1.4.9).
 *
 * @param bar the base address register of the memory
 */
export function transportCapabilities(bar: number): CapabilityDescription[] {
  const page = (type: number, offset: number, extra?: readonly number[]) =>
    capability(type, { bar, offset, length: PAGE }, extra);
  const window = capability(CapabilityType.PCI, { bar: 0, offset: 0, length: 0 }, [0]);
  const writable = new Uint8Array(window.body.length);
  writable[2] = 0xff;
  writable.fill(0xff, 6, 14);
  return [
    page(CapabilityType.COMMON, Structure.COMMON),
    page(CapabilityType.ISR, Structure.ISR),
    page(CapabilityType.DEVICE, Structure.DEVICE),
    page(CapabilityType.NOTIFY, Structure.NOTIFY, [NOTIFY_MULTIPLIER]),
    { ...window, writable },
  ];
}

/** Offsets in a capability: which register, from where, how much, and the window's data. */
export const CapabilityField = { BAR: 4, OFFSET: 8, LENGTH: 12, DATA: 16 } as const;

/** What a transport is made over. */
export interface PciTransportParts {
  readonly state: View<TransportFields>;
  readonly virtio: Virtio;
  /** How many interrupt messages there are. */
  readonly vectors: number;
  readonly config: ConfigSpace;
  /** Resets all of the device. */
  resetDevice(): void;
}

/** The registers on one thread. */
export class PciTransport {
  readonly #parts: PciTransportParts;

  /** @param parts what it is over */
  constructor(parts: PciTransportParts) {
    this.#parts = parts;
  }

  /** Reads 1, 2 or 4 bytes of the memory. */
  read(offset: number, size: number): number {
    if (offset < Structure.ISR) {
      const isWhole = offset < COMMON_SIZE && size === sizeOf(offset);
      return isWhole ? this.#readRegister(offset) >>> 0 : 0;
    }
    if (offset < Structure.DEVICE) return offset === Structure.ISR ? this.#takeCauses() : 0;
    return offset < Structure.NOTIFY
      ? this.#parts.config.readConfig(offset - Structure.DEVICE, size)
      : 0;
  }

  /** Writes 1, 2 or 4 bytes of the memory. */
  write(offset: number, size: number, value: number): void {
    if (offset < Structure.ISR) {
      if (offset < COMMON_SIZE && size === sizeOf(offset)) this.#writeRegister(offset, value);
    } else if (offset >= Structure.NOTIFY) {
      const queue = (offset - Structure.NOTIFY) / NOTIFY_MULTIPLIER;
      this.#parts.virtio.parts.doorbells[queue]?.ring();
    } else if (offset >= Structure.DEVICE) {
      this.#parts.config.writeConfig(offset - Structure.DEVICE, size, value);
    }
  }

  /** Puts what is selected, and vectors, back to how a driver finds them. */
  reset(): void {
    const { state } = this.#parts;
    state.device_feature_select = state.driver_feature_select = state.queue_select = 0;
    state.config_vector = NO_VECTOR;
    for (let i = 0; i < state.queue_vectors.length; i++) state.queue_vectors.put(i, NO_VECTOR);
  }

  /** The vector that tells of a queue, or of the configuration. */
  vectorOf(queue: number | undefined): number {
    const { state } = this.#parts;
    return queue === undefined ? state.config_vector : state.queue_vectors.at(queue);
  }

  #readRegister(register: number): number {
    const { state, virtio: { parts } } = this.#parts;
    switch (register) {
      case Register.DEVICE_FEATURE_SELECT:
        return state.device_feature_select;
      case Register.DEVICE_FEATURE: {
        const word = state.device_feature_select;
        return word > 1 ? 0 : Number(BigInt.asUintN(32, parts.features >> BigInt(32 * word)));
      }
      case Register.DRIVER_FEATURE_SELECT:
        return state.driver_feature_select;
      case Register.DRIVER_FEATURE:
        return [parts.state.driver_features_low, parts.state.driver_features_high][
          state.driver_feature_select
        ] ?? 0;
      case Register.CONFIG_MSIX_VECTOR:
        return state.config_vector;
      case Register.NUM_QUEUES:
        return parts.queues.length;
      case Register.DEVICE_STATUS:
        return parts.state.status & 0xff;
      case Register.CONFIG_GENERATION:
        return parts.state.config_generation & 0xff;
      case Register.QUEUE_SELECT:
        return state.queue_select;
      default:
        return this.#queue ? this.#readQueue(register, this.#queue) : noQueue(register);
    }
  }

  #readQueue(register: number, queue: QueueState): number {
    const index = this.#parts.state.queue_select;
    const field = addressRegisters.get(register);
    if (field) return queue[field];
    switch (register) {
      case Register.QUEUE_SIZE:
        return queue.size;
      case Register.QUEUE_MSIX_VECTOR:
        return this.vectorOf(index);
      case Register.QUEUE_ENABLE:
        return queue.ready;
      case Register.QUEUE_NOTIFY_OFF:
      case Register.QUEUE_NOTIFY_DATA:
        return index;
      default:
        return 0;
    }
  }

  #writeRegister(register: number, value: number): void {
    const { state, virtio } = this.#parts;
    switch (register) {
      case Register.DEVICE_FEATURE_SELECT:
        state.device_feature_select = value;
        return;
      case Register.DRIVER_FEATURE_SELECT:
        state.driver_feature_select = value;
        return;
      case Register.DRIVER_FEATURE:
        return virtio.acceptFeatures(state.driver_feature_select, value);
      case Register.CONFIG_MSIX_VECTOR:
        state.config_vector = this.#usable(value);
        return;
      case Register.DEVICE_STATUS:
        return value === 0 ? this.#parts.resetDevice() : virtio.setStatus(value);
      case Register.QUEUE_SELECT:
        state.queue_select = value;
        return;
      default:
        if (this.#queue) this.#writeQueue(register, value, this.#queue);
    }
  }

  /** A queue that is on keeps its size and its place; it is switched off by a reset only (4.1.4.3.2). */
  #writeQueue(register: number, value: number, queue: QueueState): void {
    const { state, virtio } = this.#parts;
    const index = state.queue_select;
    const field = addressRegisters.get(register);
    if (field && queue.ready === 0) queue[field] = value;
    else if (register === Register.QUEUE_SIZE && queue.ready === 0) {
      virtio.setQueueSize(index, value);
    } else if (register === Register.QUEUE_MSIX_VECTOR) {
      state.queue_vectors.put(index, this.#usable(value));
    } else if (register === Register.QUEUE_ENABLE && value === 1) {
      virtio.setQueueReady(index, true);
    } else if (
      register === Register.QUEUE_RESET && value === 1 && virtio.hasFeature(Feature.RING_RESET)
    ) virtio.resetQueue(index);
  }

  /** A vector that there is not is refused by another value (4.1.5.1.2.1). */
  #usable(vector: number): number {
    return vector < this.#parts.vectors ? vector : NO_VECTOR;
  }

  /** Reading says why there is an interrupt, and acknowledges it (4.1.4.5). */
  #takeCauses(): number {
    const { virtio } = this.#parts;
    const causes = virtio.parts.state.isr & 0xff;
    virtio.acknowledge(causes);
    return causes;
  }

  get #queue(): QueueState | undefined {
    return this.#parts.virtio.parts.queues[this.#parts.state.queue_select];
  }
}

/** What reads of a queue that there is not. */
function noQueue(register: number): number {
  return register === Register.QUEUE_MSIX_VECTOR ? NO_VECTOR : 0;
}
