/**
 * The software CPU's state as KVM's structs, and back: what KVM_GET_* gives and KVM_SET_* takes.
 *
 * The vCPU is parked. What KVM refuses with EINVAL is refused here, before anything is changed. After a
 * write the CPU's `refresh()` must be called before it runs on. MSRs are in `kvm_msrs.ts`, the FPU is in
 * `kvm_xsave.ts`, the LAPIC is a chip.
 *
 * @module
 */
import { Errno, OsError } from "../../../ffi/errno.ts";
import {
  kvmDebugregs,
  type kvmDtable,
  kvmMpState,
  kvmRegs,
  type kvmSegment,
  kvmSregs,
  kvmVcpuEvents,
  kvmXcrs,
} from "../../../ffi/kvm/structs.ts";
import type { View } from "../../../ffi/struct.ts";
import type { cpuState, segment as cpuSegment } from "./cpu_state.ts";
import type { CpuLimits } from "./limits.ts";

/** A CPU's state, wherever its pages are mapped. */
export type CpuState = View<typeof cpuState.fields>;
type Bytes = Uint8Array<ArrayBuffer>;

/** The registers of kvm_regs by the processor's numbers. */
const REGISTERS = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"],
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
] as const;
/** kvm_sregs' segments by their places in the CPU's state. */
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"] as const;

const RFLAGS_FIXED = 2n;
const CR0_PE = 1n;
const CR0_PG = 1n << 31n;
const CR0_CD = 1n << 30n;
const CR0_NW = 1n << 29n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const CR4_PCIDE = 1n << 17n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
const LONG_CODE = 1 << 13;
const PRESENT = 0x80;
/** Bits of APIC_BASE that are neither flags nor address (SDM volume 3, 12.4.4). */
const APIC_BASE_RESERVED = 0x2ffn;

// DR6 and DR7: what can be written, what is always 1 (SDM volume 3, 18.2).
const DR6_WRITABLE = 0xe00fn;
const DR6_FIXED = 0xffff_0ff0n;
const DR6_BREAKPOINTS = 0xfn;
const DR7_WRITABLE = 0xffff_2bffn;
const DR7_FIXED = 0x400n;

// Flags of kvm_vcpu_events (linux/asm/kvm.h).
const NMI_PENDING_VALID = 1;
const SIPI_VECTOR_VALID = 2;
const SHADOW_VALID = 4;
const SMM_VALID = 8;
const PAYLOAD_VALID = 0x10;
const TRIPLE_FAULT_VALID = 0x20;
const ALL_VALID = 0x3f;
const VECTOR_DB = 1;
const VECTOR_NMI = 2;
const LAST_EXCEPTION = 31;
/** KVM_MP_STATE_SIPI_RECEIVED, the last that is x86's. */
const SIPI_RECEIVED = 4;
const LAST_MP_STATE = SIPI_RECEIVED;

function refuse(request: string, subject: string): never {
  throw new OsError(request, Errno.EINVAL, subject);
}

const hex = (value: bigint | number) => `0x${value.toString(16)}`;

/** KVM_GET_REGS. */
export function readRegs(state: CpuState, into: Bytes): void {
  const regs = kvmRegs.view(into.buffer, into.byteOffset);
  REGISTERS.forEach((name, i) => regs[name] = state.gpr.at(i));
  regs.rip = state.rip;
  regs.rflags = state.rflags;
}

/** KVM_SET_REGS. */
export function writeRegs(state: CpuState, from: Bytes): void {
  const regs = kvmRegs.view(from.buffer, from.byteOffset);
  REGISTERS.forEach((name, i) => state.gpr.put(i, regs[name]));
  state.rip = regs.rip;
  state.rflags = regs.rflags | RFLAGS_FIXED;
  state.exception_pending = 0;
  state.debug_pending = 0n;
}

