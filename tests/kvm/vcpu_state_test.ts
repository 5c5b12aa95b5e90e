/** A vCPU's state, read at the moments at which the host is in between. */
import { kvmLapicState } from "../../ffi/kvm/structs.ts";
import type { AcceleratorVcpu } from "../../vmm/accel/accelerator.ts";
import type { HardwareState } from "../../vmm/accel/hardware.ts";
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
  state.save(hardware);
  state.restore(hardware, { clock: false, tscOffsets: true });
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
