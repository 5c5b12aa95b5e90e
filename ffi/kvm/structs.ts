/**
 * KVM's x86-64 ABI structs (asm/kvm.h, linux/kvm.h). Sizes and offsets are checked in the tests
 * against the kernel headers' numbers.
 *
 * @module
 */
import { array, bytes, type Field, i32, struct, u16, u32, u64, u8 } from "../struct.ts";

/** struct kvm_regs */
export const kvmRegs = struct("kvm_regs", {
  rax: u64,
  rbx: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  rsp: u64,
  rbp: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rip: u64,
  rflags: u64,
});

/** struct kvm_segment */
export const kvmSegment = struct("kvm_segment", {
  base: u64,
  limit: u32,
  selector: u16,
  type: u8,
  present: u8,
  dpl: u8,
  db: u8,
  s: u8,
  l: u8,
  g: u8,
  avl: u8,
  unusable: u8,
  padding: u8,
});

/** struct kvm_dtable */
export const kvmDtable = struct("kvm_dtable", { base: u64, limit: u16, padding: bytes(6) });

/** struct kvm_sregs */
export const kvmSregs = struct("kvm_sregs", {
  cs: kvmSegment,
  ds: kvmSegment,
  es: kvmSegment,
  fs: kvmSegment,
  gs: kvmSegment,
  ss: kvmSegment,
  tr: kvmSegment,
  ldt: kvmSegment,
  gdt: kvmDtable,
  idt: kvmDtable,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  apic_base: u64,
  interrupt_bitmap: array(u64, 4),
});

/** struct kvm_mp_state */
export const kvmMpState = struct("kvm_mp_state", { mp_state: u32 });

/** struct kvm_userspace_memory_region */
export const kvmUserspaceMemoryRegion = struct("kvm_userspace_memory_region", {
  slot: u32,
  flags: u32,
  guest_phys_addr: u64,
  memory_size: u64,
  userspace_addr: u64,
});

/** struct kvm_enable_cap */
export const kvmEnableCap = struct("kvm_enable_cap", {
  cap: u32,
  flags: u32,
  args: array(u64, 4),
  pad: bytes(64),
});

/** struct kvm_irq_level */
export const kvmIrqLevel = struct("kvm_irq_level", { irq: u32, level: u32 });

/** struct kvm_msi */
export const kvmMsi = struct("kvm_msi", {
  address_lo: u32,
  address_hi: u32,
  data: u32,
  flags: u32,
  devid: u32,
  pad: bytes(12),
});

/** struct kvm_irq_routing_entry to a chip's pin: the target is a union of 32 bytes. */
export const kvmIrqRoutingEntry = struct("kvm_irq_routing_entry", {
  gsi: u32,
  type: u32,
  flags: u32,
  pad: u32,
  irqchip: u32,
  pin: u32,
  rest: bytes(24),
});

/** struct kvm_irqchip: the chip's registers are a union of 512 bytes */
export const kvmIrqchip = struct("kvm_irqchip", { chip_id: u32, pad: u32, chip: bytes(512) });

/** struct kvm_pic_state: the master or slave 8259A inside kvm_irqchip */
export const kvmPicState = struct("kvm_pic_state", {
  last_irr: u8,
  irr: u8,
  imr: u8,
  isr: u8,
  priority_add: u8,
  irq_base: u8,
  read_reg_select: u8,
  poll: u8,
  special_mask: u8,
  init_state: u8,
  auto_eoi: u8,
  rotate_on_auto_eoi: u8,
  special_fully_nested_mode: u8,
  init4: u8,
  elcr: u8,
  elcr_mask: u8,
});

/** struct kvm_ioapic_state */
export const kvmIoapicState = struct("kvm_ioapic_state", {
  base_address: u64,
  ioregsel: u32,
  id: u32,
  irr: u32,
  pad: u32,
  redirtbl: array(u64, 24),
});

/** struct kvm_pit_config */
export const kvmPitConfig = struct("kvm_pit_config", { flags: u32, pad: bytes(60) });

/** struct kvm_pit_channel_state */
export const kvmPitChannelState = struct("kvm_pit_channel_state", {
  count: u32,
  latched_count: u16,
  count_latched: u8,
  status_latched: u8,
  status: u8,
  read_state: u8,
  write_state: u8,
  write_latch: u8,
  rw_mode: u8,
  mode: u8,
  bcd: u8,
  gate: u8,
  count_load_time: u64,
});

/** struct kvm_pit_state2 */
export const kvmPitState2 = struct("kvm_pit_state2", {
  channels: array(kvmPitChannelState, 3),
  flags: u32,
  reserved: bytes(36),
});

/** struct kvm_clock_data */
export const kvmClockData = struct("kvm_clock_data", {
  clock: u64,
  flags: u32,
  pad0: u32,
  realtime: u64,
  host_tsc: u64,
  pad: bytes(16),
});

/** struct kvm_cpuid_entry2 */
export const kvmCpuidEntry2 = struct("kvm_cpuid_entry2", {
  function: u32,
  index: u32,
  flags: u32,
  eax: u32,
  ebx: u32,
  ecx: u32,
  edx: u32,
  padding: bytes(12),
});

