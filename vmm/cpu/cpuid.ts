/**
 * A vCPU's CPUID table.
 *
 * Leaves that are missing read as zero in the guest, so a leaf without content is left out.
 * Sources: Intel SDM volume 2 (CPUID), AMD APM volume 3 appendix E, and
 * Documentation/virt/kvm/x86/cpuid.rst.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import { type CpuDefinition, isAmd } from "./definition.ts";
import { KVM_CPUID_FEATURES } from "./feature_words.ts";
import { findCpuid } from "./features.ts";
import { encodeSignature, encodeText } from "./registers.ts";
import { apicIdShifts, type CpuTopology, threadsPerSocket } from "./topology.ts";
import { amdTopologyLeaf, cacheLeaves, extendedTopologyLeaves } from "./topology_leaves.ts";
import { xsaveLeaves } from "./xsave.ts";

const KVM_CPUID_SIGNATURE = 0x4000_0000;

/** Bits of leaf 1 EDX that AMD repeats in leaf 0x80000001 EDX (AMD APM volume 3, appendix E). */
export const AMD_ALIASES = 0x0183_f3ff;

/** The cache line in units of 8 bytes, in leaf 1 EBX. */
const CLFLUSH_SIZE = 8;

type Registers = Partial<Pick<CpuidEntry, "eax" | "ebx" | "ecx" | "edx">>;

function leaf(number: number, registers: Registers, index?: number): CpuidEntry {
  const { eax = 0, ebx = 0, ecx = 0, edx = 0 } = registers;
  const place = { function: number, index: index ?? 0, flags: index === undefined ? 0 : 1 };
  return { ...place, eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 };
}

/**
 * The CPUID table of one vCPU.
 *
 * @param cpu what all vCPUs have in common
 * @param supported KVM_GET_SUPPORTED_CPUID, the source of caches and XSAVE sizes
 * @param topology how many sockets, dies, cores and threads there are
 * @param apicId the vCPU's APIC id in that topology
 * @returns entries for KVM_SET_CPUID2, in the order of their leaves
 */
export function buildCpuid(
  cpu: CpuDefinition,
  supported: readonly CpuidEntry[],
  topology: CpuTopology,
  apicId: number,
): CpuidEntry[] {
  const basic = basicLeaves(cpu, supported, topology, apicId);
  const extended = extendedLeaves(cpu, supported, topology, apicId);
  const level = cpu.level ?? Math.max(cpu.minLevel, ...basic.map((entry) => entry.function));
  const xlevel = cpu.xlevel ?? Math.max(cpu.minXlevel, ...extended.map((entry) => entry.function));
  const [ebx, edx, ecx] = encodeText(cpu.vendor, 3);
  return [
    leaf(0, { eax: level, ebx, ecx, edx }),
    ...basic.filter((entry) => entry.function <= level),
    ...kvmLeaves(cpu, supported),
    leaf(0x8000_0000, { eax: xlevel, ebx, ecx, edx }),
    ...extended.filter((entry) => entry.function <= xlevel),
  ];
}

function basicLeaves(
  cpu: CpuDefinition,
  supported: readonly CpuidEntry[],
  topology: CpuTopology,
  apicId: number,
): CpuidEntry[] {
  const { features } = cpu;
  return [
    versionLeaf(cpu, topology, apicId),
    ...passed(supported, 0x2),
    ...cacheLeaves("intel", supported, topology),
    leaf(0x6, { eax: features.word(0x6, "eax") }),
    ...featureLeaves(cpu),
    ...(cpu.pmu ? passed(supported, 0xa) : []),
    ...extendedTopologyLeaves(topology, apicId),
    ...xsaveLeaves(features, supported),
    ...(features.has("amx-tile") ? [...passed(supported, 0x1d), ...passed(supported, 0x1e)] : []),
  ].filter(hasContent).sort((a, b) => a.function - b.function);
}

function hasContent({ eax, ebx, ecx, edx, flags }: CpuidEntry): boolean {
  return (eax | ebx | ecx | edx) !== 0 || flags !== 0;
}

/** A leaf as KVM reports it, all its subleaves. */
function passed(supported: readonly CpuidEntry[], number: number): CpuidEntry[] {
  return supported.filter((entry) => entry.function === number && hasContent(entry))
    .map((entry) => ({ ...entry }));
}

function versionLeaf(cpu: CpuDefinition, topology: CpuTopology, apicId: number): CpuidEntry {
  const { features } = cpu;
  const threads = threadsPerSocket(topology);
  // Intel counts the APIC ids that a package can have, AMD its threads.
  const count = isAmd(cpu.vendor) ? threads : 2 ** apicIdShifts(topology).socket;
  const ht = 1 << 28;
  const edx = features.word(0x1, "edx");
  return leaf(0x1, {
    eax: encodeSignature(cpu),
    ebx: apicId << 24 | (threads > 1 ? Math.min(count, 255) << 16 : 0) |
      (features.has("clflush") ? CLFLUSH_SIZE << 8 : 0),
    ecx: features.word(0x1, "ecx"),
    edx: threads > 1 ? edx | ht : edx & ~ht,
  });
}

