/**
 * What all ACPI tables have: the header, checksums, and pointers to one another (ACPI 6.5, 5.2).
 *
 * @module
 */
import { join } from "./aml.ts";

/** Who made the tables, as their headers say. */
export interface Oem {
  /** Up to 6 characters. */
  readonly id: string;
  /** Up to 8 characters. */
  readonly tableId: string;
}

/** Who made them unless `x-oem-id` and `x-oem-table-id` say otherwise. */
export const DEFAULT_OEM: Oem = { id: "DENOVO", tableId: "MICROVM" };

/** Bytes of a table's header. */
export const HEADER_SIZE = 36;
/** Where the header has its checksum. */
export const CHECKSUM = 9;
const OEM_ID_SIZE = 6;
const OEM_TABLE_ID_SIZE = 8;

/** The name and version of what made a table, which is nobody's business. */
const CREATOR = "DNVO";

/** Text of a fixed size, with spaces at its end. */
function padded(text: string, size: number): Uint8Array {
  return new TextEncoder().encode(text.padEnd(size)).subarray(0, size);
}

/** The OEM id as tables have it. */
export function oemId({ id }: Oem): Uint8Array {
  return padded(id, OEM_ID_SIZE);
}

/** A header and its table's body; the checksum is right. */
export function table(
  signature: string,
  revision: number,
  oem: Oem,
  body: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(HEADER_SIZE);
  const view = new DataView(header.buffer);
  header.set(padded(signature, 4));
  view.setUint32(4, HEADER_SIZE + body.length, true);
  header[8] = revision;
  header.set(oemId(oem), 10);
  header.set(padded(oem.tableId, OEM_TABLE_ID_SIZE), 16);
  view.setUint32(24, 1, true); // OEM revision
  header.set(padded(CREATOR, 4), 28);
  view.setUint32(32, 1, true); // creator revision
  const bytes = join(header, body);
  setChecksum(bytes, CHECKSUM);
  return bytes;
}

/** Sets the byte that makes the sum of all bytes 0 modulo 256. */
export function setChecksum(bytes: Uint8Array, at: number): void {
  bytes[at] = 0;
  bytes[at] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}
