/**
 * `-device loader`: QEMU's generic loader, which puts a file or a value into RAM and may start a CPU
 * there.
 *
 * `cpu-num` starts that CPU at the address of the file (`e_entry` of an ELF image): in the state
 * after reset but for CS:IP, so in real mode, see {@linkcode realStart}.
 *
 * @module
 */
import { type CpuStart, realStart } from "./cpu_start.ts";
import { HIGH_RAM_START } from "../machine/microvm.ts";
import { checkEntry, isElf, parseElf } from "./elf.ts";
import { BootError, hex, type ImageFile, type Segment } from "./image.ts";

/** Properties of one `-device loader`. */
export interface LoaderRequest {
  /** What to load. */
  readonly file?: ImageFile;
  /** Guest physical address; an ELF image has its own. */
  readonly addr?: number;
  /** The CPU that starts there. */
  readonly cpuNum?: number;
  /** Load an ELF image as a file like any other. */
  readonly forceRaw?: boolean;
  /** A value to store at `addr`. */
  readonly data?: bigint;
  /** Bytes of the value to store, at most 8. */
  readonly dataLen?: number;
  /** Store the value big-endian. */
  readonly dataBe?: boolean;
}

/** What a loader puts into RAM, and which CPU it starts. */
export interface LoaderPlan {
  /** What is written into RAM. */
  readonly segments: readonly Segment[];
  /** Index and state of the CPU to start. */
  readonly start?: { readonly cpu: number; readonly state: CpuStart };
}

/**
 * Plans one `-device loader`.
 *
 * @param request its properties
 * @param cpus number of vCPUs
 * @throws {BootError} with QEMU's texts where properties contradict each other
 */
export function planLoader(request: LoaderRequest, cpus: number): LoaderPlan {
  const { file, addr = 0, cpuNum } = request;
  checkProperties(request);
  if (cpuNum !== undefined && (cpuNum < 0 || cpuNum >= cpus)) {
    throw new BootError(`Specified boot CPU#${cpuNum} is nonexistent`);
  }
  if (file && !request.forceRaw && isElf(file)) return planElf(file, cpuNum);
  if (hasData(request)) return { segments: [dataSegment(request)] };
  const segments = file ? [{ name: file.path, gpa: addr, file, offset: 0, length: file.size }] : [];
  return { segments, start: startAt(cpuNum, addr) };
}

function hasData({ data, dataLen, dataBe }: LoaderRequest): boolean {
  return !!data || !!dataLen || !!dataBe;
}

function checkProperties(request: LoaderRequest): void {
  const { file, addr, cpuNum, forceRaw, dataLen } = request;
  const fail = (text: string) => {
    throw new BootError(text);
  };
  if (hasData(request)) {
    if (file) fail("Specifying a file is not supported when loading memory values");
    if (forceRaw) fail("Specifying force-raw is not supported when loading memory values");
    if (!dataLen) fail("Both data and data-len must be specified");
    if (dataLen! > 8) fail("data-len cannot be greater then 8 bytes");
  } else if (!file && forceRaw) {
    fail("force-raw needs a file to load");
  } else if (!file && addr === undefined) {
    fail("please include valid arguments");
  } else if (!file && cpuNum === undefined) {
    fail("cpu_num must be specified when setting a program counter");
  }
}

function planElf(file: ImageFile, cpuNum: number | undefined): LoaderPlan {
  const elf = parseElf(file);
  if (cpuNum !== undefined) checkEntry(elf, elf.entry, "e_entry");
  return { segments: elf.segments, start: startAt(cpuNum, elf.entry) };
}

function dataSegment({ addr = 0, data = 0n, dataLen = 0, dataBe }: LoaderRequest): Segment {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, data), true);
  const value = bytes.subarray(0, dataLen);
  return { name: "loader data", gpa: addr, bytes: dataBe ? value.reverse() : value };
}

function startAt(cpu: number | undefined, address: number): LoaderPlan["start"] {
  if (cpu === undefined) return undefined;
  if (address >= HIGH_RAM_START) {
    throw new BootError(`CPU#${cpu} cannot start at ${hex(address)}: real mode ends at 4 GiB`);
  }
  return { cpu, state: realStart(address) };
}
