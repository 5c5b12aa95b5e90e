/** A vCPU's state, read at the moments at which the host is in between. */
import { kvmLapicState, kvmMpState, kvmRegs } from "../../ffi/kvm/structs.ts";
import assert from "node:assert/strict";
import type { AcceleratorVcpu, VcpuTransfer } from "../../vmm/accel/accelerator.ts";
import type { HardwareState } from "../../vmm/accel/hardware.ts";
import { msrBuffer, msrEntry } from "../../vmm/accel/msrs.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest, sleep, TestVm } from "./harness.ts";

/** LAPIC registers (SDM 3A, 10.5): the timer's vector with mode and mask, its counts. */
const LVT_TIMER = 0x320;
const MODE_OR_MASK = 0x7_0000;
const INITIAL_COUNT = 0x380;
const CURRENT_COUNT = 0x390;
/** Milliseconds from one tick of the guest's to the next. */
const TICK_MS = 10;
const MOMENTS = 40;
const TICKS = layout.steadyRecords + 16;

/**
 * Waits until nothing is left of a parked vCPU's one-shot count.
 *
 * @returns false if no such timer is running
 */
function awaitRunOut(vcpu: AcceleratorVcpu): boolean {
  const { bytes } = kvmLapicState.alloc();
  const registers = new DataView(bytes.buffer);
  const read = (register: number) => {
    vcpu.read("lapic", bytes);
    return registers.getUint32(register, true);
  };
  if ((read(LVT_TIMER) & MODE_OR_MASK) !== 0 || read(CURRENT_COUNT) === 0) return false;
  while (read(CURRENT_COUNT) !== 0);
  return registers.getUint32(INITIAL_COUNT, true) !== 0;
}

/**
 * Parks the vCPU, reads the state at the very moment, puts it back as a successor would, and goes on;
 * guest time does, too.
 */
function saveAndRestore({ vm: { machine } }: TestVm, state: HardwareState): boolean {
  const { hardware } = machine;
  machine.park();
  const isMoment = awaitRunOut(hardware.vcpus[0]);
  state.save();
  state.restore({ clock: false, tscOffsets: true });
  machine.resume();
  return isMoment;
}

for (const [mode, does] of [["h", "waits for it"], ["", "is busy"]]) {
  const name = `a timer that runs out as its state is read fires once, in a guest that ${does}`;
  kvmTest(name, async () => {
    await using test = await TestVm.start({ program: "steady_cpl0", append: `mode=${mode}` });
    await test.grown(TICKS);
    test.vm.machine.park();
    const state = test.vm.machine.hardware.makeState();
    test.vm.machine.resume();
    for (let moment = 0; moment < MOMENTS;) {
      const before = test.word(TICKS);
      if (saveAndRestore(test, state)) moment++;
      // Without the tick that is due there is never another one.
      await test.grown(TICKS, before);
      await sleep(TICK_MS * Math.random());
    }
    test.assertUnharmed();
  });
}

/** IA32_PAT, and one that no processor has. */
const PAT = 0x277;
const NO_MSR = 0x1234_5678;

kvmTest(
  "a prepared transfer ends with the part that fails, and names what is wrong with it",
  async () => {
    await using test = await TestVm.create({ program: "counter_cpl0" });
    const [vcpu] = test.vm.machine.hardware.vcpus;
    const regs = kvmRegs.alloc();
    const msrs = msrBuffer([PAT, NO_MSR, PAT]);
    const mpState = kvmMpState.alloc({ mp_state: 77 });
    const transfer: VcpuTransfer = [["regs", regs.bytes], ["msrs", msrs], [
      "mp_state",
      mpState.bytes,
    ]];
    const [read, write] = [vcpu.prepareRead(transfer), vcpu.prepareWrite(transfer)];
    const fails = (failure: ReturnType<typeof read>, part: string, message: string) =>
      assert.deepEqual([failure?.part, failure?.error.message], [part, message]);
    for (let round = 0; round < 2; round++) {
      regs.view.rip = 0n;
      fails(read(), "msrs", "KVM_GET_MSRS 0x12345678: Invalid argument");
      assert.notEqual(regs.view.rip, 0n, "what comes before is done");
      assert.equal(msrEntry(msrs, 0).data & 0xffn, 6n, "write-back, as at power-on");
      assert.equal(mpState.view.mp_state, 77, "what comes after is not");
    }
    const { rip } = regs.view;
    regs.view.rip = rip + 2n;
    fails(write(), "msrs", "KVM_SET_MSRS 0x12345678: Invalid argument");
    vcpu.read("regs", regs.bytes);
    assert.equal(regs.view.rip, rip + 2n);
    const failure = vcpu.prepareWrite([["mp_state", mpState.bytes], ["regs", regs.bytes]])();
    assert.equal(failure?.part, "mp_state");
    assert.match(failure.error.message, /^KVM_SET_MP_STATE\b.*: Invalid argument$/);
    assert.equal(
      vcpu.prepareRead([["regs", regs.bytes], ["mp_state", mpState.bytes]])(),
      undefined,
    );
    assert.equal(mpState.view.mp_state, 0);
  },
);
