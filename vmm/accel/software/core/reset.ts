// Power-on, INIT, SIPI (Intel SDM volume 3, 9.1 and table 9-1), and what follows from a new state.
import { RESERVED_ADDRESS } from "./derived";
import { physicalAddressBits } from "./cpuid";
import {
  APIC_BASE, ATTENTION, ATTENTION_INTERRUPT, ATTENTION_NMI, ATTENTION_STATE, CR0, CR2, CR3, CR4, CR8,
  CSTAR, DEBUG_PENDING, DEBUGCTL, DR, DR6, DR7, EFER, EXCEPTION_HAS_PAYLOAD, EXCEPTION_INJECTED,
  EXCEPTION_PENDING, FAULT_DELIVERING, FXSAVE, GDT_BASE, GDT_LIMIT, HWCR, DE_CFG, IDT_BASE, IDT_LIMIT,
  INTERRUPT_INJECTED, INTERRUPT_SHADOW, KERNEL_GS_BASE, LSTAR, MCE_BANKS, MCG_CAP, MCG_CTL, MCG_STATUS,
  MISC_ENABLE, MISC_FEATURES, MP_STATE, MTRR_DEF_TYPE, MTRR_FIXED, MTRR_VARIABLE, NMI_INJECTED,
  NMI_MASKED, NMI_PENDING, PAT, PLATFORM_INFO, RFLAGS, SFMASK, STAR, SYSENTER_CS, SYSENTER_EIP,
  SYSENTER_ESP, TRIPLE_FAULT_PENDING, TSC_ADJUST, TSC_AUX, TSC_OFFSET, UCODE_REV, XCR0,
} from "./layout";
import { modeChanged } from "./memory";
import { reloadPdptrs } from "./control_registers";
import {
  CR0_CD, CR0_ET, CR0_NW, CS, ES, FLAGS_FIXED, GS, jump, LDTR, RDX, setGpr, setSegment, TR,
} from "./registers";
import { resetTlb } from "./tlb";

// KVM_MP_STATE_*
const RUNNABLE: u32 = 0;
const UNINITIALIZED: u32 = 1;
const INIT_RECEIVED: u32 = 2;

const CODE_REAL: u32 = 0x9b;
const DATA_REAL: u32 = 0x93;
const LDT_PRESENT: u32 = 0x82;
const TSS_PRESENT: u32 = 0x8b;
/** The local APIC's page, enabled; the boot processor's has bit 8. */
const APIC_AT_RESET: u64 = 0xfee0_0800;
const BOOT_PROCESSOR: u64 = 0x100;
/** WB, WT, UC-, UC, twice. */
const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;
/** No branch trace, no precise sampling: MISC_ENABLE of a processor without them, as KVM's. */
const MISC_ENABLE_AT_RESET: u64 = 0x1800;
/** CPUID can be made to fault. */
const PLATFORM_AT_RESET: u64 = 0x8000_0000;
/** The banks that KVM gives a vCPU. */
const MCG_BANKS: u64 = 32;
const FCW_AT_RESET: u16 = 0x37f;
const MXCSR_AT_RESET: u32 = 0x1f80;
const MXCSR_MASK: u32 = 0xffff;

/** The CPU's signature, in RDX after a reset: CPUID leaf 1 EAX. */
let signature: u64 = 0;

/** Power-on. `bootProcessor` is 1 or 0; others than the boot processor wait for INIT. */
export function powerOn(bootProcessor: u32, eax1: u32): void {
  signature = eax1;
  memory.fill(FXSAVE, 0, 512);
  store<u16>(FXSAVE, FCW_AT_RESET);
  store<u32>(FXSAVE + 24, MXCSR_AT_RESET);
  store<u32>(FXSAVE + 28, MXCSR_MASK);
  store<u64>(CR0, CR0_CD | CR0_NW);
  store<u64>(XCR0, 1);
  store<u64>(APIC_BASE, bootProcessor ? APIC_AT_RESET | BOOT_PROCESSOR : APIC_AT_RESET);
  clear(STAR);
  clear(LSTAR);
  clear(CSTAR);
  clear(SFMASK);
  clear(KERNEL_GS_BASE);
  clear(SYSENTER_CS);
  clear(SYSENTER_ESP);
  clear(SYSENTER_EIP);
  clear(TSC_AUX);
  clear(TSC_ADJUST);
  clear(TSC_OFFSET);
  clear(UCODE_REV);
  clear(MCG_STATUS);
  clear(MCG_CTL);
  clear(MTRR_DEF_TYPE);
  clear(MISC_FEATURES);
  clear(HWCR);
  clear(DE_CFG);
  store<u64>(PAT, PAT_AT_RESET);
  store<u64>(MISC_ENABLE, MISC_ENABLE_AT_RESET);
  store<u64>(PLATFORM_INFO, PLATFORM_AT_RESET);
  store<u64>(MCG_CAP, MCG_BANKS);
  memory.fill(MTRR_FIXED, 0, 11 * 8);
  memory.fill(MTRR_VARIABLE, 0, 16 * 8);
  memory.fill(MCE_BANKS, 0, 128 * 8);
  for (let bank: usize = 0; bank < 32; bank++) store<u64>(MCE_BANKS + bank * 32, u64.MAX_VALUE);
  initialize();
  setMpState(bootProcessor ? RUNNABLE : UNINITIALIZED);
}