function readSegment(
  from: View<typeof cpuSegment.fields>,
  into: View<typeof kvmSegment.fields>,
): void {
  const { attributes } = from;
  into.base = from.base;
  into.limit = from.limit;
  into.selector = from.selector;
  into.type = attributes & 15;
  into.s = attributes >> 4 & 1;
  into.dpl = attributes >> 5 & 3;
  into.present = attributes >> 7 & 1;
  into.avl = attributes >> 12 & 1;
  into.l = attributes >> 13 & 1;
  into.db = attributes >> 14 & 1;
  into.g = attributes >> 15 & 1;
  into.unusable = into.present ? 0 : 1;
  into.padding = 0;
}

function attributesOf(from: View<typeof kvmSegment.fields>): number {
  const present = from.unusable ? 0 : from.present & 1;
  return from.type & 15 | (from.s & 1) << 4 | (from.dpl & 3) << 5 | present << 7 |
    (from.avl & 1) << 12 | (from.l & 1) << 13 | (from.db & 1) << 14 | (from.g & 1) << 15;
}

function writeSegment(
  into: View<typeof cpuSegment.fields>,
  from: View<typeof kvmSegment.fields>,
): void {
  into.base = from.base;
  into.limit = from.limit;
  into.selector = from.selector;
  into.attributes = attributesOf(from);
}

function readTable(into: View<typeof kvmDtable.fields>, base: bigint, limit: number): void {
  into.base = base;
  into.limit = limit;
  into.padding.fill(0);
}

/** KVM_GET_SREGS. */
export function readSregs(state: CpuState, into: Bytes): void {
  const sregs = kvmSregs.view(into.buffer, into.byteOffset);
  SEGMENTS.forEach((name, i) => readSegment(state.segments.at(i), sregs[name]));
  readTable(sregs.gdt, state.gdt_base, state.gdt_limit);
  readTable(sregs.idt, state.idt_base, state.idt_limit);
  sregs.cr0 = state.cr0;
  sregs.cr2 = state.cr2;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.cr8 = state.cr8;
  sregs.efer = state.efer;
  sregs.apic_base = state.apic_base;
  for (let i = 0; i < 4; i++) sregs.interrupt_bitmap.put(i, 0n);
  if (state.interrupt_injected) {
    const vector = state.interrupt_vector;
    sregs.interrupt_bitmap.put(vector >> 6, 1n << BigInt(vector & 63));
  }
}

/** KVM_SET_SREGS. @throws {OsError} EINVAL for registers that the CPU cannot have */
export function writeSregs(state: CpuState, from: Bytes, limits: CpuLimits): void {
  const sregs = kvmSregs.view(from.buffer, from.byteOffset);
  checkSregs(sregs, limits);
  SEGMENTS.forEach((name, i) => writeSegment(state.segments.at(i), sregs[name]));
  state.gdt_base = sregs.gdt.base;
  state.gdt_limit = sregs.gdt.limit;
  state.idt_base = sregs.idt.base;
  state.idt_limit = sregs.idt.limit;
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.cr8 = sregs.cr8 & 0xfn;
  state.efer = sregs.efer;
  state.apic_base = sregs.apic_base;
  const vector = queuedInterrupt(sregs);
  if (vector === undefined) return;
  state.interrupt_injected = 1;
  state.interrupt_vector = vector;
}

type Sregs = View<typeof kvmSregs.fields>;

/** KVM's checks, arch/x86/kvm/x86.c: kvm_is_valid_sregs(). */
function checkSregs(sregs: Sregs, limits: CpuLimits): void {
  const { cr0, cr3, cr4, efer, apic_base } = sregs;
  const bad = (name: string, value: bigint) => refuse("KVM_SET_SREGS", `${name} ${hex(value)}`);
  const paging = (cr0 & CR0_PG) !== 0n;
  if (cr0 >> 32n || (paging && !(cr0 & CR0_PE)) || (cr0 & CR0_NW && !(cr0 & CR0_CD))) {
    bad("cr0", cr0);
  }
  if (cr4 & ~limits.cr4) bad("cr4", cr4);
  if (efer & ~limits.efer) bad("efer", efer);
  const addresses = 1n << BigInt(limits.physicalBits);
  if (efer & EFER_LME && paging) {
    if (!(cr4 & CR4_PAE) || !(efer & EFER_LMA)) bad("efer", efer);
    if (cr3 >= addresses) bad("cr3", cr3);
  } else {
    if (efer & EFER_LMA || cr4 & CR4_PCIDE || (cr4 & CR4_LA57 && paging)) bad("efer", efer);
    if (attributesOf(sregs.cs) & LONG_CODE && attributesOf(sregs.cs) & PRESENT) bad("efer", efer);
  }
  if (apic_base & APIC_BASE_RESERVED || apic_base >= addresses) bad("apic_base", apic_base);
}

