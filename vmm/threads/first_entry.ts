/**
 * The first entry of vCPUs, without their guest: what the accelerator makes for it (memory for page tables above
 * all) is not to be made while a guest waits.
 *
 * @module
 */
import { makeMemfd, mapShared } from "../../ffi/memory.ts";
import type { MemorySlot } from "../accel/memory_slot.ts";
import { protected32Start } from "../boot/cpu_start.ts";
import { ThreadPhase } from "./control_block.ts";
import type { Machine } from "../machine/machine.ts";
import { SCRATCH_PAGE } from "../machine/microvm.ts";
import { startVcpu } from "../machine/power_on.ts";

const PAGE = 4096;
/** `pause`, and again. */
const CODE = Uint8Array.of(0xf3, 0x90, 0xeb, 0xfc);
/** Milliseconds until a thread is up; without it the guest waits as it would have. */
const UP_LIMIT_MS = 10;
const RUN_MS = 1;

/**
 * Lets all vCPUs enter the guest and come back, in a page of their own. They are parked before and after,
 * and in the state in which they were.
 *
 * @param machine a machine whose threads have started, and whose guest has not come yet
 * @throws {OsError} if the accelerator refuses; the machine is as it was
 */
export function enterOnce(machine: Machine): void {
  const { hardware, memory } = machine;
  const { vm, vcpus } = hardware;
  using fd = makeMemfd("denovo-first-entry", PAGE);
  using page = mapShared(fd.fd, PAGE);
  const slot: MemorySlot = {
    slot: memory.regions.length,
    gpa: SCRATCH_PAGE,
    size: PAGE,
    address: page.address,
    file: { fd, offset: 0 },
    readonly: false,
  };
  page.write(0, CODE);
  const state = hardware.makeState();
  state.save();
  vm.setMemory(slot);
  try {
    for (const vcpu of vcpus) startVcpu(vcpu, protected32Start(SCRATCH_PAGE, 0));
    machine.resume();
    for (const { control } of machine.vcpus) {
      control.waitWhilePhase(ThreadPhase.PARKED, UP_LIMIT_MS);
    }
    machine.vcpus[0].control.waitWhilePhase(ThreadPhase.RUNNING, RUN_MS);
    machine.park();
  } finally {
    vm.removeMemory(slot);
    state.restore({ clock: false, tscOffsets: true });
  }
}
