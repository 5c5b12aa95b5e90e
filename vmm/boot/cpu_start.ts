/**
 * States in which a vCPU starts, as values for struct kvm_regs and struct kvm_sregs.
 *
 * @module
 */

/** A segment register with its hidden part, in the fields of struct kvm_segment. */
export interface SegmentRegister {
  /** Linear address of the first byte. */
  readonly base: bigint;
  /** Last byte of the segment, in bytes also where `g` is set. */
  readonly limit: number;
  /** What an instruction reads; in real mode the base divided by 16, but for reset. */
  readonly selector: number;
  /** The descriptor's 4-bit type (Intel SDM volume 3, tables 3-1 and 3-2). */
  readonly type: number;
  /** P: 1 if the segment may be used. */
  readonly present: number;
  /** Privilege level, 0 to 3. */
  readonly dpl: number;
  /** D/B: 1 for 32-bit operands and stack. */
  readonly db: number;
  /** 1 for code and data, 0 for TSS and LDT. */
  readonly s: number;
  /** 1 for 64-bit code. */
  readonly l: number;
  /** G: 1 if the descriptor counts the limit in pages. */
  readonly g: number;
}

/** GDTR or IDTR, in the fields of struct kvm_dtable. */
export interface DescriptorTable {
  /** Linear address. */
  readonly base: bigint;
  /** Offset of the last byte. */
  readonly limit: number;
}

/** What a multiboot loader leaves in EAX. */
const MULTIBOOT_MAGIC = 0x2bad_b002n;

/** The general registers that a start state sets, in the fields of struct kvm_regs. */
export interface StartRegs {
  /** Instruction pointer. */
  readonly rip: bigint;
  /** Multiboot: the loader's magic number. */
  readonly rax?: bigint;
  /** Flags. */
  readonly rflags: bigint;
  /** PVH: address of struct hvm_start_info; multiboot: of struct multiboot_info. */
  readonly rbx: bigint;
  /** Linux: address of struct boot_params. */
  readonly rsi: bigint;
}

/** The system registers that a start state sets, in the fields of struct kvm_sregs. */
export interface StartSregs {
  /** Code segment. */
  readonly cs: SegmentRegister;
  /** Data segment. */
  readonly ds: SegmentRegister;
  /** Data segment. */
  readonly es: SegmentRegister;
  /** Data segment. */
  readonly fs: SegmentRegister;
  /** Data segment. */
  readonly gs: SegmentRegister;
  /** Stack segment. */
  readonly ss: SegmentRegister;
  /** Task register: a busy TSS. */
  readonly tr: SegmentRegister;
  /** LDT register. */
  readonly ldt: SegmentRegister;
  /** GDTR. */
  readonly gdt: DescriptorTable;
  /** IDTR. */
  readonly idt: DescriptorTable;
  /** Protection and paging. */
  readonly cr0: bigint;
  /** Guest physical address of the page tables. */
  readonly cr3: bigint;
  /** Physical address extension. */
  readonly cr4: bigint;
  /** Long mode. */
  readonly efer: bigint;
}

/** Where and in which mode a vCPU starts; registers not named here keep their power-on values. */
export interface CpuStart {
  /**
   * `reset`: real mode at 0xfffffff0; `real`: real mode elsewhere; `protected32`: 32-bit protected
   * mode without paging; `long64`: 64-bit mode with paging.
   */
  readonly mode: "reset" | "real" | "protected32" | "long64";
  /** General registers. */
  readonly regs: StartRegs;
  /** System registers. */
  readonly sregs: StartSregs;
}

/** Selectors of the Linux boot protocol: __BOOT_CS and __BOOT_DS; __BOOT_TSS follows them. */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
const BOOT_TSS = 0x20;

const CR0_PE = 1n << 0n;
const CR0_ET = 1n << 4n;
const CR0_NW = 1n << 29n;
const CR0_CD = 1n << 30n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
/** Bit 1 of RFLAGS is always set; all others are clear: interrupts off, no trap, no VM86. */
const RFLAGS_FIXED = 2n;

/** Descriptor types of system segments and of code and data that have been accessed. */
const TYPE_LDT = 2;
const TYPE_BUSY_TSS = 11;
const TYPE_DATA = 3;
const TYPE_CODE = 11;

const BYTE_GRANULAR = { present: 1, dpl: 0, db: 0, l: 0, g: 0 } as const;
const RESET_LDT: SegmentRegister = {
  ...BYTE_GRANULAR,
  base: 0n,
  limit: 0xffff,
  selector: 0,
  type: TYPE_LDT,
  s: 0,
};
const RESET_TABLE: DescriptorTable = { base: 0n, limit: 0xffff };

function realSegment(selector: number, base: number, type: number): SegmentRegister {
  return { ...BYTE_GRANULAR, base: BigInt(base), limit: 0xffff, selector, type, s: 1 };
}

function flatSegment(selector: number, type: number, bits: 32 | 64): SegmentRegister {
  const code64 = bits === 64 && type === TYPE_CODE ? 1 : 0;
  return {
    base: 0n,
    limit: 0xffff_ffff,
    selector,
    type,
    present: 1,
    dpl: 0,
    db: 1 - code64,
    s: 1,
    l: code64,
    g: 1,
  };
}

