/**
 * HMP commands that look at guest memory and compute: `x`, `xp`, `print`, `sum`, `cpu`.
 *
 * @module
 */
import type { CommandContext, DumpFormat } from "../context.ts";
import type { Awaitable } from "../control.ts";
import { chunksOf, readVirtual } from "../guest_read.ts";
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";

const dumpParameters = [
  { name: "format", type: "format" },
  { name: "address", type: "long" },
] as const;

/** The commands. */
export const memoryHmpCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "x",
    parameters: dumpParameters,
    usage: "/fmt addr",
    help: "virtual memory dump starting at 'addr'",
    run: (context, { format, address }) =>
      dump(
        format,
        address,
        16,
        (at, length) => readVirtual(context.machine, context.session.cpuIndex, at, length),
      ),
  }),
  defineHmp({
    name: "xp",
    parameters: dumpParameters,
    usage: "/fmt addr",
    help: "physical memory dump starting at 'addr'",
    run: (context, { format, address }) =>
      dump(format, address, 8, (at, length) => context.machine.readMemory(at, length)),
  }),
  defineHmp({
    name: "print",
    aliases: ["p"],
    parameters: [{ name: "format", type: "format" }, { name: "value", type: "long" }],
    usage: "/fmt expr",
    help: "print expression value (use $reg for CPU register access)",
    run: (_context, { format, value }) => `${printed(format.format, value)}\n`,
  }),
  defineHmp({
    name: "sum",
    parameters: [{ name: "start", type: "int" }, { name: "size", type: "int" }],
    usage: "addr size",
    help: "compute the checksum of a memory region",
    run: checksum,
  }),
  defineHmp({
    name: "cpu",
    parameters: [{ name: "index", type: "int" }],
    usage: "index",
    help: "set the default CPU",
    run: ({ machine, session }, { index }) => {
      if (!machine.vcpus.some((vcpu) => vcpu.index === index)) return "invalid CPU index\n";
      session.cpuIndex = index;
    },
  }),
];

type Reader = (address: bigint, length: number) => Awaitable<Uint8Array<ArrayBuffer> | undefined>;

/** Lines of `ADDRESS: ITEM ITEM ...`, up to the first line that is not all memory. */
async function dump(
  { count, format, size: given }: DumpFormat & { readonly count: number },
  address: bigint,
  addressDigits: number,
  read: Reader,
): Promise<string> {
  const size = format === "c" ? 1 : given;
  const lineBytes = size === 1 && format !== "c" ? 8 : 16;
  let text = "";
  for (let done = 0; done < count * size; done += lineBytes) {
    const at = BigInt.asUintN(64, address + BigInt(done));
    const label = at.toString(16).padStart(addressDigits, "0");
    const bytes = await read(at, Math.min(lineBytes, count * size - done));
    if (!bytes) return `${text}${label}: Cannot access memory\n`;
    text += `${label}:${items(bytes, size, format)}\n`;
  }
  return text;
}

function items(bytes: Uint8Array, size: DumpFormat["size"], format: DumpFormat["format"]): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += size) {
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[at + i]);
    text += ` ${item(value, size, format)}`;
  }
  return text;
}

/** Digits of the largest decimal value, by bytes. */
const decimalDigits = { 1: 3, 2: 5, 4: 10, 8: 20 } as const;

/** One value of a dump, padded so that columns line up. */
function item(value: bigint, size: DumpFormat["size"], format: DumpFormat["format"]): string {
  switch (format) {
    case "x":
      return `0x${value.toString(16).padStart(size * 2, "0")}`;
    case "o":
      return octal(value).padStart(Math.ceil(size * 8 / 3));
    case "u":
      return value.toString().padStart(decimalDigits[size]);
    case "d":
      // QEMU shows items below 64 bits unsigned.
      return (size < 8 ? value : BigInt.asIntN(64, value)).toString().padStart(decimalDigits[size]);
    case "c":
      return character(value);
  }
}

/** A value as `print` shows it. */
function printed(format: DumpFormat["format"], value: bigint): string {
  const unsigned = BigInt.asUintN(64, value);
  switch (format) {
    case "x":
      return `0x${unsigned.toString(16)}`;
    case "o":
      return octal(unsigned);
    case "u":
      return unsigned.toString();
    case "d":
      return value.toString();
    case "c":
      return character(BigInt.asUintN(32, value));
  }
}

const octal = (value: bigint) => value === 0n ? "0" : `0${value.toString(8)}`;

/** A character constant as C would write it. */
function character(value: bigint): string {
  const escapes: Record<string, string> = { "'": "\\'", "\\": "\\\\", "\n": "\\n", "\r": "\\r" };
  if (value < 0x20n && value !== 10n && value !== 13n || value > 0x7en) {
    return `'\\x${value.toString(16).padStart(2, "0")}'`;
  }
  const char = String.fromCharCode(Number(value));
  return `'${escapes[char] ?? char}'`;
}

/** The checksum of BSD's sum(1): rotate right, add. What is no memory counts as zeros. */
async function checksum(
  { machine }: CommandContext,
  { start, size }: { readonly start: number; readonly size: number },
): Promise<string> {
  let sum = 0;
  for await (const { address, length } of chunksOf(BigInt(start), BigInt(size))) {
    for (const byte of machine.readMemory(address, length) ?? new Uint8Array(length)) {
      sum = ((sum >> 1 | sum << 15) + byte) & 0xffff;
    }
  }
  return `${sum.toString().padStart(5, "0")}\n`;
}
