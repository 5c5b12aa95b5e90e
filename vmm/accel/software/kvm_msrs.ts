/**
 * The software CPU's MSRs as KVM_GET_MSRS gives and KVM_SET_MSRS takes them.
 *
 * Like KVM, it lets the host write what the guest cannot, and refuses what would make no sense to the
 * processor. The guest's own RDMSR and WRMSR are in `core/msr.ts`.
 *
 * @module
 */
import { msrCount, msrOffset } from "../msrs.ts";
import type { CpuState } from "./kvm_state.ts";
import type { CpuLimits } from "./limits.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** What lies outside of the CPU: the chips' MSRs and the host's TSC. */
export interface MsrHost {
  /** The host's TSC now. */
  tsc(): bigint;
  /** By how much a vCPU's TSC shall be ahead of the host's, to have a value now. */
  tscOffset(value: bigint): bigint;
  /** An MSR of the LAPIC's or kvmclock's; undefined if there is none of that number. */
  read(index: number): bigint | undefined;
  /** Writes one; false if it does not take the value. */
  write(index: number, value: bigint): boolean;
}

/** A field of the state that is one u64. */
type Field = {
  [K in keyof CpuState]: CpuState[K] extends bigint ? K : never;
}[keyof CpuState];

type Check = (value: bigint, limits: CpuLimits) => boolean;

interface Register {
  read(state: CpuState): bigint;
  write(state: CpuState, value: bigint): void;
  readonly valid?: Check;
}

const MSR_TSC = 0x10;
/** Where an entry's value is in it (struct kvm_msr_entry). */
const VALUE = 8;
const FS = 4;
const GS = 5;
const MTRR_CAP = 0x508n;
const HWCR_KEPT = (1n << 18n) | (1n << 24n);
/** As many banks as KVM gives (KVM_MAX_MCE_BANKS), of four registers each. */
const MCE_REGISTERS = 128;
const MCG_CTL_P = 1n << 8n;

const within = (bits: bigint): Check => (value) => (value & ~bits) === 0n;

/** Addresses are canonical for the wider of the two kinds of linear addresses where the CPU has both. */
const isCanonical: Check = (value, { cr4 }) => {
  const bits = cr4 & (1n << 12n) ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, value)) === value;
};

const isMemoryType = (type: number, forPat: boolean) =>
  type === 0 || type === 1 || (type >= 4 && type <= 6) || (forPat && type === 7);

const hasTypes = (forPat: boolean): Check => (value) => {
  let [low, high] = [Number(value & 0xffff_ffffn), Number(value >> 32n)];
  for (let i = 0; i < 4; i++) {
    if (!isMemoryType(low & 0xff, forPat) || !isMemoryType(high & 0xff, forPat)) return false;
    low >>>= 8;
    high >>>= 8;
  }
  return true;
};

const isMtrrBase: Check = (value, { physicalBits }) =>
  value >> BigInt(physicalBits) === 0n && (value & 0xf00n) === 0n &&
  isMemoryType(Number(value & 0xffn), false);

const isMtrrMask: Check = (value, { physicalBits }) =>
  value >> BigInt(physicalBits) === 0n && (value & 0x7ffn) === 0n;

function field(name: Field, valid?: Check): Register {
  return { read: (state) => state[name], write: (state, value) => state[name] = value, valid };
}

function element(name: "mtrr_fixed" | "mtrr_variable" | "mce_banks", at: number, valid?: Check) {
  return {
    read: (state: CpuState) => state[name].at(at),
    write: (state: CpuState, value: bigint) => state[name].put(at, value),
    valid,
  };
}

function segmentBase(seg: number): Register {
  return {
    read: (state) => state.segments.at(seg).base,
    write: (state, value) => state.segments.at(seg).base = value,
    valid: isCanonical,
  };
}

/** Reads as a value, and can be written with only that. */
function constant(value: bigint): Register {
  return { read: () => value, write: () => {}, valid: (written) => written === value };
}

const FIXED_MTRRS = [
  ...[0x250, 0x258, 0x259],
  ...[0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f],
];

