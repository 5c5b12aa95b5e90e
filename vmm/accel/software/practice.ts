/**
 * What software CPUs get faster by: V8 compiles a function when it is called for the first time, and
 * optimizes it once it has been called often, and a guest that has just come would wait for both.
 *
 * The program (`practice.s`) has an area of memory for each vCPU, with page tables of its own.
 *
 * @module
 */
import type { MappedRegion } from "../../../ffi/memory.ts";
import { type CpuStart, long64Start } from "../../boot/cpu_start.ts";
import type { Practice } from "../accelerator.ts";
import { practiceImage } from "./practice_image.ts";

const PAGE = 4096;
// The pages of an area.
const CODE = 0;
const DATA = PAGE;
const STACK = 2 * PAGE;
const PML4 = 3 * PAGE;
const PDPT = 4 * PAGE;
const PAGE_DIRECTORY = 5 * PAGE;
const PAGE_TABLE = 6 * PAGE;
const AREA = 7 * PAGE;
/** More would take more than a MiB, and longer than the rest of an update. */
const MOST_VCPUS = 32;
const LIMIT_MS = 200;

/** Linear address of the code; data and stack follow. */
const LINEAR = 0x40_0000;
/** In the data page: not 0 once it has been through. */
const DONE = DATA + 0x5f0;
/** What it has of the hole below 4 GiB: the local APIC, and where no device is. */
const DEVICES = [0xfee0_0000, 0xd7e0_0000];

const LARGE_PAGE = 1 << 21;
const GIB = 1 << 30;
/** Present, writable, for the user too. */
const TABLE = 7n;
/** Present, writable, a page of 2 MiB. */
const LARGE = 0x83n;

/** Page tables of an area. One page directory serves the first GiB and the last: they have no entry in common. */
function pageTables(gpa: number): BigUint64Array<ArrayBuffer> {
  const words = new BigUint64Array(AREA / 8);
  const at = (table: number, index: number) => table / 8 + index;
  const address = (offset: number) => BigInt(gpa + offset);
  words[at(PML4, 0)] = address(PDPT) | TABLE;
  words[at(PDPT, 0)] = address(PAGE_DIRECTORY) | TABLE;
  words[at(PDPT, 3)] = address(PAGE_DIRECTORY) | TABLE;
  words[at(PAGE_DIRECTORY, LINEAR / LARGE_PAGE)] = address(PAGE_TABLE) | TABLE;
  for (const device of DEVICES) {
    words[at(PAGE_DIRECTORY, (device - 3 * GIB) / LARGE_PAGE)] = BigInt(device) | LARGE;
  }
  [CODE, DATA, STACK].forEach((page, i) => words[at(PAGE_TABLE, i)] = address(page) | TABLE);
  return words;
}

/** The software CPU's practice. */
export const practice: Practice = {
  vcpus: MOST_VCPUS,
  limitMs: LIMIT_MS,
  image(gpa, vcpus) {
    const image = new Uint8Array(vcpus * AREA);
    const code = Uint8Array.fromBase64(practiceImage);
    for (let area = 0; area < image.length; area += AREA) {
      image.set(new Uint8Array(pageTables(gpa + area).buffer), area);
      image.set(code, area + CODE);
    }
    return image;
  },
  start(gpa: number, vcpu: number): CpuStart {
    return long64Start({ rip: LINEAR, rsi: 0, cr3: gpa + vcpu * AREA + PML4, gdt: LINEAR + DATA });
  },
  isDone(memory: MappedRegion, vcpu: number): boolean {
    return memory.read(vcpu * AREA + DONE, 1)[0] !== 0;
  },
};