/** INIT: the boot processor begins at the reset vector, others wait for a SIPI. */
export function init(): void {
  initialize();
  setMpState(load<u64>(APIC_BASE) & BOOT_PROCESSOR ? RUNNABLE : INIT_RECEIVED);
}

/** SIPI, which is lost on a CPU that does not wait for one. */
export function startUp(vector: u32): void {
  if (load<u32>(MP_STATE) != INIT_RECEIVED) return;
  setSegment(CS, vector << 8, <u64>vector << 12, 0xffff, CODE_REAL);
  jump(0);
  setMpState(RUNNABLE);
  modeChanged();
}

function setMpState(state: u32): void {
  store<u32>(MP_STATE, state);
  if (state != RUNNABLE) atomic.or<u32>(ATTENTION, ATTENTION_STATE);
  else atomic.and<u32>(ATTENTION, ~ATTENTION_STATE);
}

function clear(at: usize): void {
  store<u64>(at, 0);
}

/** What INIT and a reset have in common. */
function initialize(): void {
  for (let register: u32 = 0; register < 16; register++) setGpr(register, 0);
  setGpr(RDX, signature);
  store<u64>(RFLAGS, FLAGS_FIXED);
  for (let seg = ES; seg <= GS; seg++) setSegment(seg, 0, 0, 0xffff, DATA_REAL);
  setSegment(CS, 0xf000, 0xffff_0000, 0xffff, CODE_REAL);
  setSegment(LDTR, 0, 0, 0xffff, LDT_PRESENT);
  setSegment(TR, 0, 0, 0xffff, TSS_PRESENT);
  clear(GDT_BASE);
  clear(IDT_BASE);
  store<u32>(GDT_LIMIT, 0xffff);
  store<u32>(IDT_LIMIT, 0xffff);
  store<u64>(CR0, (load<u64>(CR0) & (CR0_CD | CR0_NW)) | CR0_ET);
  clear(CR2);
  clear(CR3);
  clear(CR4);
  clear(CR8);
  clear(EFER);
  clear(DEBUGCTL);
  memory.fill(DR, 0, 32);
  store<u64>(DR6, 0xffff_0ff0);
  store<u64>(DR7, 0x400);
  clearEvents();
  jump(0xfff0);
  resetTlb();
  modeChanged();
}

function clearEvents(): void {
  store<u32>(INTERRUPT_SHADOW, 0);
  store<u32>(NMI_PENDING, 0);
  store<u32>(NMI_MASKED, 0);
  store<u32>(NMI_INJECTED, 0);
  store<u32>(EXCEPTION_PENDING, 0);
  store<u32>(EXCEPTION_INJECTED, 0);
  store<u32>(EXCEPTION_HAS_PAYLOAD, 0);
  store<u32>(INTERRUPT_INJECTED, 0);
  store<u32>(TRIPLE_FAULT_PENDING, 0);
  store<u32>(FAULT_DELIVERING, 0);
  clear(DEBUG_PENDING);
  atomic.and<u32>(ATTENTION, ~ATTENTION_NMI);
}

/** What the system part derives from a state that someone else has set. */
export function refreshSystem(): void {
  const bits = physicalAddressBits();
  store<u64>(RESERVED_ADDRESS, 0x000f_ffff_ffff_ffff & ~(((<u64>1) << bits) - 1));
  reloadPdptrs();
  store<u32>(FAULT_DELIVERING, 0);
  // Looked at once; what is not so is forgotten again.
  atomic.or<u32>(ATTENTION, ATTENTION_STATE | ATTENTION_NMI | ATTENTION_INTERRUPT);
}
