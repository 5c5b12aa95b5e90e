/**
 * All ACPI tables of a machine, in the two ways in which a guest gets them: in the BIOS area, where a
 * kernel that is started directly finds them, or by fw_cfg as QEMU's firmware takes them.
 *
 * @module
 */
import type { BytesSegment } from "../../boot/image.ts";
import { BIOS_AREA_START } from "../../machine/microvm.ts";
import { dsdt, type DsdtOptions } from "./dsdt.ts";
import { fadt, FADT_X_DSDT } from "./fadt.ts";
import { type LoaderCommand, loaderScript } from "./loader_script.ts";
import { madt, type MadtOptions } from "./madt.ts";
import { mcfg } from "./mcfg.ts";
import { CHECKSUM, HEADER_SIZE, type Oem, oemId, setChecksum, table } from "./table.ts";

/** What the tables tell of a machine. */
export interface AcpiOptions extends DsdtOptions, MadtOptions {
  readonly oem: Oem;
}

/** Where the RSDP lies: on a 16-byte boundary of the BIOS area, which is scanned; behind an MP table. */
export const RSDP_ADDRESS: number = BIOS_AREA_START + 0x2000;
/** Where the tables lie. */
const TABLES_ADDRESS: number = RSDP_ADDRESS + 0x40;

/** Root System Description Pointer of ACPI 2.0 and later (5.2.5.3). */
const RSDP_SIZE = 36;
const RSDP_V1_SIZE = 20;
const RSDP_XSDT = 24;
const RSDP_CHECKSUM = 8;
const RSDP_EXTENDED_CHECKSUM = 32;

/** A place in the tables that has the address of another. */
interface Pointer {
  /** Where it is. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** Tables, one behind the other. */
interface Tables {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly pointers: readonly Pointer[];
  /** Where each starts, and its size. */
  readonly places: readonly { readonly start: number; readonly size: number }[];
  /** Where the XSDT starts. */
  readonly xsdt: number;
}

/** Makes the tables to lie at `base`: DSDT, FADT, MADT, MCFG where there is PCI Express, XSDT. */
function makeTables(options: AcpiOptions, base: number): Tables {
  const { oem } = options;
  const places: { start: number; size: number }[] = [];
  const made: Uint8Array<ArrayBuffer>[] = [];
  let end = 0;
  const place = (bytes: Uint8Array<ArrayBuffer>): number => {
    const start = Math.ceil(end / 8) * 8;
    places.push({ start, size: bytes.length });
    made.push(bytes);
    end = start + bytes.length;
    return start;
  };
  const dsdtAt = place(dsdt(oem, options));
  const fadtAt = place(fadt(oem, options.rtc !== undefined, base + dsdtAt));
  const madtAt = place(madt(oem, options));
  const listed = [fadtAt, madtAt, ...options.pci ? [place(mcfg(oem, options.pci.ecam))] : []];
  const list = new BigUint64Array(listed.map((at) => BigInt(base + at)));
  const xsdt = place(table("XSDT", 1, oem, new Uint8Array(list.buffer)));
  const bytes = new Uint8Array(end);
  made.forEach((one, i) => bytes.set(one, places[i].start));
  const pointers = [
    { offset: fadtAt + FADT_X_DSDT, size: 8 },
    ...listed.map((_, i) => ({ offset: xsdt + HEADER_SIZE + 8 * i, size: 8 })),
  ];
  return { bytes, pointers, places, xsdt };
}

function rsdp(oem: Oem, xsdt: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(RSDP_SIZE);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("RSD PTR "));
  bytes.set(oemId(oem), 9);
  bytes[15] = 2; // revision
  view.setUint32(20, RSDP_SIZE, true);
  view.setBigUint64(RSDP_XSDT, BigInt(xsdt), true);
  setChecksum(bytes.subarray(0, RSDP_V1_SIZE), RSDP_CHECKSUM);
  setChecksum(bytes, RSDP_EXTENDED_CHECKSUM);
  return bytes;
}

/** The tables for a kernel that is started directly, with the RSDP at {@linkcode RSDP_ADDRESS}. */
export function acpiSegments(options: AcpiOptions): BytesSegment[] {
  const { bytes, xsdt } = makeTables(options, TABLES_ADDRESS);
  const pointer = rsdp(options.oem, TABLES_ADDRESS + xsdt);
  return [
    { name: "etc/acpi/rsdp", gpa: RSDP_ADDRESS, bytes: pointer },
    { name: "etc/acpi/tables", gpa: TABLES_ADDRESS, bytes },
  ];
}

const TABLES_FILE = "etc/acpi/tables";
const RSDP_FILE = "etc/acpi/rsdp";

/** The files of fw_cfg by which firmware puts the tables where it wants and links them. */
export function acpiFiles(options: AcpiOptions): { name: string; data: Uint8Array }[] {
  const { bytes, pointers, places, xsdt } = makeTables(options, 0);
  const pointer = rsdp(options.oem, xsdt);
  const link = (file: string, { offset, size }: Pointer): LoaderCommand => ({
    command: "add-pointer",
    file,
    target: TABLES_FILE,
    offset,
    size,
  });
  const sum = (file: string, at: number, start: number, size: number): LoaderCommand => ({
    command: "add-checksum",
    file,
    at,
    start,
    size,
  });
  const script = loaderScript([
    { command: "allocate", file: RSDP_FILE, align: 16, zone: "bios" },
    { command: "allocate", file: TABLES_FILE, align: 64, zone: "high" },
    ...pointers.map((one) => link(TABLES_FILE, one)),
    ...places.map(({ start, size }) => sum(TABLES_FILE, start + CHECKSUM, start, size)),
    link(RSDP_FILE, { offset: RSDP_XSDT, size: 8 }),
    sum(RSDP_FILE, RSDP_CHECKSUM, 0, RSDP_V1_SIZE),
    sum(RSDP_FILE, RSDP_EXTENDED_CHECKSUM, 0, RSDP_SIZE),
  ]);
  return [
    { name: RSDP_FILE, data: pointer },
    { name: TABLES_FILE, data: bytes },
    { name: "etc/table-loader", data: script },
  ];
}
