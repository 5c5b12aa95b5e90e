/**
 * The CPUID leaves that the software CPU can give a guest, as KVM_GET_SUPPORTED_CPUID gives them.
 *
 * A bit is here if the instruction, register or chip behind it is. The processor's identity is that of
 * QEMU's qemu64, AMD's family 15: guests look for none of the flaws that need costly workarounds in it.
 * Sources: Intel SDM volume 2 (CPUID), AMD APM volume 3 appendix E, Documentation/virt/kvm/x86/cpuid.rst.
 *
 * @module
 */
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";
import { featureWords, KVM_CPUID_FEATURES } from "../../cpu/feature_words.ts";
import { FeatureSet } from "../../cpu/features.ts";
import { encodeSignature, encodeText } from "../../cpu/registers.ts";

/** What it is called, as twelve letters of leaf 0. */
const VENDOR = "AuthenticAMD";
const SIGNATURE = encodeSignature({ family: 15, model: 107, stepping: 1 });
const BRAND = "Denovo Virtual CPU";
/** KVM's signature (linux/kvm_para.h). */
const KVM_SIGNATURE = "KVMKVMKVM";
const KVM_CPUID = 0x4000_0000;

/** Bits of a physical address, and of a linear one with LA57. */
const PHYSICAL_BITS = 40;
const LINEAR_BITS = 57;
/** The cache line, in units of 8 bytes, in leaf 1 EBX. */
const CLFLUSH_SIZE = 8;

/** Every feature that the CPU and its chips have, by the names of `-cpu`. */
const FEATURES =
  `fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr
  sse sse2 pni ssse3 sse4.1 sse4.2 cx16 popcnt movbe rdrand x2apic pcid tsc-deadline hypervisor xsave
  xsaveopt fsgsbase tsc-adjust fdp-excptn-only smep erms invpcid zero-fcs-fds rdseed smap umip la57 rdpid arat
  syscall nx lm rdtscp pdpe1gb lahf-lm 3dnowprefetch
  kvmclock kvm-nopiodelay kvmclock-stable-bit`;

/**
 * Leaf 0x80000005 and 0x80000006 (AMD APM volume 3, E.4.4 and E.4.5): 64 KiB of L1 for each of data and
 * code, two ways, 512 KiB of L2, sixteen ways, lines of 64 bytes. There are no caches; guests divide by
 * what they read.
 */
const CACHES = [
  leaf(0x8000_0005, { eax: 0x01ff_01ff, ebx: 0x01ff_01ff, ecx: 0x4002_0140, edx: 0x4002_0140 }),
  leaf(0x8000_0006, { ebx: 0x4200_4200, ecx: 0x0200_8140 }),
];

/** Leaf 0xd: the states of XCR0 are x87 and SSE, all in the legacy region. */
const XSAVE = leaf(0xd, { flags: 1, eax: 3, ebx: 576, ecx: 576 });

function leaf(
  number: number,
  registers: Partial<Pick<CpuidEntry, "index" | "flags" | "eax" | "ebx" | "ecx" | "edx">>,
): CpuidEntry {
  const zero = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  return { function: number, ...zero, ...registers };
}

/** The leaves of the features, bit by bit. */
function featureLeaves(): CpuidEntry[] {
  const features = FeatureSet.of(FEATURES);
  const leaves = new Map<string, CpuidEntry>();
  for (const { leaf: number, index, register } of featureWords) {
    const bits = features.word(number, register, index);
    const key = `${number}/${index}`;
    const entry = leaves.get(key) ??
      leaf(number, { index: index ?? 0, flags: index === undefined ? 0 : 1 });
    entry[register] = bits >>> 0;
    leaves.set(key, entry);
  }
  return [...leaves.values()].filter(({ eax, ebx, ecx, edx }) => (eax | ebx | ecx | edx) !== 0);
}

/**
 * The leaves of the software CPU.
 *
 * @returns entries in the order of their leaves; the caller may change them
 */
export function supportedCpuid(): CpuidEntry[] {
  const [ebx, edx, ecx] = encodeText(VENDOR, 3);
  const [kvmB, kvmC, kvmD] = encodeText(KVM_SIGNATURE, 3);
  const brand = encodeText(BRAND, 12);
  const entries = [
    ...featureLeaves(),
    ...CACHES.map((entry) => ({ ...entry })),
    ...[0, 1, 2].map((i) => {
      const [a, b, c, d] = brand.slice(i * 4);
      return leaf(0x8000_0002 + i, { eax: a, ebx: b, ecx: c, edx: d });
    }),
    leaf(KVM_CPUID, { eax: KVM_CPUID_FEATURES, ebx: kvmB, ecx: kvmC, edx: kvmD }),
  ];
  const find = (number: number) => {
    const found = entries.find((entry) => entry.function === number);
    if (found) return found;
    const made = leaf(number, {});
    entries.push(made);
    return made;
  };
  Object.assign(find(1), { eax: SIGNATURE, ebx: CLFLUSH_SIZE << 8 });
  find(0x8000_0001).eax = SIGNATURE;
  find(0x8000_0008).eax = LINEAR_BITS << 8 | PHYSICAL_BITS;
  entries.push({ ...XSAVE });
  entries.push(leaf(0, { eax: 0xd, ebx, ecx, edx }));
  entries.push(leaf(0x8000_0000, { eax: 0x8000_0008, ebx, ecx, edx }));
  return entries.sort((a, b) => a.function - b.function || a.index - b.index);
}
