import assert from "node:assert/strict";
import { OsError } from "../../../ffi/errno.ts";
import {
  kvmDebugregs,
  kvmMpState,
  kvmRegs,
  kvmSregs,
  kvmVcpuEvents,
  kvmXcrs,
} from "../../../ffi/kvm/structs.ts";
import { supportedCpuid } from "../../../vmm/accel/software/cpuid_model.ts";
import { cpuState } from "../../../vmm/accel/software/cpu_state.ts";
import * as kvm from "../../../vmm/accel/software/kvm_state.ts";
import { cpuLimits } from "../../../vmm/accel/software/limits.ts";

const limits = cpuLimits(supportedCpuid());
const cpu = () => cpuState.alloc().view as kvm.CpuState;
const refused = (action: () => void, text: RegExp) =>
  assert.throws(
    action,
    (error) => error instanceof OsError && error.code === "EINVAL" && text.test(error.message),
  );

/** A long mode CPU's special registers. */
function longMode() {
  const sregs = kvmSregs.alloc();
  Object.assign(sregs.view, { cr0: 0x8005_0033n, cr3: 0x1000n, cr4: 0x6a0n, efer: 0xd01n });
  Object.assign(sregs.view, { apic_base: 0xfee0_0900n, cr2: 0x1234n, cr8: 5n });
  const code = { selector: 0x10, limit: 0xffff_ffff, type: 11, present: 1, s: 1, l: 1, g: 1 };
  const data = { ...code, selector: 0x18, type: 3, l: 0, db: 1, dpl: 3 };
  Object.assign(sregs.view.cs, code);
  Object.assign(sregs.view.ss, data);
  Object.assign(sregs.view.fs, { ...data, base: 0xffff_8000_0000_1000n });
  for (const name of ["ds", "es", "gs", "ldt"] as const) sregs.view[name].unusable = 1;
  Object.assign(sregs.view.tr, { base: 0x2000n, limit: 0x67, type: 11, present: 1, selector: 64 });
  Object.assign(sregs.view.gdt, { base: 0x3000n, limit: 0x7f });
  Object.assign(sregs.view.idt, { base: 0x4000n, limit: 0xfff });
  return sregs;
}

Deno.test("kvm_regs come back as they were set", () => {
  const state = cpu();
  const bytes = Uint8Array.from({ length: kvmRegs.size }, (_, i) => i * 7);
  bytes[kvmRegs.offsets.rflags] = 0x97;
  kvm.writeRegs(state, bytes);
  const back = new Uint8Array(kvmRegs.size);
  kvm.readRegs(state, back);
  assert.deepEqual(back, bytes);
  const { rsp, rbx } = kvmRegs.view(bytes.buffer);
  assert.deepEqual([state.gpr.at(4), state.gpr.at(3)], [rsp, rbx], "numbers are the processor's");
});

Deno.test("bit 1 of RFLAGS is always set", () => {
  const state = cpu();
  kvm.writeRegs(state, kvmRegs.alloc({ rflags: 0n }).bytes);
  assert.equal(state.rflags, 2n);
});

Deno.test("kvm_sregs come back as they were set", () => {
  const state = cpu();
  const { bytes } = longMode();
  kvm.writeSregs(state, bytes, limits);
  const back = new Uint8Array(kvmSregs.size);
  kvm.readSregs(state, back);
  assert.deepEqual(back, bytes);
  const cs = state.segments.at(1);
  assert.deepEqual([cs.attributes, cs.selector, cs.limit], [0xa09b, 0x10, 0xffff_ffff]);
  assert.equal(state.segments.at(2).attributes, 0xc0f3);
});

Deno.test("an interrupt on its way goes through interrupt_bitmap", () => {
  const state = cpu();
  const sregs = longMode();
  sregs.view.interrupt_bitmap.put(3, 1n << 5n);
  kvm.writeSregs(state, sregs.bytes, limits);
  assert.deepEqual([state.interrupt_injected, state.interrupt_vector], [1, 197]);
  const back = kvmSregs.alloc();
  kvm.readSregs(state, back.bytes);
  assert.equal(back.view.interrupt_bitmap.at(3), 1n << 5n);
});

