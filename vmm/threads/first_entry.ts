/**
 * The first entry of vCPUs, without their guest: what the accelerator makes for it (memory for page tables above
 * all) is not to be made while a guest waits.
 *
 * @module
 */
import { makeMemfd, type MappedRegion, mapShared } from "../../ffi/memory.ts";
import type { Practice } from "../accel/accelerator.ts";
import type { MemorySlot } from "../accel/memory_slot.ts";
import { protected32Start } from "../boot/cpu_start.ts";
import { ThreadPhase } from "./control_block.ts";
import type { Machine } from "../machine/machine.ts";
import { SCRATCH_MEMORY } from "../machine/microvm.ts";
import { startVcpu } from "../machine/power_on.ts";

const PAGE = 4096;
/** How often the main thread looks whether vCPUs are through, milliseconds. */
const LOOK_MS = 1;
/** Milliseconds until a thread is up; without it the guest waits as it would have. */
const UP_LIMIT_MS = 10;

/** For vCPUs that need no practice: they enter, and that is all. */
const briefly: Practice = {
  vcpus: Infinity,
  limitMs: 1,
  // `pause`, and again.
  image: () => Uint8Array.of(0xf3, 0x90, 0xeb, 0xfc),
  start: (gpa) => protected32Start(gpa, 0),
  isDone: () => false,
};

/**
 * Lets vCPUs enter the guest and come back, in memory of their own, and practise what they are to be
 * good at. They are parked before and after, and in the state in which they were.
 *
 * @param machine a machine whose threads have started, and whose guest has not come yet
 * @throws {OsError} if the accelerator refuses; the machine is as it was
 */
export function enterOnce(machine: Machine): void {
  const { hardware, memory } = machine;
  const { vm } = hardware;
  const practice = vm.practice ?? briefly;
  const vcpus = hardware.vcpus.slice(0, practice.vcpus);
  const image = practice.image(SCRATCH_MEMORY, vcpus.length);
  const size = Math.ceil(image.length / PAGE) * PAGE;
  using fd = makeMemfd("denovo-first-entry", size);
  using mapping = mapShared(fd.fd, size);
  const slot: MemorySlot = {
    slot: memory.regions.length,
    gpa: SCRATCH_MEMORY,
    size,
    address: mapping.address,
    file: { fd, offset: 0 },
    readonly: false,
  };
  mapping.write(0, image);
  const state = hardware.makeState();
  state.save();
  vm.setMemory(slot);
  try {
    vcpus.forEach((vcpu, i) => startVcpu(vcpu, practice.start(SCRATCH_MEMORY, i)));
    machine.resume();
    for (const { control } of machine.vcpus) {
      control.waitWhilePhase(ThreadPhase.PARKED, UP_LIMIT_MS);
    }
    awaitDone(machine, practice, mapping, vcpus.length);
    machine.park();
  } finally {
    vm.removeMemory(slot);
    state.restore({ clock: false, tscOffsets: true });
    // What they ran into is nobody's to decide on.
    machine.forgetEvents();
  }
}

/** Waits until vCPUs have been through, or it is enough. */
function awaitDone(
  machine: Machine,
  { limitMs, isDone }: Practice,
  mapping: MappedRegion,
  vcpus: number,
): void {
  const end = performance.now() + limitMs;
  for (let vcpu = 0; vcpu < vcpus; vcpu++) {
    const { control } = machine.vcpus[vcpu];
    while (!isDone(mapping, vcpu) && performance.now() < end) {
      if (control.waitWhilePhase(ThreadPhase.RUNNING, LOOK_MS)) break;
    }
  }
}