/** The interrupt that was taken from the chips but not delivered yet. */
function queuedInterrupt(sregs: Sregs): number | undefined {
  for (let i = 0; i < 4; i++) {
    const word = sregs.interrupt_bitmap.at(i);
    for (let bit = 0n; bit < 64n; bit++) if (word >> bit & 1n) return i * 64 + Number(bit);
  }
}

/** KVM_GET_MP_STATE. */
export function readMpState(state: CpuState, into: Bytes): void {
  kvmMpState.view(into.buffer, into.byteOffset).mp_state = state.mp_state;
}

/** KVM_SET_MP_STATE. @throws {OsError} EINVAL for a state that x86 does not have */
export function writeMpState(state: CpuState, from: Bytes): void {
  const { mp_state } = kvmMpState.view(from.buffer, from.byteOffset);
  if (mp_state > LAST_MP_STATE) refuse("KVM_SET_MP_STATE", `${mp_state}`);
  state.mp_state = mp_state;
}

/** KVM_GET_DEBUGREGS. */
export function readDebugregs(state: CpuState, into: Bytes): void {
  into.fill(0, 0, kvmDebugregs.size);
  const regs = kvmDebugregs.view(into.buffer, into.byteOffset);
  for (let i = 0; i < 4; i++) regs.db.put(i, state.dr.at(i));
  // A trap that is pending is reported as injected: DR6 tells of it already.
  const pending = state.debug_pending;
  regs.dr6 = pending ? (state.dr6 & ~DR6_BREAKPOINTS) | pending : state.dr6;
  regs.dr7 = state.dr7;
}

/** KVM_SET_DEBUGREGS. @throws {OsError} EINVAL for flags, and upper halves that must be 0 */
export function writeDebugregs(state: CpuState, from: Bytes): void {
  const regs = kvmDebugregs.view(from.buffer, from.byteOffset);
  if (regs.flags) refuse("KVM_SET_DEBUGREGS", `flags ${hex(regs.flags)}`);
  if (regs.dr6 >> 32n) refuse("KVM_SET_DEBUGREGS", `dr6 ${hex(regs.dr6)}`);
  if (regs.dr7 >> 32n) refuse("KVM_SET_DEBUGREGS", `dr7 ${hex(regs.dr7)}`);
  for (let i = 0; i < 4; i++) state.dr.put(i, regs.db.at(i));
  state.dr6 = (regs.dr6 & DR6_WRITABLE) | DR6_FIXED;
  state.dr7 = (regs.dr7 & DR7_WRITABLE) | DR7_FIXED;
}

/** KVM_GET_XCRS. */
export function readXcrs(state: CpuState, into: Bytes): void {
  into.fill(0, 0, kvmXcrs.size);
  const xcrs = kvmXcrs.view(into.buffer, into.byteOffset);
  xcrs.nr_xcrs = 1;
  xcrs.xcrs.at(0).value = state.xcr0;
}

/** KVM_SET_XCRS. @throws {OsError} EINVAL for a value that XSETBV would fault on */
export function writeXcrs(state: CpuState, from: Bytes, limits: CpuLimits): void {
  const xcrs = kvmXcrs.view(from.buffer, from.byteOffset);
  if (xcrs.nr_xcrs > xcrs.xcrs.length || xcrs.flags) {
    refuse("KVM_SET_XCRS", `${xcrs.nr_xcrs} registers, flags ${hex(xcrs.flags)}`);
  }
  for (let i = 0; i < xcrs.nr_xcrs; i++) {
    const { xcr, value } = xcrs.xcrs.at(i);
    if (xcr !== 0) continue;
    if (!(value & 1n) || value & ~limits.xcr0) refuse("KVM_SET_XCRS", `xcr0 ${hex(value)}`);
    state.xcr0 = value;
    return;
  }
}