Deno.test("special registers that the CPU cannot have are refused, and change nothing", () => {
  const cases = [
    [{ cr0: 0x8000_0032n }, /cr0/, "paging without protection"],
    [{ cr0: 0x1_8000_0033n }, /cr0/, "an upper half"],
    [{ cr0: 0xa005_0033n }, /cr0/, "NW without CD"],
    [{ cr4: 0x40_06a0n }, /cr4 0x4006a0/, "protection keys"],
    [{ cr4: 0x680n }, /efer/, "long mode without PAE"],
    [{ efer: 0x901n }, /efer/, "LME and paging without LMA"],
    [{ efer: 0x1d01n }, /efer/, "SVME"],
    [{ cr3: 1n << 40n }, /cr3/, "beyond the physical address"],
    [{ apic_base: 1n << 40n }, /apic_base/, "beyond the physical address"],
    [{ apic_base: 0xfee0_0901n }, /apic_base/, "reserved bits"],
    [{ cr0: 0x33n, efer: 0x500n }, /efer/, "LMA without paging"],
  ] as const;
  for (const [change, text, why] of cases) {
    const state = cpu();
    const sregs = longMode();
    Object.assign(sregs.view, change);
    refused(() => kvm.writeSregs(state, sregs.bytes, limits), text);
    assert.equal(state.cr3, 0n, why);
  }
});

Deno.test("debug registers keep their fixed bits and refuse upper halves", () => {
  const state = cpu();
  const regs = kvmDebugregs.alloc({ dr6: 0xffff_4ff5n, dr7: 0x155n });
  for (let i = 0; i < 4; i++) regs.view.db.put(i, BigInt(i + 1) << 40n);
  kvm.writeDebugregs(state, regs.bytes);
  const back = kvmDebugregs.alloc();
  kvm.readDebugregs(state, back.bytes);
  assert.deepEqual([back.view.dr6, back.view.dr7], [0xffff_4ff5n, 0x555n]);
  assert.deepEqual([...back.view.db], [1n, 2n, 3n, 4n].map((n) => n << 40n));
  for (const change of [{ dr6: 1n << 32n }, { dr7: 1n << 32n }, { flags: 1n }]) {
    refused(() => kvm.writeDebugregs(state, kvmDebugregs.alloc(change).bytes), /DEBUGREGS/);
  }
});

Deno.test("a #DB that is pending is saved as one that is injected, with DR6 set", () => {
  const state = cpu();
  Object.assign(state, { dr6: 0xffff_0ff3n, debug_pending: 0x4000n });
  const [events, regs] = [kvmVcpuEvents.alloc(), kvmDebugregs.alloc()];
  kvm.readVcpuEvents(state, events.bytes);
  kvm.readDebugregs(state, regs.bytes);
  assert.deepEqual([events.view.exception_injected, events.view.exception_nr], [1, 1]);
  assert.equal(regs.view.dr6, 0xffff_4ff0n);
});

Deno.test("events come back as they were set", () => {
  const state = cpu();
  const events = kvmVcpuEvents.alloc({
    ...{ exception_injected: 1, exception_nr: 14, exception_has_error_code: 1, flags: 1 | 4 | 8 },
    ...{ exception_error_code: 7, interrupt_injected: 1, interrupt_nr: 0x33 },
    ...{ interrupt_shadow: 2, nmi_injected: 1, nmi_pending: 1, nmi_masked: 1 },
  });
  kvm.writeVcpuEvents(state, events.bytes);
  const back = new Uint8Array(kvmVcpuEvents.size);
  kvm.readVcpuEvents(state, back);
  assert.deepEqual(back, events.bytes);
});

Deno.test("events that KVM refuses are refused", () => {
  const cases = [
    [{ flags: 0x40 }, /flags 0x40/],
    [{ exception_injected: 1, exception_nr: 32 }, /exception 32/],
    [{ exception_injected: 1, exception_nr: 2 }, /exception 2/],
    [{ exception_injected: 1, exception_pending: 1, flags: 0x10 }, /both/],
    [{ flags: 8, smi_smm: 1 }, /management/],
    [{ sipi_vector: 0x100 }, /sipi_vector/],
  ] as const;
  for (const [change, text] of cases) {
    refused(() => kvm.writeVcpuEvents(cpu(), kvmVcpuEvents.alloc(change).bytes), text);
  }
});

Deno.test("mp_state and XCR0: KVM's values only", () => {
  const state = cpu();
  kvm.writeMpState(state, kvmMpState.alloc({ mp_state: 3 }).bytes);
  assert.equal(state.mp_state, 3);
  refused(() => kvm.writeMpState(state, kvmMpState.alloc({ mp_state: 5 }).bytes), /MP_STATE/);
  const xcrs = kvmXcrs.alloc({ nr_xcrs: 1 });
  xcrs.view.xcrs.at(0).value = 1n;
  kvm.writeXcrs(state, xcrs.bytes, limits);
  const back = kvmXcrs.alloc();
  kvm.readXcrs(state, back.bytes);
  assert.deepEqual(back.bytes, xcrs.bytes);
  for (const value of [0n, 7n]) {
    xcrs.view.xcrs.at(0).value = value;
    refused(() => kvm.writeXcrs(state, xcrs.bytes, limits), /xcr0/);
  }
  xcrs.view.nr_xcrs = 17;
  refused(() => kvm.writeXcrs(state, xcrs.bytes, limits), /17 registers/);
});