/** struct kvm_msr_entry */
export const kvmMsrEntry = struct("kvm_msr_entry", { index: u32, reserved: u32, data: u64 });

/** struct kvm_vcpu_events */
export const kvmVcpuEvents = struct("kvm_vcpu_events", {
  exception_injected: u8,
  exception_nr: u8,
  exception_has_error_code: u8,
  exception_pending: u8,
  exception_error_code: u32,
  interrupt_injected: u8,
  interrupt_nr: u8,
  interrupt_soft: u8,
  interrupt_shadow: u8,
  nmi_injected: u8,
  nmi_pending: u8,
  nmi_masked: u8,
  nmi_pad: u8,
  sipi_vector: u32,
  flags: u32,
  smi_smm: u8,
  smi_pending: u8,
  smi_smm_inside_nmi: u8,
  smi_latched_init: u8,
  triple_fault_pending: u8,
  reserved: bytes(26),
  exception_has_payload: u8,
  exception_payload: u64,
});

/** struct kvm_debugregs */
export const kvmDebugregs = struct("kvm_debugregs", {
  db: array(u64, 4),
  dr6: u64,
  dr7: u64,
  flags: u64,
  reserved: array(u64, 9),
});

/** struct kvm_guest_debug: what `control` means is in `GuestDebug`; debug registers 0 to 7 */
export const kvmGuestDebug = struct("kvm_guest_debug", {
  control: u32,
  pad: u32,
  debugreg: array(u64, 8),
});

/** struct kvm_xcr */
export const kvmXcr = struct("kvm_xcr", { xcr: u32, reserved: u32, value: u64 });

/** struct kvm_xcrs */
export const kvmXcrs = struct("kvm_xcrs", {
  nr_xcrs: u32,
  flags: u32,
  xcrs: array(kvmXcr, 16),
  padding: array(u64, 16),
});

/** struct kvm_lapic_state: the 1 KiB register page */
export const kvmLapicState = struct("kvm_lapic_state", { regs: bytes(1024) });

/** A LAPIC register: 32 bits at the beginning of 16 bytes (Intel SDM volume 3, 12.4.1). */
const lapicRegister: Field<number> = { ...u32, size: 16, align: 16 };

/** What is in kvm_lapic_state's page (Intel SDM volume 3, table 12-1). */
export const lapicRegisters = struct("lapic_registers", {
  reserved_000: array(lapicRegister, 2),
  id: lapicRegister,
  version: lapicRegister,
  reserved_040: array(lapicRegister, 4),
  tpr: lapicRegister,
  apr: lapicRegister,
  ppr: lapicRegister,
  eoi: lapicRegister,
  rrd: lapicRegister,
  ldr: lapicRegister,
  dfr: lapicRegister,
  svr: lapicRegister,
  isr: array(lapicRegister, 8),
  tmr: array(lapicRegister, 8),
  irr: array(lapicRegister, 8),
  esr: lapicRegister,
  reserved_290: array(lapicRegister, 6),
  lvt_cmci: lapicRegister,
  icr_low: lapicRegister,
  icr_high: lapicRegister,
  lvt_timer: lapicRegister,
  lvt_thermal: lapicRegister,
  lvt_performance: lapicRegister,
  lvt_lint0: lapicRegister,
  lvt_lint1: lapicRegister,
  lvt_error: lapicRegister,
  timer_initial: lapicRegister,
  timer_current: lapicRegister,
  reserved_3a0: array(lapicRegister, 4),
  timer_divide: lapicRegister,
  reserved_3f0: lapicRegister,
});

/** The head of kvm_xsave: legacy region and header (Intel SDM volume 1, 13.4.1 and 13.4.2). */
export const xsaveHead = struct("xsave_head", {
  fcw: u16,
  fsw: u16,
  ftw: u8,
  reserved_5: u8,
  fop: u16,
  fip: u64,
  fdp: u64,
  mxcsr: u32,
  mxcsr_mask: u32,
  st: array(bytes(16), 8),
  xmm: array(bytes(16), 16),
  reserved_416: bytes(96),
  xstate_bv: u64,
  xcomp_bv: u64,
  reserved_528: bytes(48),
});

/** struct kvm_xsave: legacy region, header and, up to 4096 bytes, extended states */
export const kvmXsave = struct("kvm_xsave", { region: bytes(4096) });

/** struct kvm_device_attr */
export const kvmDeviceAttr = struct("kvm_device_attr", {
  flags: u32,
  group: u32,
  attr: u64,
  addr: u64,
});

/** struct kvm_irqfd */
export const kvmIrqfd = struct("kvm_irqfd", {
  fd: u32,
  gsi: u32,
  flags: u32,
  resamplefd: u32,
  pad: bytes(16),
});

/** struct kvm_pre_fault_memory */
export const kvmPreFaultMemory = struct("kvm_pre_fault_memory", {
  gpa: u64,
  size: u64,
  flags: u64,
  padding: bytes(40),
});

/** struct kvm_ioeventfd */
export const kvmIoeventfd = struct("kvm_ioeventfd", {
  datamatch: u64,
  addr: u64,
  len: u32,
  fd: i32,
  flags: u32,
  pad: bytes(36),
});
