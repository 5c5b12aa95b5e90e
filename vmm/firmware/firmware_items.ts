/**
 * What the machine tells firmware by fw_cfg: QEMU's standard items, and the user's (`-fw_cfg`).
 *
 * @module
 */
import {
  encodeItems,
  type FileItem,
  FwCfgKey,
  type KeyedItem,
  refuseName,
} from "../../devices/isa/fw_cfg_items.ts";
import { OsError } from "../../ffi/errno.ts";
import { O, openFile, readFd } from "../../ffi/fd.ts";
import { encodeText } from "../../ffi/text.ts";
import { acpiFiles, type AcpiOptions } from "./acpi/acpi.ts";
import { E820Type, ramRanges } from "./e820.ts";
import type { FirmwareFileConfig, MachineConfig } from "../config.ts";
import { KVM_IDENTITY_MAP_ADDRESS, KVM_PAGES_END } from "../machine/microvm.ts";

/** What FwCfgKey.ID says: the ports of the interface, and those of DMA. */
const FEATURES = 1 | 2;

/** The items of a machine. */
export interface FirmwareItems {
  /** What the device is given. */
  readonly content: Uint8Array<SharedArrayBuffer>;
  /** The user's, in the order of the command line. */
  readonly userFiles: readonly FileItem[];
  /** Lines for the user. */
  readonly warnings: readonly string[];
}

/**
 * Makes the items of a machine; reads the files that the user names.
 *
 * @param config the machine
 * @param apicIds APIC ids, one a vCPU
 * @param acpi what ACPI tables say of it, if it has any
 * @throws {Error} in QEMU's words if a file cannot be read or a name cannot be used
 */
export function firmwareItems(
  config: MachineConfig,
  apicIds: readonly number[],
  acpi?: AcpiOptions,
): FirmwareItems {
  const files: FileItem[] = [...standardFiles(config), ...(acpi ? acpiFiles(acpi) : [])];
  const userFiles = config.firmwareFiles.map((file) => {
    const refusal = refuseName(file.name, files);
    if (refusal !== undefined) throw new Error(`${optionOf(file)}: ${refusal}`);
    const item = { name: file.name, data: contentOf(file) };
    files.push(item);
    return item;
  });
  return {
    content: encodeItems(standardItems(config, apicIds), files),
    userFiles,
    warnings: config.firmwareFiles.filter(({ name }) => !name.startsWith("opt/")).map((file) =>
      `${optionOf(file)}: warning: externally provided fw_cfg item names should be prefixed with` +
      ' "opt/"'
    ),
  };
}

function standardItems(config: MachineConfig, apicIds: readonly number[]): KeyedItem[] {
  const { boot, memory, nographic, smp, uuid = "" } = config;
  return [
    { key: FwCfgKey.SIGNATURE, data: new TextEncoder().encode("QEMU") },
    { key: FwCfgKey.ID, data: number(FEATURES, 4) },
    { key: FwCfgKey.UUID, data: Uint8Array.fromHex(uuid.replaceAll("-", "").padEnd(32, "0")) },
    { key: FwCfgKey.RAM_SIZE, data: number(memory, 8) },
    { key: FwCfgKey.NOGRAPHIC, data: number(nographic ? 1 : 0, 2) },
    { key: FwCfgKey.NB_CPUS, data: number(smp.cpus, 2) },
    // As QEMU on x86: what all APIC ids are below.
    { key: FwCfgKey.MAX_CPUS, data: number(Math.max(...apicIds) + 1, 2) },
    { key: FwCfgKey.BOOT_MENU, data: number(boot.menu ? 1 : 0, 2) },
    { key: FwCfgKey.IRQ0_OVERRIDE, data: number(1, 4) },
  ];
}

function standardFiles({ boot, memory }: MachineConfig): FileItem[] {
  const files = [
    { name: "bios-geometry", data: new Uint8Array() },
    { name: "bootorder", data: new Uint8Array() },
    { name: "etc/boot-fail-wait", data: number(boot.rebootTimeout ?? -1, 4) },
    { name: "etc/e820", data: e820Table(memory) },
  ];
  if (boot.splashTime === undefined) return files;
  return [...files, { name: "etc/boot-menu-wait", data: number(boot.splashTime, 2) }];
}

/**
 * struct e820_entry: address, size (64 bits each), type (32 bits). RAM has no holes here: what is
 * reserved below 1 MiB is firmware's to say.
 */
function e820Table(memory: number): Uint8Array {
  const kvmPages = {
    addr: KVM_IDENTITY_MAP_ADDRESS,
    size: KVM_PAGES_END - KVM_IDENTITY_MAP_ADDRESS,
  };
  const entries = [
    { ...kvmPages, type: E820Type.RESERVED },
    ...ramRanges(memory).map((range) => ({ ...range, type: E820Type.RAM })),
  ];
  const bytes = new Uint8Array(entries.length * 20);
  const view = new DataView(bytes.buffer);
  entries.forEach(({ addr, size, type }, i) => {
    view.setBigUint64(i * 20, BigInt(addr), true);
    view.setBigUint64(i * 20 + 8, BigInt(size), true);
    view.setUint32(i * 20 + 16, type, true);
  });
  return bytes;
}

/** A number of `size` bytes, little-endian. */
function number(value: number, size: 2 | 4 | 8): Uint8Array {
  return new Uint8Array(new BigInt64Array([BigInt(value)]).buffer, 0, size);
}

function contentOf(file: FirmwareFileConfig): Uint8Array {
  if (file.text !== undefined) return encodeText(file.text);
  try {
    return readWhole(file.path);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    throw new Error(`${optionOf(file)}: can't load ${file.path}: ${error.reason}`, {
      cause: error,
    });
  }
}

/** All that a file has, or a pipe of a shell's `<(…)`. */
function readWhole(path: string): Uint8Array {
  using fd = openFile(path, O.RDONLY);
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for (;;) {
    const chunk = new Uint8Array(1 << 16);
    const length = readFd(fd.fd, chunk);
    if (length <= 0) break;
    chunks.push(chunk.subarray(0, length));
  }
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  chunks.reduce((at, chunk) => (bytes.set(chunk, at), at + chunk.length), 0);
  return bytes;
}

/** The option that asks for a file, as the user typed it. */
function optionOf(file: FirmwareFileConfig): string {
  const value = file.text === undefined ? `file=${file.path}` : `string=${file.text}`;
  return `-fw_cfg name=${file.name},${value}`;
}
