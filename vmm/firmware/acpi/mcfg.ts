/**
 * The table that says where the configuration space of PCI Express is (PCI Firmware Specification 3.2,
 * 4.1.2).
 *
 * @module
 */
import type { Window } from "../../machine/microvm.ts";
import { type Oem, table } from "./table.ts";

const REVISION = 1;
/** Bytes of configuration space a bus. */
const BUS_SIZE = 1 << 20;

/** Makes the table. @param ecam configuration space of all buses from number 0 on */
export function mcfg(oem: Oem, ecam: Window): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(8 + 16);
  const view = new DataView(body.buffer);
  view.setBigUint64(8, BigInt(ecam.base), true);
  // Segment 0, from bus 0 on.
  view.setUint8(19, ecam.size / BUS_SIZE - 1);
  return table("MCFG", REVISION, oem, body);
}
