/**
 * The pages that a guest's memory already has, mapped before the guest comes: it would wait for each
 * of them when it first uses it, twice, as this process has page tables and the accelerator has its own.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { dataRanges } from "../../ffi/fd.ts";
import type { AcceleratorVm } from "../accel/accelerator.ts";
import type { GuestMemory, MemoryBackend } from "./guest_memory.ts";

/** How much is mapped between looks at the clock. */
const STEP = 16 << 20;

/**
 * Maps the pages that a backend's memory already has in this process.
 *
 * @param limitMs how long that may take at most; what is left comes when it is used
 */
export function prefault(backend: MemoryBackend, limitMs: number): void {
  const end = performance.now() + limitMs;
  for (const [from, to] of presentSteps(backend)) {
    backend.mapping.populate(from, to - from);
    if (performance.now() > end) return;
  }
}

/**
 * Maps the same pages in the accelerator's page tables, where it offers that. Taking a memory slot away
 * undoes it.
 *
 * @param vm whose vCPUs are parked
 * @param limitMs how long that may take at most; what is left comes when it is used
 */
export function prefaultGuest(memory: GuestMemory, vm: AcceleratorVm, limitMs: number): void {
  try {
    mapPresent(memory, vm, limitMs);
  } catch (error) {
    // What cannot be mapped now need not be: the guest may never use it.
    if (!(error instanceof OsError)) throw error;
  }
}

function mapPresent(memory: GuestMemory, vm: AcceleratorVm, limitMs: number): void {
  const end = performance.now() + limitMs;
  const regions = memory.regions.filter(({ mapping }) => mapping === memory.ram.mapping);
  for (const [from, to] of presentSteps(memory.ram)) {
    for (const { gpa, offset, size } of regions) {
      const first = Math.max(from, offset);
      const last = Math.min(to, offset + size);
      if (first < last && !vm.prefault(gpa + first - offset, last - first)) return;
    }
    if (performance.now() > end) return;
  }
}

/** Where a backend's memory has pages, from its start, in steps; nothing if it cannot say. */
function* presentSteps({ config, fd }: MemoryBackend): Generator<readonly [number, number]> {
  const isPaged = config.qomType !== "memory-backend-file" && !config.hugetlb;
  // Others cannot say which pages they have; new ones shall not be allocated.
  if (!fd || !config.share || !isPaged) return;
  const { offset = 0, size } = config;
  for (const [from, to] of dataRanges(fd.fd, offset, offset + size)) {
    for (let at = from; at < to; at += STEP) {
      yield [at - offset, Math.min(at + STEP, to) - offset];
    }
  }
}
