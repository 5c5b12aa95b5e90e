/**
 * The state of a port of a virtio-serial device.
 *
 * @module
 */
import { type Struct, struct, u32, u8, type View } from "../../ffi/struct.ts";

const fields = {
  /** Bytes of the request in hand that the host has taken. */
  sent: u32,
  /** What the driver is still to be told, of `Pending`. */
  pending: u8,
  /** Whether the driver knows the port. */
  ready: u8,
  /** Whether somebody has opened it in the guest. */
  guest_connected: u8,
  /** Whether somebody is there on the host. */
  host_connected: u8,
};

/** Its layout. */
export const portState: Struct<typeof fields> = struct("virtio-serial-port", fields);
/** A port's state. */
export type PortState = View<typeof fields>;
