/**
 * The leaves that tell a vCPU where it is, and with whom it shares which cache.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { type ApicIdShifts, apicIdShifts, type CpuTopology, threadsPerSocket } from "./topology.ts";

/** Levels of leaves 0xb and 0x1f (Intel SDM volume 2, CPUID). */
const Level = { THREAD: 1, CORE: 2, DIE: 5 } as const;

interface LevelShape {
  readonly type: number;
  /** The APIC id shifted right by this names the next level. */
  readonly shift: number;
  /** Threads inside one of the next level. */
  readonly threads: number;
}

function levelLeaves(leaf: number, apicId: number, levels: readonly LevelShape[]): CpuidEntry[] {
  const shapes = [...levels, { type: 0, shift: 0, threads: 0 }];
  return shapes.map(({ type, shift, threads }, index) => ({
    function: leaf,
    index,
    flags: 1,
    eax: shift,
    ebx: threads,
    ecx: type << 8 | index,
    edx: apicId,
  }));
}

/** Leaf 0xb, which knows threads and cores, and where there are dies 0x1f, which knows them too. */
export function extendedTopologyLeaves(topology: CpuTopology, apicId: number): CpuidEntry[] {
  const { cores, dies, threads } = topology;
  const shifts = apicIdShifts(topology);
  const socket = { shift: shifts.socket, threads: threadsPerSocket(topology) };
  const thread = { type: Level.THREAD, shift: shifts.core, threads };
  const leaves = levelLeaves(0xb, apicId, [thread, { type: Level.CORE, ...socket }]);
  if (dies === 1) return leaves;
  const core = { type: Level.CORE, shift: shifts.die, threads: threads * cores };
  return [...leaves, ...levelLeaves(0x1f, apicId, [thread, core, { type: Level.DIE, ...socket }])];
}

/** Leaf 0x8000001e: core and node in AMD's numbering (AMD APM volume 3, appendix E). */
export function amdTopologyLeaf(topology: CpuTopology, apicId: number): CpuidEntry {
  const { dies, threads } = topology;
  const shifts = apicIdShifts(topology);
  const inSocket = apicId & (1 << shifts.socket) - 1;
  const die = inSocket >>> shifts.die;
  const node = (apicId >>> shifts.socket) * dies + die;
  return {
    function: 0x8000_001e,
    index: 0,
    flags: 0,
    eax: apicId,
    ebx: threads - 1 << 8 | inSocket >>> shifts.core,
    ecx: dies - 1 << 8 | node & 0xff,
    edx: 0,
  };
}

/** Intel's and AMD's lists of caches: one subleaf a cache, of the same form. */
const CACHE_LEAVES = { intel: 0x4, amd: 0x8000_001d } as const;

/** Caches from this level on are the die's, those below a core's. */
const DIE_CACHE_LEVEL = 3;

/** The host's caches, shared as the guest's topology says; Intel's list or AMD's. */
export function cacheLeaves(
  vendor: "intel" | "amd",
  supported: readonly CpuidEntry[],
  topology: CpuTopology,
): CpuidEntry[] {
  const shifts = apicIdShifts(topology);
  const leaf = CACHE_LEAVES[vendor];
  return supported
    .filter((entry) => entry.function === leaf && (entry.eax & 0x1f) !== 0)
    .map((cache) => {
      const sharing = sharingField(cache.eax, shifts);
      const cores = vendor === "intel" ? fieldOf(2 ** (shifts.socket - shifts.core), 6) << 26 : 0;
      return { ...cache, eax: (cache.eax & 0x3fff | sharing | cores) >>> 0 };
    });
}

function sharingField(eax: number, shifts: ApicIdShifts): number {
  const level = eax >>> 5 & 7;
  return fieldOf(2 ** (level < DIE_CACHE_LEVEL ? shifts.core : shifts.die), 12) << 14;
}

/** A count as a field that holds one less; what is too large is cut at the field's end. */
function fieldOf(count: number, bits: number): number {
  return Math.min(count, 2 ** bits) - 1;
}
