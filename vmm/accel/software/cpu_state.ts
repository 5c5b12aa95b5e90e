/**
 * The software CPU's state: one struct at address 0 of the vCPU's WebAssembly memory.
 *
 * It is declared here and nowhere else; `deno task core` writes `core/layout.ts`, the offsets that the
 * CPU's own sources use, from this declaration. All that is architectural lives here and is complete
 * whenever the CPU is not inside `run()`, so that whoever sees the pages can save and restore it.
 *
 * @module
 */
import { array, bytes, struct, u16, u32, u64, u8 } from "../../../ffi/struct.ts";

/** A segment register with its hidden part. */
export const segment = struct("segment", {
  base: u64,
  /** Last byte, granularity applied. */
  limit: u32,
  selector: u16,
  /** Bits 40 to 55 of the descriptor: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15. */
  attributes: u16,
});

/** Guest RAM in the vCPU's memory. */
export const region = struct("region", {
  gpa: u64,
  size: u64,
  /** Where it is in the vCPU's WebAssembly memory. */
  address: u32,
  readonly: u32,
});

/** How many regions of guest RAM a CPU can have. */
export const MAX_REGIONS = 32;

/** The indices of `segments`: the processor's numbers, then LDTR and TR. */
export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"] as const;

/** The state, at address 0. */
export const cpuState = struct("cpu_state", {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8 to R15. */
  gpr: array(u64, 16),
  /** FXSAVE64's image: the x87, MMX and SSE registers live here. */
  fxsave: bytes(512),
  rip: u64,
  rflags: u64,
  /** Where execution goes on after the instruction that executes; transfers change it. */
  next_rip: u64,
  /** Always 0: the base or index of an address that has none. */
  zero: u64,
  segments: array(segment, 8),
  gdt_base: u64,
  idt_base: u64,
  gdt_limit: u32,
  idt_limit: u32,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  xcr0: u64,
  apic_base: u64,
  /** The four page-directory-pointer entries that PAE paging has loaded with CR3. */
  pdptr: array(u64, 4),
  dr: array(u64, 4),
  dr6: u64,
  dr7: u64,

  // MSRs
  star: u64,
  lstar: u64,
  cstar: u64,
  sfmask: u64,
  kernel_gs_base: u64,
  sysenter_cs: u64,
  sysenter_esp: u64,
  sysenter_eip: u64,
  pat: u64,
  misc_enable: u64,
  tsc_aux: u64,
  tsc_adjust: u64,
  tsc_offset: u64,
  debugctl: u64,
  ucode_rev: u64,
  mcg_cap: u64,
  mcg_status: u64,
  mcg_ctl: u64,
  /** CTL, STATUS, ADDR and MISC of each bank. */
  mce_banks: array(u64, 128),
  platform_info: u64,
  misc_features: u64,
  hwcr: u64,
  de_cfg: u64,
  mtrr_def_type: u64,
  mtrr_fixed: array(u64, 11),
  mtrr_variable: array(u64, 16),

  // Scratch between the CPU and its host
  /** The host's TSC, stored by the import `readTsc`. */
  host_tsc: u64,
  /** What the import `msrRead` gives and `msrWrite` takes. */
  msr_value: u64,

  // Events
  /** Any bit makes the dispatch loop look up between two blocks; see `ATTENTION`. */
  attention: u32,
  /** KVM_MP_STATE_*: 0 runnable, 1 uninitialized, 2 INIT received, 3 halted, 4 SIPI received. */
  mp_state: u32,
  /** 1: by MOV SS or POP SS, 2: by STI; for the next instruction. */
  interrupt_shadow: u32,
  nmi_pending: u32,
  nmi_masked: u32,
  nmi_injected: u32,
  sipi_vector: u32,
  exception_pending: u32,
  exception_injected: u32,
  exception_vector: u32,
  exception_has_error_code: u32,
  exception_error_code: u32,
  exception_has_payload: u32,
  interrupt_injected: u32,
  interrupt_vector: u32,
  interrupt_soft: u32,
  triple_fault_pending: u32,
  exception_payload: u64,
  /** Bits of DR6: a #DB that comes as a trap at the next instruction boundary. */
  debug_pending: u64,

  // The exception that `raise()` throws
  fault_vector: u32,
  fault_error_code: u32,
  fault_has_error_code: u32,
  /** 1 while an exception is being delivered to the guest, with `fault_previous` its vector. */
  fault_delivering: u32,
  fault_previous: u32,
  /** Linear address of a page fault, not yet in CR2. */
  fault_address: u64,

  // RAM
  region_count: u32,
  regions: array(region, MAX_REGIONS),

  /** What a debugger outside wants; see `GUEST_DEBUG`. */
  guest_debug: u32,
  /** 1: A20 is masked (bit 20 of physical addresses is 0). */
  a20_masked: u32,
  /** How often PAUSE was executed: the host sees that the CPU spins. */
  pauses: u32,
  /** DR0 to DR3 and DR7 of the debugger, which take the place of the guest's for what hits. */
  debugger_dr: array(u64, 4),
  debugger_dr7: u64,
  /** What has hit or stepped for the debugger, as in DR6; the host clears it. */
  debugger_dr6: u64,
  /** With several CPUs: the bit of this one in CODE_MAP, 1 << (index & 7); with one, 0. */
  cpu_bit: u32,
  /** Its number among the machine's CPUs, from 1 on; 0 if there are no others. */
  cpu_number: u32,
  reserved: array(u8, 64),
});

/** Bits of `attention`. */
export const ATTENTION = {
  /** Leave `run()` at the next instruction boundary. */
  kick: 1 << 0,
  /** An interrupt may be pending: ask `interruptVector` as soon as the guest takes one. */
  interrupt: 1 << 1,
  /** An NMI is pending in `nmi_pending`. */
  nmi: 1 << 2,
  /** Another has changed mappings or code: flush TLB and blocks. */
  flush: 1 << 3,
  /** `mp_state` is not runnable, or an event in the state waits to be delivered. */
  state: 1 << 4,
  /** A device has written memory, which may be code: what is decoded is compared with it. */
  code: 1 << 5,
} as const;

/** Bits of `guest_debug`: `run()` ends after each instruction; the breakpoints are the debugger's. */
export const GUEST_DEBUG = { step: 1 << 0, points: 1 << 1 } as const;

/** Why `run()` has returned. */
export const STOP = { budget: 0, halt: 1, attention: 2, shutdown: 3, debug: 4 } as const;

/** The kvm_run page in the vCPU's memory. */
export const KVM_RUN_ADDRESS = 0x8000;
/** The data page of port accesses, after kvm_run. */
export const PIO_DATA_ADDRESS = 0x9000;
/** How much of the memory others see: the state and the kvm_run page. */
export const SHARED_SIZE = 0x10000;
/**
 * What the CPUs of a machine share besides RAM: their memories have the same pages here, if there are
 * several. A page of locks, then a byte for each page of RAM, see core/sharing.ts.
 */
export const COMMON_ADDRESS = 0x90_0000;
export const COMMON_SIZE = 0x10_0000;
/** A byte for each page of RAM: 1 once it was written. Who clears it has the CPU's TLB flushed. */
export const DIRTY_PAGES_ADDRESS = 0x80_0000;
/** Where RAM begins in the vCPU's memory; below is the CPU's own. */
export const RAM_ADDRESS = 0x1000_0000;