function busyTss(selector: number): SegmentRegister {
  return { ...BYTE_GRANULAR, base: 0n, limit: 0x67, selector, type: TYPE_BUSY_TSS, s: 0 };
}

function dataSegments(
  segment: SegmentRegister,
): Pick<StartSregs, "ds" | "es" | "fs" | "gs" | "ss"> {
  return { ds: segment, es: segment, fs: segment, gs: segment, ss: segment };
}

/** The state of a processor at power-on but for CS:IP (Intel SDM volume 3, table 9-1). */
function realMode(mode: "reset" | "real", selector: number, base: number, ip: number): CpuStart {
  return {
    mode,
    regs: { rip: BigInt(ip), rflags: RFLAGS_FIXED, rbx: 0n, rsi: 0n },
    sregs: {
      cs: realSegment(selector, base, TYPE_CODE),
      ...dataSegments(realSegment(0, 0, TYPE_DATA)),
      tr: { ...RESET_LDT, type: TYPE_BUSY_TSS },
      ldt: RESET_LDT,
      gdt: RESET_TABLE,
      idt: RESET_TABLE,
      cr0: CR0_CD | CR0_NW | CR0_ET,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
    },
  };
}

/** The reset state: the first instruction is at 0xfffffff0, in the ROM that ends at 4 GiB. */
export function resetStart(): CpuStart {
  return realMode("reset", 0xf000, 0xffff_0000, 0xfff0);
}

/**
 * Real mode at any address below 4 GiB.
 *
 * IP is the address's low 16 bits; the CS base is the rest. Below 1 MiB the selector matches the
 * base, as if by a far jump. From 1 MiB up no selector can: as at reset, the base holds until CS
 * is loaded for the first time.
 *
 * @param address guest physical address of the first instruction, below 4 GiB
 */
export function realStart(address: number): CpuStart {
  const ip = address % 0x1_0000;
  const base = address - ip;
  return realMode("real", (base / 16) & 0xf000, base, ip);
}

/**
 * 32-bit protected mode, flat segments, paging off: the entry state of Xen's direct boot ABI
 * (docs/misc/pvh).
 *
 * @param eip guest physical address of the first instruction
 * @param ebx guest physical address of struct hvm_start_info
 */
export function protected32Start(eip: number, ebx: number): CpuStart {
  return {
    mode: "protected32",
    regs: { rip: BigInt(eip), rflags: RFLAGS_FIXED, rbx: BigInt(ebx), rsi: 0n },
    sregs: {
      cs: flatSegment(BOOT_CS, TYPE_CODE, 32),
      ...dataSegments(flatSegment(BOOT_DS, TYPE_DATA, 32)),
      tr: busyTss(BOOT_TSS),
      ldt: RESET_LDT,
      // The ABI promises no GDT: a guest that needs one loads its own.
      gdt: { base: 0n, limit: 0 },
      idt: { base: 0n, limit: 0 },
      cr0: CR0_PE | CR0_ET,
      cr3: 0n,
      cr4: 0n,
      efer: 0n,
    },
  };
}

/**
 * The same for a multiboot kernel (Multiboot Specification 0.6.96, 3.2): EAX has the loader's magic
 * number.
 *
 * @param eip guest physical address of the first instruction
 * @param ebx guest physical address of struct multiboot_info
 */
export function multibootStart(eip: number, ebx: number): CpuStart {
  const start = protected32Start(eip, ebx);
  return { ...start, regs: { ...start.regs, rax: MULTIBOOT_MAGIC } };
}

/**
 * 64-bit mode, flat segments, paging on: the entry state of the Linux 64-bit boot protocol
 * (Documentation/arch/x86/boot.rst).
 *
 * @param entry.rip address of the first instruction
 * @param entry.rsi address of struct boot_params
 * @param entry.cr3 guest physical address of the page tables' root
 * @param entry.gdt where the table of {@linkcode bootGdt} lies
 */
export function long64Start(
  entry: { rip: number; rsi: number; cr3: number; gdt: number },
): CpuStart {
  return {
    mode: "long64",
    regs: { rip: BigInt(entry.rip), rflags: RFLAGS_FIXED, rbx: 0n, rsi: BigInt(entry.rsi) },
    sregs: {
      cs: flatSegment(BOOT_CS, TYPE_CODE, 64),
      ...dataSegments(flatSegment(BOOT_DS, TYPE_DATA, 64)),
      tr: busyTss(BOOT_TSS),
      ldt: RESET_LDT,
      gdt: { base: BigInt(entry.gdt), limit: bootGdt().length - 1 },
      idt: { base: 0n, limit: 0 },
      cr0: CR0_PE | CR0_ET | CR0_PG,
      cr3: BigInt(entry.cr3),
      cr4: CR4_PAE,
      efer: EFER_LME | EFER_LMA,
    },
  };
}

/** The GDT in guest memory that {@linkcode long64Start} points at. */
export function bootGdt(): Uint8Array {
  const gdt = new BigUint64Array([
    0n,
    0n,
    0x00af_9b00_0000_ffffn, // BOOT_CS: 64-bit code
    0x00cf_9300_0000_ffffn, // BOOT_DS: flat data
    0x0000_8b00_0000_0067n, // BOOT_TSS: busy, base 0; 16 bytes in 64-bit mode
    0n,
  ]);
  return new Uint8Array(gdt.buffer);
}
