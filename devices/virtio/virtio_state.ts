/**
 * The state that every virtio device has, whatever its transport (virtio 1.2, 2).
 *
 * @module
 */
import { type Struct, struct, u32, type View } from "../../ffi/struct.ts";

const fields = {
  // Feature bits that the driver has accepted: 0 to 31, 32 to 63.
  driver_features_low: u32,
  driver_features_high: u32,
  /** Device status, of {@linkcode Status}. */
  status: u32,
  /** Why there is an interrupt, of {@linkcode InterruptCause}. */
  isr: u32,
  /** Changes with the configuration space. */
  config_generation: u32,
};

/** See {@linkcode VirtioState}. */
export const virtioState: Struct<typeof fields> = struct("virtio", fields);
/** The common state of a virtio device. */
export type VirtioState = View<typeof fields>;

/** Device status bits (2.1). */
export const Status = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Bits of the interrupt status (4.2.2). */
export const InterruptCause = { USED_BUFFER: 1, CONFIG_CHANGE: 2 } as const;

/** Feature bits that no kind of device has for itself (6). */
export const Feature = {
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  RING_PACKED: 34,
  RING_RESET: 40,
} as const;