/** KVM_GET_VCPU_EVENTS, as a vCPU without KVM_CAP_EXCEPTION_PAYLOAD gives it. */
export function readVcpuEvents(state: CpuState, into: Bytes): void {
  into.fill(0, 0, kvmVcpuEvents.size);
  const events = kvmVcpuEvents.view(into.buffer, into.byteOffset);
  if (state.debug_pending) {
    events.exception_injected = 1;
    events.exception_nr = VECTOR_DB;
  } else if (state.exception_injected || state.exception_pending) {
    events.exception_injected = 1;
    events.exception_nr = state.exception_vector;
    events.exception_has_error_code = state.exception_has_error_code;
    events.exception_error_code = state.exception_error_code;
  }
  events.interrupt_injected = state.interrupt_injected;
  events.interrupt_nr = state.interrupt_injected ? state.interrupt_vector : 0;
  events.interrupt_shadow = state.interrupt_shadow;
  events.nmi_injected = state.nmi_injected;
  events.nmi_pending = state.nmi_pending;
  events.nmi_masked = state.nmi_masked;
  events.sipi_vector = state.sipi_vector;
  events.flags = NMI_PENDING_VALID | SHADOW_VALID | SMM_VALID |
    (state.mp_state === SIPI_RECEIVED ? SIPI_VECTOR_VALID : 0);
}

/** KVM_SET_VCPU_EVENTS. @throws {OsError} EINVAL for what KVM refuses, and for SMM, which is not here */
export function writeVcpuEvents(state: CpuState, from: Bytes): void {
  const events = kvmVcpuEvents.view(from.buffer, from.byteOffset);
  checkVcpuEvents(events);
  const hasPayload = (events.flags & PAYLOAD_VALID) !== 0;
  state.debug_pending = 0n;
  state.exception_injected = events.exception_injected;
  state.exception_pending = hasPayload ? events.exception_pending : 0;
  state.exception_vector = events.exception_nr;
  state.exception_has_error_code = events.exception_has_error_code;
  state.exception_error_code = events.exception_error_code;
  state.exception_has_payload = hasPayload ? events.exception_has_payload : 0;
  state.exception_payload = events.exception_payload;
  state.interrupt_injected = events.interrupt_injected;
  state.interrupt_vector = events.interrupt_nr;
  state.interrupt_soft = events.interrupt_soft;
  if (events.flags & SHADOW_VALID) state.interrupt_shadow = events.interrupt_shadow & 3;
  state.nmi_injected = events.nmi_injected;
  if (events.flags & NMI_PENDING_VALID) state.nmi_pending = events.nmi_pending;
  state.nmi_masked = events.nmi_masked & 1;
  if (events.flags & SIPI_VECTOR_VALID) state.sipi_vector = events.sipi_vector;
  if (events.flags & TRIPLE_FAULT_VALID) state.triple_fault_pending = events.triple_fault_pending;
}

function checkVcpuEvents(events: View<typeof kvmVcpuEvents.fields>): void {
  const bad = (text: string): never => refuse("KVM_SET_VCPU_EVENTS", text);
  const { flags, exception_nr } = events;
  if (flags & ~ALL_VALID) bad(`flags ${hex(flags)}`);
  const pending = flags & PAYLOAD_VALID ? events.exception_pending : 0;
  if (events.exception_injected && pending) bad("exception both injected and pending");
  const comes = events.exception_injected || pending;
  if (comes && (exception_nr > LAST_EXCEPTION || exception_nr === VECTOR_NMI)) {
    bad(`exception ${exception_nr}`);
  }
  if (events.sipi_vector > 0xff) bad(`sipi_vector ${hex(events.sipi_vector)}`);
  if (flags & SMM_VALID && (events.smi_smm || events.smi_pending)) bad("system management mode");
}
