/**
 * The processor's time stamp counter.
 *
 * @module
 */
import { monotonicNow } from "./event.ts";
import { libc } from "./libc.ts";
import { mapCode } from "./memory.ts";

/**
 * A comparison function for bsearch(3) that stores the counter where the key is, and finds it equal:
 * the C library calls it for us at the cost of one of its own functions, which is a tenth of what
 * `Deno.UnsafeFnPointer` takes.
 *
 * ```text
 * rdtsc                0f 31
 * shl rdx, 32          48 c1 e2 20
 * or rax, rdx          48 09 d0
 * mov [rdi], rax       48 89 07
 * xor eax, eax         31 c0
 * ret                  c3
 * ```
 */
// deno-fmt-ignore
const CODE = [
  0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x07, 0x31, 0xc0, 0xc3,
];

/** A constant, so that the compiler can call it directly. */
const { bsearch } = libc;

let code: bigint | undefined;

/** Looks on each side of a sample; the closest pair counts. */
const LOOKS = 8;

/** Reads the counter into 8 bytes. */
export function readTsc(into: Uint8Array<ArrayBuffer> | Uint32Array<ArrayBuffer>): void {
  code ??= BigInt(mapCode(Uint8Array.from(CODE)).address);
  // void *bsearch(const void *key, const void *base, size_t count, size_t size, int (*)(…)): one
  // element, anywhere, is compared once.
  bsearch(into, code, 1n, 1n, code);
}

const counter = new Uint32Array(2);

/** The counter now. */
export function tscNow(): bigint {
  readTsc(counter);
  return (BigInt(counter[1]) << 32n) | BigInt(counter[0]);
}

/** A moment by both clocks. */
interface Sample {
  /** CLOCK_MONOTONIC, nanoseconds. */
  readonly ns: number;
  readonly tsc: bigint;
}

function sample(): Sample {
  let best: Sample | undefined;
  let closest = Infinity;
  for (let look = 0; look < LOOKS; look++) {
    const before = monotonicNow();
    const tsc = tscNow();
    const after = monotonicNow();
    if (after - before >= closest) continue;
    closest = after - before;
    best = { ns: (before + after) / 2, tsc };
  }
  return best!;
}

/** Nanoseconds between the samples that a frequency is worked out from: some ten per million off. */
const MEASURE_NS = 20e6;

let first: Sample | undefined;
let frequency: number | undefined;

/** Begins to measure the frequency: who asks for it 20 ms later does not have to wait. */
export function beginTscKhz(): void {
  first ??= sample();
}

/** The counter's frequency in kHz, measured once for the process, in 20 ms. */
export function tscKhz(): number {
  return frequency ??= measure();
}

function measure(): number {
  const start = first ?? sample();
  while (monotonicNow() - start.ns < MEASURE_NS);
  const end = sample();
  return Math.round((Number(end.tsc - start.tsc) * 1e6) / (end.ns - start.ns));
}
