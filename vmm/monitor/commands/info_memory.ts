/**
 * `info` sub-commands about memory.
 *
 * @module
 */
import type { MemoryBackendInfo, RamBlockInfo } from "../control.ts";
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";
import { flatViewText, memoryTreeText } from "../memory_tree.ts";

/** The sub-commands. */
export const infoMemoryCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "mtree",
    parameters: [{ name: "flat", type: "flag", letter: "f" }],
    usage: "[-f]",
    help: "show memory tree (-f: dump flat view for address spaces)",
    run: ({ machine: { addressSpaces } }, { flat }) =>
      flat ? flatViewText(addressSpaces) : memoryTreeText(addressSpaces),
  }),
  defineHmp({
    name: "memdev",
    help: "show memory backends",
    run: ({ machine }) => `${machine.memoryBackends.map(memdevText).join("")}\n`,
  }),
  defineHmp({
    name: "memory_size_summary",
    help: "show the amount of initially allocated and present hotpluggable (if enabled) memory " +
      "in bytes.",
    run: ({ machine: { memory } }) =>
      `base memory: ${memory.size}\nplugged memory: ${memory.plugged}\n`,
  }),
  defineHmp({
    name: "ramblock",
    aliases: ["ram"],
    help: "Display system ramblock information",
    run: ({ machine }) => ramBlockHeader + machine.ramBlocks.map(ramBlockText).join(""),
  }),
  defineHmp({
    name: "roms",
    help: "show roms",
    run: ({ machine }) =>
      machine.roms.map(({ name, address, size, memory }) =>
        `addr=${address.toString(16).padStart(16, "0")} ` +
        `size=0x${size.toString(16).padStart(6, "0")} mem=${memory} name="${name}"\n`
      ).join(""),
  }),
];

function memdevText(backend: MemoryBackendInfo): string {
  return `memory backend: ${backend.id}\n` +
    `  size:  ${backend.size}\n` +
    `  merge: ${backend.merge}\n` +
    `  dump: ${backend.dump}\n` +
    `  prealloc: ${backend.prealloc}\n` +
    `  share: ${backend.share}\n` +
    `  reserve: ${backend.reserve}\n` +
    "  policy: default\n" +
    "  host nodes: \n";
}

const ramBlockHeader = ramBlockLine("Block Name", "PSize", [
  "Offset",
  "Used",
  "Total",
  "HVA",
], "RO");

function ramBlockText(block: RamBlockInfo): string {
  const numbers = [block.offset, block.used, block.total, block.hostAddress];
  return ramBlockLine(
    block.name,
    binarySize(block.pageSize),
    numbers.map((value) => `0x${value.toString(16).padStart(16, "0")}`),
    block.readOnly ? "ro" : "rw",
  );
}

function ramBlockLine(
  name: string,
  pageSize: string,
  numbers: readonly string[],
  access: string,
): string {
  const columns = numbers.map((text) => text.padStart(18)).join(" ");
  return `${name.padStart(24)} ${pageSize.padStart(8)}  ${columns} ${access.padStart(3)}\n`;
}

/** A number of bytes in the largest unit that it is a multiple of. */
function binarySize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (unit < units.length - 1 && bytes >= 1024 && bytes % 1024 === 0) {
    bytes /= 1024;
    unit++;
  }
  return `${bytes} ${units[unit]}`;
}
