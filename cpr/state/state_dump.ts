/**
 * `denovo state FILE`: a saved state as JSON, for people and for tools.
 *
 * ```text
 * {
 *   "format": 1,               version of the stream's framing
 *   "length": 40321,           bytes of the stream
 *   "rest": 0,                 bytes in the file behind the stream's end
 *   "sections": [              in the stream's order
 *     {"name", "id", "version", "length": bytes of data, "checksum": "0x…", "fields": {…}},
 *     {"name", "id", "version", "length", "checksum", "undecoded": why, "hex": the first 64 bytes},
 *     {"name": "ram", "id": region, "count": sections in a row, "bytes": of RAM,
 *      "pages": of 4096 bytes, "zeroPages", "ranges": [{"offset": "0x…", "length": "0x…"}]}
 *   ]
 * }
 * ```
 *
 * Fields have the names of the structs that are saved: the kernel's and the devices' own. How their
 * values are written says {@linkcode Plain}; above all, 64-bit numbers are strings, `"0x…"`. RAM is
 * summed up: its ranges, and how many of its pages hold only zeros.
 *
 * @module
 */
import { duplicate } from "../../ffi/fd.ts";
import { FdRegistry } from "../../vmm/monitor/fd_registry.ts";
import { parseUri } from "../channel/address.ts";
import { Channel } from "../channel/channel.ts";
import { openIncoming } from "../channel/open.ts";
import { RAM, ZERO } from "./ram.ts";
import { type SectionFields, sectionFields } from "./state_fields.ts";
import {
  type ByteSource,
  FORMAT_VERSION,
  type ReadSection,
  readSections,
  StateError,
} from "../stream/stream.ts";

const PAGE = 4096;
const READ_SIZE = 1 << 20;
const USAGE = "usage: denovo state FILE | file:FILE[,offset=OFFSET] | -";

/** One section, decoded. */
export type DumpedSection =
  & {
    readonly name: string;
    readonly id: string;
    readonly version: number;
    readonly length: number;
    readonly checksum: string;
  }
  & SectionFields;

/** RAM sections of one region that follow each other. */
export interface DumpedRam {
  readonly name: typeof RAM;
  /** The memory region. */
  readonly id: string;
  /** Number of sections. */
  readonly count: number;
  readonly bytes: number;
  readonly pages: number;
  readonly zeroPages: number;
  /** Offsets in the region and lengths; what is adjacent is one range. */
  readonly ranges: readonly { readonly offset: string; readonly length: string }[];
}

/** A whole stream, as this module's documentation shows it. */
export interface StateDump {
  readonly format: number;
  readonly length: number;
  readonly rest: number;
  readonly sections: readonly (DumpedSection | DumpedRam)[];
}

/** Sums up RAM sections that follow each other. */
class RamSummary {
  count = 0;
  bytes = 0n;
  pages = 0;
  zeroPages = 0;
  readonly ranges: { offset: bigint; length: bigint }[] = [];

  constructor(readonly id: string) {}

  add({ name, data }: ReadSection): void {
    const head = new DataView(data.buffer, data.byteOffset, data.length);
    const offset = head.getBigUint64(0, true);
    const isZero = name === ZERO;
    const length = isZero ? head.getBigUint64(8, true) : BigInt(data.length - 8);
    const pages = Math.ceil(Number(length) / PAGE);
    this.count++;
    this.bytes += length;
    this.pages += pages;
    this.zeroPages += isZero ? pages : countZeroPages(data.subarray(8));
    const last = this.ranges.at(-1);
    if (last && last.offset + last.length === offset) last.length += length;
    else this.ranges.push({ offset, length });
  }

  get dump(): DumpedRam {
    const { id, count, pages, zeroPages } = this;
    const hex = (value: bigint) => `0x${value.toString(16)}`;
    const ranges = this.ranges.map(({ offset, length }) => ({
      offset: hex(offset),
      length: hex(length),
    }));
    return { name: RAM, id, count, bytes: Number(this.bytes), pages, zeroPages, ranges };
  }
}

function countZeroPages(data: Uint8Array): number {
  let count = 0;
  for (let at = 0; at < data.length; at += PAGE) {
    if (data.subarray(at, at + PAGE).every((byte) => byte === 0)) count++;
  }
  return count;
}

/** RAM that has the form of RAM; anything else is shown as it is. */
function isRam({ name, data }: ReadSection): boolean {
  return (name === RAM && data.length >= 8) || (name === ZERO && data.length === 16);
}

/**
 * Reads a stream to its end and decodes it. Nothing of this host or of KVM is asked.
 *
 * @param source the stream; it is read on behind the stream's end
 * @throws {StateError} that names the section, if the stream is cut or damaged
 */
export function dumpState(source: ByteSource): StateDump {
  let length = 0;
  const counting: ByteSource = (wanted) => {
    const bytes = source(wanted);
    length += bytes.length;
    return bytes;
  };
  const sections: (DumpedSection | RamSummary)[] = [];
  for (const section of readSections(counting)) {
    if (isRam(section)) {
      let last = sections.at(-1);
      if (!(last instanceof RamSummary && last.id === section.id)) {
        sections.push(last = new RamSummary(section.id));
      }
      last.add(section);
      continue;
    }
    const { name, id, version, data, checksum } = section;
    const sum = `0x${checksum.toString(16).padStart(8, "0")}`;
    const fields = sectionFields(section);
    sections.push({ name, id, version, length: data.length, checksum: sum, ...fields });
  }
  let rest = 0;
  for (let n; (n = source(READ_SIZE).length) > 0;) rest += n;
  return {
    format: FORMAT_VERSION,
    length,
    rest,
    sections: sections.map((entry) => entry instanceof RamSummary ? entry.dump : entry),
  };
}

async function openState(argument: string): Promise<Channel> {
  if (argument === "-") return new Channel(duplicate(0));
  const address = argument.startsWith("file:")
    ? parseUri(argument)
    : { transport: "file", filename: argument, offset: 0 } as const;
  const end = await openIncoming(address, new FdRegistry());
  if (end.kind === "open") return end.channel;
  throw new Error(USAGE);
}

/**
 * The program `state`: prints a saved state as JSON, or one line on stderr that says why not.
 *
 * @param args what follows `state` on the command line
 * @returns the exit status
 */
export async function printState(args: readonly string[]): Promise<number> {
  const [argument] = args;
  if (args.length !== 1 || argument === "" || (argument.startsWith("-") && argument !== "-")) {
    console.error(`denovo: ${USAGE}`);
    return 1;
  }
  try {
    using channel = await openState(argument);
    console.log(JSON.stringify(dumpState(channel.source), null, 2));
    return 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    console.error(`denovo: ${describeError(error, argument)}`);
    return 1;
  }
}

/** What is wrong with the file's content says which file; what is wrong with its name says so. */
function describeError(error: Error, argument: string): string {
  return error instanceof StateError ? `${argument}: ${error.message}` : error.message;
}
