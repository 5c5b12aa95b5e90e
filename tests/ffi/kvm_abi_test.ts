import assert from "node:assert/strict";
import { KVM } from "../../ffi/kvm/ioctl.ts";
import * as structs from "../../ffi/kvm/structs.ts";
import type { Fields, Struct } from "../../ffi/struct.ts";

// What a C compiler says of linux/kvm.h and asm/kvm.h on x86-64 (Linux 6.1 headers).
const sizes: Record<string, number> = {
  kvm_regs: 144,
  kvm_segment: 24,
  kvm_dtable: 16,
  kvm_sregs: 312,
  kvm_mp_state: 4,
  kvm_userspace_memory_region: 32,
  kvm_irq_level: 8,
  kvm_msi: 32,
  kvm_enable_cap: 104,
  kvm_irqchip: 520,
  kvm_pic_state: 16,
  kvm_ioapic_state: 216,
  kvm_pit_config: 64,
  kvm_pit_channel_state: 24,
  kvm_pit_state2: 112,
  kvm_clock_data: 48,
  kvm_cpuid_entry2: 40,
  kvm_msr_entry: 16,
  kvm_vcpu_events: 64,
  kvm_debugregs: 128,
  kvm_xcr: 16,
  kvm_xcrs: 392,
  kvm_lapic_state: 1024,
  kvm_xsave: 4096,
  kvm_device_attr: 24,
  kvm_irqfd: 32,
  kvm_pre_fault_memory: 64,
  kvm_ioeventfd: 64,
  // The Intel SDM's layouts.
  lapic_registers: 1024,
  xsave_head: 576,
};
const offsets: Record<string, number> = {
  "lapic_registers.tpr": 0x80,
  "lapic_registers.irr": 0x200,
  "lapic_registers.lvt_cmci": 0x2f0,
  "lapic_registers.timer_divide": 0x3e0,
  "xsave_head.mxcsr": 24,
  "xsave_head.xmm": 160,
  "xsave_head.xstate_bv": 512,
  "kvm_regs.rip": 128,
  "kvm_sregs.tr": 144,
  "kvm_sregs.gdt": 192,
  "kvm_sregs.cr3": 240,
  "kvm_sregs.efer": 264,
  "kvm_sregs.apic_base": 272,
  "kvm_segment.selector": 12,
  "kvm_segment.unusable": 22,
  "kvm_ioapic_state.redirtbl": 24,
  "kvm_pit_channel_state.count_load_time": 16,
  "kvm_pit_state2.flags": 72,
  "kvm_clock_data.realtime": 16,
  "kvm_clock_data.host_tsc": 24,
  "kvm_vcpu_events.sipi_vector": 16,
  "kvm_vcpu_events.exception_has_payload": 55,
  "kvm_vcpu_events.exception_payload": 56,
  "kvm_debugregs.dr7": 40,
  "kvm_xcrs.xcrs": 8,
  "kvm_ioeventfd.fd": 20,
};
const ioctls: Record<string, bigint> = {
  KVM_CREATE_VM: 0xae01n,
  KVM_GET_MSR_INDEX_LIST: 0xc004ae02n,
  KVM_GET_SUPPORTED_CPUID: 0xc008ae05n,
  KVM_SET_USER_MEMORY_REGION: 0x4020ae46n,
  KVM_SET_TSS_ADDR: 0xae47n,
  KVM_SET_IDENTITY_MAP_ADDR: 0x4008ae48n,
  KVM_IRQ_LINE: 0x4008ae61n,
  KVM_SIGNAL_MSI: 0x4020aea5n,
  KVM_GET_IRQCHIP: 0xc208ae62n,
  KVM_SET_IRQCHIP: 0x8208ae63n,
  KVM_IRQFD: 0x4020ae76n,
  KVM_CREATE_PIT2: 0x4040ae77n,
  KVM_IOEVENTFD: 0x4040ae79n,
  KVM_SET_CLOCK: 0x4030ae7bn,
  KVM_GET_CLOCK: 0x8030ae7cn,
  KVM_GET_PIT2: 0x8070ae9fn,
  KVM_SET_PIT2: 0x4070aea0n,
  KVM_RUN: 0xae80n,
  KVM_GET_REGS: 0x8090ae81n,
  KVM_SET_REGS: 0x4090ae82n,
  KVM_GET_SREGS: 0x8138ae83n,
  KVM_SET_SREGS: 0x4138ae84n,
  KVM_TRANSLATE: 0xc018ae85n,
  KVM_GET_MSRS: 0xc008ae88n,
  KVM_SET_MSRS: 0x4008ae89n,
  KVM_SET_SIGNAL_MASK: 0x4004ae8bn,
  KVM_GET_LAPIC: 0x8400ae8en,
  KVM_SET_LAPIC: 0x4400ae8fn,
  KVM_SET_CPUID2: 0x4008ae90n,
  KVM_GET_MP_STATE: 0x8004ae98n,
  KVM_SET_MP_STATE: 0x4004ae99n,
  KVM_NMI: 0xae9an,
  KVM_GET_VCPU_EVENTS: 0x8040ae9fn,
  KVM_SET_VCPU_EVENTS: 0x4040aea0n,
  KVM_GET_DEBUGREGS: 0x8080aea1n,
  KVM_SET_DEBUGREGS: 0x4080aea2n,
  KVM_ENABLE_CAP: 0x4068aea3n,
  KVM_GET_XSAVE: 0x9000aea4n,
  KVM_SET_XSAVE: 0x5000aea5n,
  KVM_GET_XCRS: 0x8188aea6n,
  KVM_SET_XCRS: 0x4188aea7n,
  KVM_SET_TSC_KHZ: 0xaea2n,
  KVM_GET_TSC_KHZ: 0xaea3n,
  KVM_KVMCLOCK_CTRL: 0xaeadn,
  KVM_GET_XSAVE2: 0x9000aecfn,
  KVM_SET_DEVICE_ATTR: 0x4018aee1n,
  KVM_GET_DEVICE_ATTR: 0x4018aee2n,
  KVM_HAS_DEVICE_ATTR: 0x4018aee3n,
  KVM_GET_API_VERSION: 0xae00n,
  KVM_CHECK_EXTENSION: 0xae03n,
  KVM_GET_VCPU_MMAP_SIZE: 0xae04n,
  KVM_CREATE_VCPU: 0xae41n,
  KVM_CREATE_IRQCHIP: 0xae60n,
};

const layouts = Object.values(structs) as unknown as Struct<Fields>[];

Deno.test("KVM structs have the sizes of the kernel's headers", () => {
  for (const [name, size] of Object.entries(sizes)) {
    assert.equal(layouts.find((layout) => layout.name === name)?.size, size, name);
  }
});

Deno.test("KVM structs have the offsets of the kernel's headers", () => {
  for (const [key, offset] of Object.entries(offsets)) {
    const [name, field] = key.split(".");
    const layout = layouts.find((layout) => layout.name === name);
    assert.equal(layout?.offsets[field], offset, key);
  }
});

Deno.test("KVM ioctl numbers are those of the kernel's headers", () => {
  for (const [name, number] of Object.entries(ioctls)) {
    assert.equal(KVM[name.slice(4) as keyof typeof KVM], Number(number), name);
  }
});
