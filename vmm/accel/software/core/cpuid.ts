// CPUID: a table of struct kvm_cpuid_entry2 that the host fills, and what follows from it.
import { raiseGP } from "./fault";
import { CR4, MISC_FEATURES, APIC_BASE } from "./layout";
import {
  cpl, CR4_DE, CR4_FSGSBASE, CR4_LA57, CR4_MCE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CR4_PAE,
  CR4_PCE, CR4_PCIDE, CR4_PGE, CR4_PSE, CR4_SMAP, CR4_SMEP, CR4_TSD, CR4_UMIP, EFER_FFXSR, EFER_LME,
  EFER_NXE, EFER_SCE, gpr, RAX, RBX, RCX, RDX, setGpr,
} from "./registers";

/** As many entries as KVM takes (KVM_MAX_CPUID_ENTRIES). */
const MAX_ENTRIES: u32 = 256;
const ENTRY: usize = 40;
const TABLE = memory.data(256 * 40);
/** KVM_CPUID_FLAG_SIGNIFCANT_INDEX */
const HAS_INDEX: u32 = 1;
// Offsets in struct kvm_cpuid_entry2.
const INDEX: usize = 4;
const FLAGS: usize = 8;
const EAX: usize = 12;
const EBX: usize = 16;
const ECX: usize = 20;
const EDX: usize = 24;

/** EBX of leaf 0: the first letters of "GenuineIntel". */
const GENU: u32 = 0x756e_6547;
/** Leaf 0x40000000 and its EBX under KVM: the first letters of "KVMKVMKVM". */
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
const KVMK: u32 = 0x4b4d_564b;
const TOPOLOGY_LEAF: u32 = 0xb;
const XSAVE_LEAF: u32 = 0xd;
const OSXSAVE: u32 = 1 << 27;
const APIC: u32 = 1 << 9;
const APIC_ENABLED: u64 = 1 << 11;
/** Legacy region and header of an XSAVE area. */
const XSAVE_SIZE: u32 = 576;
/** MISC_FEATURES_ENABLES: CPUID faults outside of level 0. */
const CPUID_FAULTING: u64 = 1;

let entries: u32 = 0;
let cr4Bits: u64 = 0;
let eferBits: u64 = 0;
let xcr0Bits: u64 = 1;
let intel: bool = false;
let physicalBits: u32 = 36;

/** Where the host puts its entries, at most 256 of 40 bytes. */
export function cpuidTable(): usize {
  return TABLE;
}

/** Takes the entries that the host has put there. */
export function cpuidChanged(count: u32): void {
  entries = min<u32>(count, MAX_ENTRIES);
  intel = leaf(0, 0, EBX) == GENU;
  physicalBits = leaf(0x8000_0008, 0, EAX) & 0xff;
  if (physicalBits < 32 || physicalBits > 52) physicalBits = 36;
  cr4Bits = cr4Of(leaf(1, 0, EDX), leaf(1, 0, ECX), leaf(7, 0, EBX), leaf(7, 0, ECX));
  const extended = leaf(0x8000_0001, 0, EDX);
  eferBits = (extended & (1 << 11) ? EFER_SCE : 0) | (extended & (1 << 20) ? EFER_NXE : 0) |
    (extended & (1 << 25) ? EFER_FFXSR : 0) | (extended & (1 << 29) ? EFER_LME : 0);
  xcr0Bits = <u64>leaf(XSAVE_LEAF, 0, EAX) | 1;
}

