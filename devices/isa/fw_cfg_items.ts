/**
 * The items of `fw_cfg`: named files get their keys here, and all become bytes that any thread reads.
 *
 * @module
 */
import { encodeText } from "../../ffi/text.ts";

/** Keys of items (QEMU's include/standard-headers/linux/qemu_fw_cfg.h and hw/i386/fw_cfg.h). */
export const FwCfgKey = {
  SIGNATURE: 0x00,
  ID: 0x01,
  UUID: 0x02,
  RAM_SIZE: 0x03,
  NOGRAPHIC: 0x04,
  NB_CPUS: 0x05,
  BOOT_MENU: 0x0e,
  MAX_CPUS: 0x0f,
  FILE_DIR: 0x19,
  IRQ0_OVERRIDE: 0x8002,
} as const;

/** Files have the keys from here on. */
const FILE_FIRST = 0x20;
/** QEMU has room for so many files. */
const MAX_FILES = 0x20 + 0xdf;
/** Bytes of a file's name in the directory, with the zero at its end. */
const NAME_SIZE = 56;
/** struct FWCfgFile: size, key, two bytes for later, name; numbers are big-endian. */
const ENTRY_SIZE = 8 + NAME_SIZE;

/** An item that firmware knows by its key. */
export interface KeyedItem {
  readonly key: number;
  readonly data: Uint8Array;
}

/** An item that the guest finds by its name in the directory. */
export interface FileItem {
  readonly name: string;
  readonly data: Uint8Array;
}

/** Why a name cannot be an item's, in QEMU's words; undefined if it can. */
export function refuseName(name: string, others: readonly FileItem[]): string | undefined {
  const { length } = encodeText(name);
  if (length >= NAME_SIZE) return `name too long (max. ${NAME_SIZE - 1} char)`;
  if (name.includes("\0")) return "name contains a zero character";
  if (others.some((other) => other.name === name)) return `duplicate fw_cfg file name: ${name}`;
  return others.length >= MAX_FILES ? `there are more than ${MAX_FILES} fw_cfg files` : undefined;
}

/**
 * Makes bytes of all items: those with keys, the files, and the files' directory. A number of items;
 * then of each its key, two bytes of nothing, its size and its data. Numbers are little-endian.
 */
export function encodeItems(
  keyed: readonly KeyedItem[],
  files: readonly FileItem[],
): Uint8Array<SharedArrayBuffer> {
  const sorted = files.toSorted((a, b) => a.name < b.name ? -1 : 1);
  const items: KeyedItem[] = [
    ...keyed,
    { key: FwCfgKey.FILE_DIR, data: directory(sorted) },
    ...sorted.map(({ data }, i) => ({ key: FILE_FIRST + i, data })),
  ];
  const size = items.reduce((sum, { data }) => sum + 8 + data.length, 4);
  const bytes = new Uint8Array(new SharedArrayBuffer(size));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, items.length, true);
  let at = 4;
  for (const { key, data } of items) {
    view.setUint16(at, key, true);
    view.setUint32(at + 4, data.length, true);
    bytes.set(data, at + 8);
    at += 8 + data.length;
  }
  return bytes;
}

/** The items by their keys, as parts of what {@linkcode encodeItems} made; none of no bytes. */
export function decodeItems(bytes: Uint8Array): Map<number, Uint8Array> {
  const items = new Map<number, Uint8Array>();
  if (bytes.length === 0) return items;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 4;
  for (let count = view.getUint32(0, true); count > 0; count--) {
    const size = view.getUint32(at + 4, true);
    items.set(view.getUint16(at, true), bytes.subarray(at + 8, at + 8 + size));
    at += 8 + size;
  }
  return items;
}

function directory(files: readonly FileItem[]): Uint8Array {
  const bytes = new Uint8Array(4 + files.length * ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, files.length);
  files.forEach(({ name, data }, i) => {
    const at = 4 + i * ENTRY_SIZE;
    view.setUint32(at, data.length);
    view.setUint16(at + 4, FILE_FIRST + i);
    bytes.set(encodeText(name), at + 8);
  });
  return bytes;
}