/** Intel SDM volume 4, table 2-2; AMD APM volume 2, appendix A. */
const registers: ReadonlyMap<number, Register> = new Map([
  [0x3b, field("tsc_adjust")],
  [0x8b, field("ucode_rev")],
  [0xce, field("platform_info", within(1n << 31n))],
  [0xfe, constant(MTRR_CAP)],
  [0x140, field("misc_features", within(1n))],
  [0x174, field("sysenter_cs")],
  [0x175, field("sysenter_esp")],
  [0x176, field("sysenter_eip")],
  [0x179, field("mcg_cap", (value) => (value & 0xffn) <= 32n)],
  [0x17a, field("mcg_status")],
  [0x1a0, field("misc_enable")],
  [0x1d9, field("debugctl", within(0n))],
  ...Array.from(
    { length: 16 },
    (_, i) => [0x200 + i, element("mtrr_variable", i, i & 1 ? isMtrrMask : isMtrrBase)] as const,
  ),
  ...FIXED_MTRRS.map((index, i) => [index, element("mtrr_fixed", i, hasTypes(false))] as const),
  [0x277, field("pat", hasTypes(true))],
  [
    0x2ff,
    field(
      "mtrr_def_type",
      (value) => (value & ~0xcffn) === 0n && isMemoryType(Number(value & 0xffn), false),
    ),
  ],
  ...Array.from(
    { length: MCE_REGISTERS },
    (_, i) => [0x400 + i, element("mce_banks", i)] as const,
  ),
  [0xc000_0080, field("efer", (value, { efer }) => (value & ~efer) === 0n)],
  [0xc000_0081, field("star")],
  [0xc000_0082, field("lstar", isCanonical)],
  [0xc000_0083, field("cstar", isCanonical)],
  [0xc000_0084, field("sfmask")],
  [0xc000_0100, segmentBase(FS)],
  [0xc000_0101, segmentBase(GS)],
  [0xc000_0102, field("kernel_gs_base", isCanonical)],
  [0xc000_0103, field("tsc_aux", within(0xffff_ffffn))],
  [0xc001_0015, field("hwcr", within(HWCR_KEPT))],
  [0xc001_1029, field("de_cfg", within(2n))],
]);

/** The MSRs of the chips that are state: kvmclock's, old numbers and new, and the TSC deadline. */
const CHIP_MSRS = [0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01, 0x6e0];

/**
 * Not listed: what is elsewhere in the state (kvm_sregs) or constant, and machine check banks, which
 * KVM's list does not have either and in which nothing is ever reported.
 */
const isUnlisted = (index: number) =>
  [0xfe, 0xc000_0080, 0xc000_0100, 0xc000_0101].includes(index) ||
  (index >= 0x400 && index < 0x400 + MCE_REGISTERS);

/** The MSRs that make up a vCPU's state, the TSC deadline last: it arms a timer by the TSC. */
export const stateMsrs: Uint32Array = Uint32Array.from([
  MSR_TSC,
  ...[...registers.keys()].filter((index) => !isUnlisted(index)),
  ...CHIP_MSRS,
]);

/** KVM_GET_MSRS: fills in values up to the first MSR that is not there, and says how many. */
export function readMsrs(state: CpuState, into: Bytes, host: MsrHost): number {
  const count = msrCount(into);
  const entries = new DataView(into.buffer, into.byteOffset);
  for (let position = 0; position < count; position++) {
    const at = msrOffset(position);
    const value = readMsr(state, entries.getUint32(at, true), host);
    if (value === undefined) return position;
    entries.setBigUint64(at + VALUE, value, true);
  }
  return count;
}

/** Reads one MSR; undefined if it is not there. */
export function readMsr(state: CpuState, index: number, host: MsrHost): bigint | undefined {
  if (index === MSR_TSC) return BigInt.asUintN(64, host.tsc() + state.tsc_offset);
  if (index === 0x17b) return state.mcg_cap & MCG_CTL_P ? state.mcg_ctl : undefined;
  const register = registers.get(index);
  return register ? register.read(state) : host.read(index);
}

/** KVM_SET_MSRS: takes values up to the first that is refused, and says how many. */
export function writeMsrs(
  state: CpuState,
  from: Bytes,
  limits: CpuLimits,
  host: MsrHost,
): number {
  const count = msrCount(from);
  const entries = new DataView(from.buffer, from.byteOffset);
  for (let position = 0; position < count; position++) {
    const at = msrOffset(position), index = entries.getUint32(at, true);
    if (!writeMsr(state, index, entries.getBigUint64(at + VALUE, true), limits, host)) {
      return position;
    }
  }
  return count;
}

/** Writes one MSR; false if it is not there or cannot have the value. */
export function writeMsr(
  state: CpuState,
  index: number,
  value: bigint,
  limits: CpuLimits,
  host: MsrHost,
): boolean {
  if (index === MSR_TSC) {
    state.tsc_offset = host.tscOffset(value);
    return true;
  }
  if (index === 0x17b) {
    if (!(state.mcg_cap & MCG_CTL_P)) return value === 0n;
    state.mcg_ctl = value;
    return true;
  }
  const register = registers.get(index);
  if (!register) return host.write(index, value);
  if (register.valid && !register.valid(value, limits)) return false;
  register.write(state, value);
  return true;
}
