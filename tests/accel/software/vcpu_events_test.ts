/** What is sent to a software vCPU while it is parked, in the state that is read of it. */
import assert from "node:assert/strict";
import {
  kvmIoapicState,
  kvmIrqchip,
  kvmMpState,
  kvmRegs,
  kvmSregs,
  kvmVcpuEvents,
} from "../../../ffi/kvm/structs.ts";
import { supportedCpuid } from "../../../vmm/accel/software/cpuid_model.ts";
import { SoftwareVm } from "../../../vmm/accel/software/vm.ts";
import { coreModule } from "./core_testing.ts";

const PIN = 16;
const INIT = 0x500;
const STARTUP = 0x600;
const RUNNABLE = 0;
const INIT_RECEIVED = 2;
const SIPI_RECEIVED = 4;
const SIPI_VECTOR_VALID = 2;

function makeVm(): SoftwareVm {
  const cpus = [0, 1].map((apicId) => ({ apicId, cpuid: supportedCpuid() }));
  return new SoftwareVm(coreModule(), { pic: true, pit: true, cpus });
}

/** Sends vCPU 1 a message through the IOAPIC. */
function send(vm: SoftwareVm, message: number): void {
  const { bytes } = kvmIrqchip.alloc({ chip_id: 2 });
  vm.read("irqchip", bytes);
  const ioapic = kvmIoapicState.view(bytes.buffer, kvmIrqchip.offsets.chip);
  ioapic.redirtbl.put(PIN, 1n << 56n | BigInt(message));
  vm.write("irqchip", bytes);
  vm.interrupts.setLine(PIN, true);
  vm.interrupts.setLine(PIN, false);
}

function read(vm: SoftwareVm, cpu = 1) {
  const [vcpu, state] = [vm.vcpus[cpu], {
    mp: kvmMpState.alloc(),
    regs: kvmRegs.alloc(),
    sregs: kvmSregs.alloc(),
    events: kvmVcpuEvents.alloc(),
  }];
  vcpu.read("mp_state", state.mp.bytes);
  vcpu.read("regs", state.regs.bytes);
  vcpu.read("sregs", state.sregs.bytes);
  vcpu.read("vcpu_events", state.events.bytes);
  return {
    mp_state: state.mp.view.mp_state,
    regs: state.regs.view,
    sregs: state.sregs.view,
    events: state.events.view,
  };
}

/** Puts vCPU 1 into the middle of something. */
function makeBusy(vm: SoftwareVm): void {
  const [, vcpu] = vm.vcpus;
  vcpu.write("mp_state", kvmMpState.alloc({ mp_state: RUNNABLE }).bytes);
  vcpu.write("regs", kvmRegs.alloc({ rip: 0x1234n, rax: 5n, rflags: 2n }).bytes);
}

Deno.test("INIT and SIPI that a parked vCPU has been sent are in its state", () => {
  using vm = makeVm();
  makeBusy(vm);
  send(vm, INIT);
  const { mp_state, regs, sregs } = read(vm);
  assert.equal(mp_state, INIT_RECEIVED);
  assert.deepEqual([regs.rip, regs.rax, sregs.cs.base], [0xfff0n, 0n, 0xffff_0000n]);
  const signature = supportedCpuid().find((leaf) => leaf.function === 1)!.eax;
  assert.equal(regs.rdx, BigInt(signature));
  send(vm, STARTUP | 9);
  const started = read(vm);
  assert.equal(started.mp_state, SIPI_RECEIVED);
  assert.equal(started.events.sipi_vector, 9);
  assert.notEqual(started.events.flags & SIPI_VECTOR_VALID, 0);
  // Another SIPI is lost on it.
  send(vm, STARTUP | 10);
  assert.equal(read(vm).events.sipi_vector, 9);
});

Deno.test("an NMI that a parked vCPU has been sent is in its state, once", () => {
  using vm = makeVm();
  vm.vcpus[0].nmi();
  assert.equal(read(vm, 0).events.nmi_pending, 1);
  assert.equal(read(vm, 0).events.nmi_pending, 1);
  assert.equal(read(vm, 1).events.nmi_pending, 0);
});

Deno.test("what was sent before a state is loaded is not sent to it", () => {
  using vm = makeVm();
  send(vm, INIT);
  vm.vcpus[1].nmi();
  makeBusy(vm);
  const { mp_state, regs, events } = read(vm);
  assert.deepEqual([mp_state, regs.rip, events.nmi_pending], [RUNNABLE, 0x1234n, 0]);
});
