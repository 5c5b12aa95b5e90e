/**
 * The vCPU loop: enter the guest, handle the exit, look whether someone wants the vCPU parked.
 *
 * @module
 */
import { Errno, OsError } from "../../ffi/errno.ts";
import { monotonicNow } from "../../ffi/event.ts";
import { Exit, type RunPage, RunResult } from "../../ffi/kvm/run.ts";
import { MemoryLost } from "../../ffi/memory.ts";
import type { VcpuRunner } from "../accel/accelerator.ts";
import type { Bus } from "../bus/bus.ts";
import {
  awaitOrders,
  GuestEvent,
  type ThreadControl,
  ThreadPhase,
  Wanted,
} from "./control_block.ts";

/** What a vCPU thread works with. */
export interface VcpuThread {
  readonly runner: VcpuRunner;
  readonly bus: Bus;
  readonly control: ThreadControl;
  /** The control words of all vCPUs. */
  readonly all: readonly ThreadControl[];
  /** Learns of devices that have come or gone while the thread was parked. */
  learn(): void;
  /** Tells the main thread that this thread's mailbox holds an event. */
  notify(): void;
}

/** Milliseconds between looks whether the vCPU shall still start. */
const START_POLL_MS = 50;

/** Runs the vCPU until it is told to exit. */
export function vcpuLoop(vcpu: VcpuThread): void {
  warmUp(vcpu);
  awaitAllStarted(vcpu);
  while (awaitOrders(vcpu.control)) {
    vcpu.learn();
    let result: number = RunResult.INTERRUPTED;
    while (vcpu.control.wanted === Wanted.RUN) {
      result = step(vcpu);
    }
    // An entry that was interrupted has completed what was pending first.
    if (result === RunResult.EXIT) finishPendingAccess(vcpu);
  }
  vcpu.control.phase = ThreadPhase.EXITED;
}

/**
 * Enters the guest and handles its exit. What fails for want of memory behind an address that the guest
 * uses, or that a device is given by it, stops the VM.
 */
function step(vcpu: VcpuThread): number {
  try {
    const result = vcpu.runner.enter();
    if (result === RunResult.EXIT) handleExit(vcpu);
    return result;
  } catch (error) {
    if (!(error instanceof OsError) && !(error instanceof MemoryLost)) throw error;
    report(vcpu, GuestEvent.RUN_FAILED, error instanceof OsError ? error.errno : Errno.EFAULT);
    return RunResult.INTERRUPTED;
  }
}

/**
 * Once around without the guest: the way into the guest is warm before anyone waits for it. It counts as
 * running, since whoever ends the vCPU meanwhile must wait before unmapping the run page.
 */
function warmUp(vcpu: VcpuThread): void {
  vcpu.control.enteredNs = monotonicNow();
  vcpu.control.phase = ThreadPhase.RUNNING;
  if (vcpu.control.wanted !== Wanted.EXIT) finishPendingAccess(vcpu);
}

/**
 * No vCPU runs before all have their threads: a guest that starts a processor gives it a fraction
 * of a second, which is less than a thread may take to come up on a busy host.
 */
function awaitAllStarted({ control, all }: VcpuThread): void {
  control.phase = ThreadPhase.PARKED;
  for (const other of all) {
    while (other.phase === ThreadPhase.STARTING && control.wanted !== Wanted.EXIT) {
      other.waitWhilePhase(ThreadPhase.STARTING, START_POLL_MS);
    }
  }
}

/**
 * A port or memory access is completed at the next entry, as KVM does. State that is read before that would
 * repeat or lose the access (Documentation/virt/kvm/api.rst, KVM_RUN), so complete it now; an
 * access in several pieces exits once for each.
 */
function finishPendingAccess(vcpu: VcpuThread): void {
  const { run } = vcpu.runner;
  run.immediateExit = true;
  while (step(vcpu) === RunResult.EXIT);
  run.immediateExit = false;
}

/** What it takes to serve an exit. */
export interface ExitParts extends Pick<VcpuThread, "bus" | "control" | "notify"> {
  readonly runner: Pick<VcpuRunner, "run">;
}

/** Serves the exit that the run page tells of. */
export function handleExit(vcpu: ExitParts): void {
  const { run } = vcpu.runner;
  switch (run.exitReason) {
    case Exit.IO:
      return handlePortAccess(run, vcpu.bus);
    case Exit.MMIO:
      return handleMemoryAccess(run, vcpu.bus);
    case Exit.INTR:
    case Exit.IRQ_WINDOW_OPEN:
      return;
    case Exit.DEBUG:
      return report(vcpu, GuestEvent.DEBUG, run.debugStatus);
    case Exit.SHUTDOWN:
      return report(vcpu, GuestEvent.TRIPLE_FAULT);
    case Exit.SYSTEM_EVENT:
      return report(vcpu, systemEvents[run.systemEventType] ?? GuestEvent.CRASH);
    case Exit.INTERNAL_ERROR:
      return report(vcpu, GuestEvent.INTERNAL_ERROR, run.internalSuberror);
    case Exit.FAIL_ENTRY:
      return report(vcpu, GuestEvent.FAILED_ENTRY, run.internalSuberror);
    default:
      return report(vcpu, GuestEvent.UNKNOWN_EXIT, run.exitReason);
  }
}

/** KVM_SYSTEM_EVENT_SHUTDOWN, _RESET, _CRASH (linux/kvm.h). */
const systemEvents: Record<number, number> = {
  1: GuestEvent.SHUTDOWN,
  2: GuestEvent.RESET,
  3: GuestEvent.CRASH,
};

/** Leaves the decision to the main thread, and runs no guest code until it is made. */
function report(vcpu: ExitParts, event: number, argument = 0): void {
  vcpu.control.requestPark();
  vcpu.control.post(event, argument);
  vcpu.notify();
}

function handlePortAccess(run: RunPage, bus: Bus): void {
  const port = run.ioPort;
  const size = run.ioSize;
  const count = run.ioCount;
  if (run.ioIsWrite) {
    for (let i = 0; i < count; i++) bus.writePort(port, size, run.ioGet(i, size));
  } else {
    for (let i = 0; i < count; i++) run.ioPut(i, size, bus.readPort(port, size));
  }
}

function handleMemoryAccess(run: RunPage, bus: Bus): void {
  const address = run.mmioAddress;
  const length = run.mmioLength;
  const write = run.mmioIsWrite;
  // Devices know accesses of 1, 2 and 4 bytes: 8 is two of 4, an odd length is bytes.
  const step = length === 8 ? 4 : length === 3 || length > 4 ? 1 : length;
  if (step === length) {
    if (write) bus.writeMemory(address, step, mask(run.mmioGet(0), step));
    else run.mmioPut(0, bus.readMemory(address, step));
    return;
  }
  for (let i = 0; i < length; i += step) {
    const word = i >> 2;
    const shift = (i & 3) * 8;
    if (write) bus.writeMemory(address + i, step, mask(run.mmioGet(word) >>> shift, step));
    else {
      const kept = step === 4 ? 0 : run.mmioGet(word) & ~(0xff << shift);
      run.mmioPut(word, kept | (bus.readMemory(address + i, step) << shift));
    }
  }
}

function mask(value: number, size: number): number {
  return size === 1 ? value & 0xff : size === 2 ? value & 0xffff : value >>> 0;
}