/** Leaf 7, whose EAX is the number of its last subleaf. */
function featureLeaves({ features }: CpuDefinition): CpuidEntry[] {
  const word = (register: "eax" | "ebx" | "ecx" | "edx", index: number) =>
    features.word(0x7, register, index);
  const subleaves = [
    leaf(0x7, { ebx: word("ebx", 0), ecx: word("ecx", 0), edx: word("edx", 0) }, 0),
    leaf(0x7, { eax: word("eax", 1), edx: word("edx", 1) }, 1),
    leaf(0x7, { edx: word("edx", 2) }, 2),
  ];
  const last = subleaves.findLastIndex(({ eax, ebx, ecx, edx }) => (eax | ebx | ecx | edx) !== 0);
  if (last > 0) subleaves[0].eax = last;
  return subleaves.slice(0, last + 1);
}

function kvmLeaves({ features, kvm }: CpuDefinition, supported: readonly CpuidEntry[]) {
  const signature = findCpuid(supported, KVM_CPUID_SIGNATURE);
  if (!kvm || !signature) return [];
  return [
    { ...signature, eax: KVM_CPUID_FEATURES },
    leaf(KVM_CPUID_FEATURES, {
      eax: features.word(KVM_CPUID_FEATURES, "eax"),
      edx: features.word(KVM_CPUID_FEATURES, "edx"),
    }),
  ];
}

function extendedLeaves(
  cpu: CpuDefinition,
  supported: readonly CpuidEntry[],
  topology: CpuTopology,
  apicId: number,
): CpuidEntry[] {
  const { features } = cpu;
  const topoext = features.has("topoext");
  return [
    extendedVersionLeaf(cpu, topology),
    ...brandLeaves(cpu.modelId),
    ...passed(supported, 0x8000_0005),
    ...passed(supported, 0x8000_0006),
    leaf(0x8000_0007, { edx: features.word(0x8000_0007, "edx") }),
    addressLeaf(cpu, topology),
    ...svmLeaf(cpu, supported),
    ...(topoext ? cacheLeaves("amd", supported, topology) : []),
    ...(topoext ? [amdTopologyLeaf(topology, apicId)] : []),
    leaf(0x8000_0021, {
      eax: features.word(0x8000_0021, "eax"),
      ecx: features.word(0x8000_0021, "ecx"),
    }),
    ...(features.has("perfmon-v2") ? passed(supported, 0x8000_0022) : []),
  ].filter(hasContent);
}

function extendedVersionLeaf(cpu: CpuDefinition, topology: CpuTopology): CpuidEntry {
  const { features, vendor } = cpu;
  const cmpLegacy = 1 << 1;
  const ecx = features.word(0x8000_0001, "ecx") & ~cmpLegacy;
  const edx = features.word(0x8000_0001, "edx") & ~AMD_ALIASES;
  if (!isAmd(vendor)) return leaf(0x8000_0001, { ecx, edx });
  return leaf(0x8000_0001, {
    eax: encodeSignature(cpu),
    ecx: threadsPerSocket(topology) > 1 ? ecx | cmpLegacy : ecx,
    edx: edx | features.word(0x1, "edx") & AMD_ALIASES,
  });
}

function brandLeaves(modelId: string): CpuidEntry[] {
  const registers = encodeText(modelId, 12);
  return [0, 1, 2].map((i) => {
    const [eax, ebx, ecx, edx] = registers.slice(i * 4);
    return leaf(0x8000_0002 + i, { eax, ebx, ecx, edx });
  });
}

/** Leaf 0x80000008: address widths, AMD's features, and AMD's count of threads. */
function addressLeaf(cpu: CpuDefinition, topology: CpuTopology): CpuidEntry {
  const { features, physBits, guestPhysBits } = cpu;
  const virtualBits = features.has("la57") ? 57 : 48;
  const threads = threadsPerSocket(topology);
  const count = apicIdShifts(topology).socket << 12 | threads - 1;
  return leaf(0x8000_0008, {
    eax: features.has("lm") ? guestPhysBits << 16 | virtualBits << 8 | physBits : 0,
    ebx: features.word(0x8000_0008, "ebx"),
    ecx: isAmd(cpu.vendor) && threads > 1 ? count : 0,
  });
}

/** Leaf 0x8000000a: nested virtualization's features, with KVM's revision and count of ASIDs. */
function svmLeaf({ features }: CpuDefinition, supported: readonly CpuidEntry[]): CpuidEntry[] {
  const own = findCpuid(supported, 0x8000_000a);
  if (!features.has("svm") || !own) return [];
  const edx = features.word(0x8000_000a, "edx");
  return [leaf(0x8000_000a, { eax: own.eax, ebx: own.ebx, edx })];
}
