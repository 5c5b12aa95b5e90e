/**
 * The virtio-mmio transport: a virtio device's registers in memory (virtio 1.2, 4.2).
 *
 * @module
 */
import { type Struct, struct, u32, type View } from "../../ffi/struct.ts";
import type { Virtio } from "./virtio.ts";
import type { QueueState } from "./ring.ts";
import type { ConfigSpace } from "./virtio_kind.ts";
import { Feature } from "./virtio_state.ts";

/** Bytes of registers and configuration space, as QEMU's transports have. */
export const MMIO_SIZE = 0x200;

/** Register offsets (4.2.2). */
const Register = {
  MAGIC_VALUE: 0x000,
  VERSION: 0x004,
  DEVICE_ID: 0x008,
  VENDOR_ID: 0x00c,
  DEVICE_FEATURES: 0x010,
  DEVICE_FEATURES_SEL: 0x014,
  DRIVER_FEATURES: 0x020,
  DRIVER_FEATURES_SEL: 0x024,
  QUEUE_SEL: 0x030,
  QUEUE_NUM_MAX: 0x034,
  QUEUE_NUM: 0x038,
  QUEUE_READY: 0x044,
  QUEUE_NOTIFY: 0x050,
  INTERRUPT_STATUS: 0x060,
  INTERRUPT_ACK: 0x064,
  STATUS: 0x070,
  QUEUE_DESC_LOW: 0x080,
  QUEUE_DESC_HIGH: 0x084,
  QUEUE_DRIVER_LOW: 0x090,
  QUEUE_DRIVER_HIGH: 0x094,
  QUEUE_DEVICE_LOW: 0x0a0,
  QUEUE_DEVICE_HIGH: 0x0a4,
  SHM_LEN_LOW: 0x0b0,
  SHM_LEN_HIGH: 0x0b4,
  SHM_BASE_LOW: 0x0b8,
  SHM_BASE_HIGH: 0x0bc,
  QUEUE_RESET: 0x0c0,
  CONFIG_GENERATION: 0x0fc,
  CONFIG: 0x100,
} as const;

/** Offset of the register that the driver rings the bell with; the value is the queue's number. */
export const QUEUE_NOTIFY: number = Register.QUEUE_NOTIFY;

/** "virt" */
const MAGIC = 0x7472_6976;
/** Not the legacy interface, which is 1. */
const VERSION = 2;
/** "QEMU" */
const VENDOR = 0x554d_4551;

const fields = {
  device_features_sel: u32,
  driver_features_sel: u32,
  queue_sel: u32,
};

/** The transport's own state: what its registers select. */
export const mmioState: Struct<typeof fields> = struct("virtio-mmio", fields);

/** Where a queue register's value is kept. */
const addressRegisters = new Map<number, keyof QueueState>([
  [Register.QUEUE_DESC_LOW, "desc_low"],
  [Register.QUEUE_DESC_HIGH, "desc_high"],
  [Register.QUEUE_DRIVER_LOW, "driver_low"],
  [Register.QUEUE_DRIVER_HIGH, "driver_high"],
  [Register.QUEUE_DEVICE_LOW, "device_low"],
  [Register.QUEUE_DEVICE_HIGH, "device_high"],
]);

/** The registers. */
export class MmioTransport {
  readonly #state: View<typeof fields>;
  readonly #virtio: Virtio;
  readonly #config: ConfigSpace;
  readonly #deviceId: number;
  readonly #resetDevice: () => void;

  /**
   * @param state what is selected
   * @param virtio the device's common part
   * @param deviceId its kind (5)
   * @param config its configuration space
   * @param resetDevice resets all of the device
   */
  constructor(
    state: View<typeof fields>,
    virtio: Virtio,
    deviceId: number,
    config: ConfigSpace,
    resetDevice: () => void,
  ) {
    this.#state = state;
    this.#virtio = virtio;
    this.#deviceId = deviceId;
    this.#config = config;
    this.#resetDevice = resetDevice;
  }

  /** Reads registers or configuration. Registers are read as aligned words, or as 0 (4.2.2.2). */
  read(offset: number, size: number): number {
    if (offset >= Register.CONFIG) return this.#config.readConfig(offset - Register.CONFIG, size);
    return size === 4 && offset % 4 === 0 ? this.#readRegister(offset) >>> 0 : 0;
  }

  /** Writes registers or configuration. */
  write(offset: number, size: number, value: number): void {
    if (offset >= Register.CONFIG) {
      this.#config.writeConfig(offset - Register.CONFIG, size, value);
    } else if (size === 4 && offset % 4 === 0) this.#writeRegister(offset, value);
  }

  #readRegister(offset: number): number {
    const { parts } = this.#virtio;
    switch (offset) {
      case Register.MAGIC_VALUE:
        return MAGIC;
      case Register.VERSION:
        return VERSION;
      case Register.DEVICE_ID:
        return this.#deviceId;
      case Register.VENDOR_ID:
        return VENDOR;
      case Register.DEVICE_FEATURES: {
        const word = this.#state.device_features_sel;
        return word > 1 ? 0 : Number(BigInt.asUintN(32, parts.features >> BigInt(32 * word)));
      }
      case Register.QUEUE_NUM_MAX:
        return parts.queueSizes[this.#state.queue_sel] ?? 0;
      case Register.QUEUE_READY:
        return this.#queue?.ready ?? 0;
      case Register.INTERRUPT_STATUS:
        return parts.state.isr;
      case Register.STATUS:
        return parts.state.status;
      case Register.CONFIG_GENERATION:
        return parts.state.config_generation;
      case Register.SHM_LEN_LOW:
      case Register.SHM_LEN_HIGH:
      case Register.SHM_BASE_LOW:
      case Register.SHM_BASE_HIGH:
        // There is no shared memory region (4.2.2).
        return 0xffff_ffff;
      default:
        return 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    switch (offset) {
      case Register.DEVICE_FEATURES_SEL:
        this.#state.device_features_sel = value;
        return;
      case Register.DRIVER_FEATURES_SEL:
        this.#state.driver_features_sel = value;
        return;
      case Register.DRIVER_FEATURES:
        return this.#virtio.acceptFeatures(this.#state.driver_features_sel, value);
      case Register.QUEUE_SEL:
        this.#state.queue_sel = value;
        return;
      case Register.QUEUE_NOTIFY:
        return this.#virtio.parts.doorbells[value]?.ring();
      case Register.INTERRUPT_ACK:
        return this.#virtio.acknowledge(value);
      case Register.STATUS:
        return value === 0 ? this.#resetDevice() : this.#virtio.setStatus(value);
      default:
        if (this.#queue) this.#writeQueue(offset, value, this.#queue);
    }
  }

  /** A queue that is ready keeps its size and its place (4.2.2.1). */
  #writeQueue(offset: number, value: number, queue: QueueState): void {
    const index = this.#state.queue_sel;
    const field = addressRegisters.get(offset);
    if (field && queue.ready === 0) queue[field] = value;
    else if (offset === Register.QUEUE_NUM && queue.ready === 0) {
      this.#virtio.setQueueSize(index, value);
    } else if (offset === Register.QUEUE_READY) {
      if (value <= 1) this.#virtio.setQueueReady(index, value === 1);
    } else if (
      offset === Register.QUEUE_RESET && value === 1 &&
      this.#virtio.hasFeature(Feature.RING_RESET)
    ) this.#virtio.resetQueue(index);
  }

  get #queue(): QueueState | undefined {
    return this.#virtio.parts.queues[this.#state.queue_sel];
  }
}