/** The CR4 bits of features in leaves 1 and 7 (SDM volume 3, 2.5). */
function cr4Of(edx1: u32, ecx1: u32, ebx7: u32, ecx7: u32): u64 {
  let bits: u64 = CR4_PCE;
  if (edx1 & (1 << 2)) bits |= CR4_DE;
  if (edx1 & (1 << 3)) bits |= CR4_PSE;
  if (edx1 & (1 << 4)) bits |= CR4_TSD;
  if (edx1 & (1 << 6)) bits |= CR4_PAE;
  if (edx1 & (1 << 7)) bits |= CR4_MCE;
  if (edx1 & (1 << 13)) bits |= CR4_PGE;
  if (edx1 & (1 << 24)) bits |= CR4_OSFXSR;
  if (edx1 & (1 << 25)) bits |= CR4_OSXMMEXCPT;
  if (ecx1 & (1 << 17)) bits |= CR4_PCIDE;
  if (ecx1 & (1 << 26)) bits |= CR4_OSXSAVE;
  if (ebx7 & (1 << 0)) bits |= CR4_FSGSBASE;
  if (ebx7 & (1 << 7)) bits |= CR4_SMEP;
  if (ebx7 & (1 << 20)) bits |= CR4_SMAP;
  if (ecx7 & (1 << 2)) bits |= CR4_UMIP;
  if (ecx7 & (1 << 16)) bits |= CR4_LA57;
  return bits;
}

export function allowedCr4(): u64 {
  return cr4Bits;
}

export function allowedEfer(): u64 {
  return eferBits;
}

export function allowedXcr0(): u64 {
  return xcr0Bits;
}

/** Whether the vendor is Intel: its SYSCALL, SYSENTER and SYSRET differ from AMD's. */
export function isIntel(): bool {
  return intel;
}

/** Whether the guest may know that it runs under KVM. */
export function seesKvm(): bool {
  return leaf(HYPERVISOR_LEAF, 0, EBX) == KVMK;
}

/** Bits of a physical address (leaf 0x80000008). */
export function physicalAddressBits(): u32 {
  return physicalBits;
}

function find(number: u32, index: u32): usize {
  for (let i: u32 = 0; i < entries; i++) {
    const entry = TABLE + <usize>i * ENTRY;
    if (load<u32>(entry) != number) continue;
    if (!(load<u32>(entry, FLAGS) & HAS_INDEX) || load<u32>(entry, INDEX) == index) return entry;
  }
  return 0;
}

/** A register of a leaf, 0 where that is not there. */
function leaf(number: u32, index: u32, register: usize): u32 {
  const entry = find(number, index);
  return entry ? load<u32>(entry + register) : 0;
}

/** Whether a feature bit of a leaf is set; `register` is 0 EAX, 1 EBX, 2 ECX, 3 EDX. */
export function hasFeature(number: u32, register: u32, bit: u32): bool {
  return ((leaf(number, 0, EAX + (<usize>register << 2)) >> bit) & 1) != 0;
}

/** A leaf beyond the highest is Intel's highest basic one, AMD's is zeros; the same as under KVM. */
function findOutOfRange(number: u32, index: u32): usize {
  const range = number & 0xffff_0000;
  const highest = leaf(range, 0, EAX);
  if (!intel || (highest && number <= highest) || range == 0x4000_0000) return 0;
  return find(leaf(0, 0, EAX), index);
}

export function opCpuid(): void {
  if (load<u64>(MISC_FEATURES) & CPUID_FAULTING && cpl() != 0) raiseGP(0);
  const number = <u32>gpr(RAX);
  const index = <u32>gpr(RCX);
  let entry = find(number, index);
  if (!entry) entry = findOutOfRange(number, index);
  let ecx = entry ? load<u32>(entry, ECX) : 0;
  let edx = entry ? load<u32>(entry, EDX) : 0;
  let ebx = entry ? load<u32>(entry, EBX) : 0;
  if (number == 1) {
    ecx = load<u64>(CR4) & CR4_OSXSAVE ? ecx | OSXSAVE : ecx & ~OSXSAVE;
    if (!(load<u64>(APIC_BASE) & APIC_ENABLED)) edx &= ~APIC;
  } else if (number == XSAVE_LEAF && index == 0 && entry) {
    ebx = XSAVE_SIZE;
  } else if (!entry && number == TOPOLOGY_LEAF && find(number, 0)) {
    // A level that is not there has its number and the x2APIC ID still (SDM volume 2, CPUID).
    ecx = index & 0xff;
    edx = leaf(number, 1, EDX);
  }
  setGpr(RAX, entry ? load<u32>(entry, EAX) : 0);
  setGpr(RBX, ebx);
  setGpr(RCX, ecx);
  setGpr(RDX, edx);
}
