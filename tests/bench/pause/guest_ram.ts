/**
 * The words that a guest program keeps in its RAM, seen from outside: the RAM is shared memory,
 * which this process maps as well. No VMM is asked.
 *
 * @module
 */
import { monotonicNow } from "../../../ffi/event.ts";
import { O, openFile } from "../../../ffi/fd.ts";
import { type MappedRegion, mapShared } from "../../../ffi/memory.ts";
import { describeCheck, layout } from "../../guests/programs.ts";
import type { Gap, Pace } from "./gaps.ts";
import type { Configuration } from "./results.ts";

/** What is mapped: 2 MiB, so that it works with huge pages too. */
export const WINDOW = { offset: 0x200000, size: 0x200000 } as const;

const WORD = 8;
/** How often, and for how long at most, the guest's TSC is compared with this host's clock. */
const COMPARISONS = 200;
const COMPARISON_LIMIT_NS = 300e6;

/** Where a guest's counters are: one for each vCPU. Each is followed by the longest gap. */
export function counterAddresses({ guest, cpus }: Configuration): number[] {
  if (guest !== "smp") return [layout.counter];
  return Array.from({ length: cpus }, (_, id) => layout.cpuRecords + id * layout.cpuRecordSize);
}

/** The path by which every process of this user can open the RAM of a VMM. */
export async function ramPath(pid: number): Promise<string> {
  const folder = `/proc/${pid}/fd`;
  for await (const { name } of Deno.readDir(folder)) {
    const target = await Deno.readLink(`${folder}/${name}`).catch(() => "");
    if (/^\/memfd:memory-backend-memfd|\/denovo-pause-[^/]*\/ram$/.test(target)) {
      return `${folder}/${name}`;
    }
  }
  throw new Error(`Process ${pid} has no descriptor of the guest's RAM`);
}

/** One guest's RAM. It stays mapped when the VMM that made it is gone. */
export class GuestRam implements Disposable {
  readonly #region: MappedRegion;
  readonly #words: BigInt64Array;
  readonly #counters: readonly number[];

  /** @param path see {@linkcode ramPath} */
  constructor(readonly path: string, readonly configuration: Configuration) {
    using file = openFile(path, O.RDWR);
    this.#region = mapShared(file.fd, WINDOW.size, WINDOW.offset);
    this.#words = new BigInt64Array(this.#region.bytes.buffer);
    this.#counters = counterAddresses(configuration);
  }

  /** The vCPUs' counters. */
  counts(): number[] {
    return this.#counters.map((address) => this.#read(address));
  }

  /** How far the first vCPU's counter is now. */
  pace(): Pace {
    return { ns: monotonicNow(), count: this.#read(this.#counters[0]) };
  }

  /** Lets the guest begin anew with its longest gap. */
  clearGaps(): void {
    for (const address of this.#counters) this.#words[index(address + WORD)] = 0n;
  }

  /** The longest gap of any vCPU, in TSC cycles. */
  longestGap(): number {
    return Math.max(...this.#counters.map((address) => this.#read(address + WORD)));
  }

  /** Lets the guest list gaps from a length on, in TSC cycles. */
  listGapsFrom(cycles: number): void {
    this.#words[index(layout.listedFrom)] = BigInt(Math.round(cycles));
  }

  /**
   * The gaps that the guest has listed last.
   *
   * @param tscKhz frequency of the guest's TSC
   */
  gaps(tscKhz: number): Gap[] {
    const ns = (cycles: number) => cycles / tscKhz * 1e6;
    const offset = this.#tscOffset(ns);
    return Array.from({ length: layout.gapsListed }, (_, i) => {
      const at = layout.gaps + 4 * i * WORD;
      const endNs = ns(this.#read(at + WORD)) - offset;
      return { startNs: endNs - ns(this.#read(at)), endNs, count: this.#read(at + 2 * WORD) };
    });
  }

  /** @throws {Error} if the guest found that something of its state has changed */
  assertUnharmed(): void {
    const code = this.#read(layout.check);
    if (code !== 0) throw new Error(`The guest's self-check failed: ${describeCheck(code)}`);
  }

  /** Unmaps the RAM. */
  [Symbol.dispose](): void {
    this.#region.close();
  }

  /**
   * By how much the guest's TSC is ahead of CLOCK_MONOTONIC, nanoseconds. It is always seen a little
   * late: the most that is seen is the nearest.
   */
  #tscOffset(ns: (cycles: number) => number): number {
    let offset = -Infinity;
    let last = this.#read(layout.lastTsc);
    let changes = 0;
    const end = monotonicNow() + COMPARISON_LIMIT_NS;
    while (changes < COMPARISONS && monotonicNow() < end) {
      const tsc = this.#read(layout.lastTsc);
      if (tsc === last) continue;
      offset = Math.max(offset, ns(tsc) - monotonicNow());
      last = tsc;
      changes++;
    }
    return offset;
  }

  #read(address: number): number {
    return Number(this.#words[index(address)]);
  }
}

function index(address: number): number {
  return (address - WINDOW.offset) / WORD;
}
