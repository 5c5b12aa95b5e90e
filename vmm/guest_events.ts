/**
 * What becomes of the VM when its guest asks for something or cannot go on: reset, shutdown, a crash,
 * a breakpoint.
 *
 * @module
 */
import { describeErrno, Errno } from "../ffi/errno.ts";
import type { BlockError, BlockSet } from "./block_set.ts";
import type { MachineConfig } from "./config.ts";
import type { EventHub } from "./events.ts";
import type { Machine, MachineEvent } from "./machine/machine.ts";
import type { RunState } from "./run_state.ts";
import { GuestEvent } from "./threads/control_block.ts";
import type { Vcpu } from "./threads/vcpu.ts";
import { vcpuFailure } from "./view/vcpu_failure.ts";

/** A disk that does not answer for so long may do later. */
const AGAIN_MS = 5_000;

/** The VM as its guest's events change it. */
export interface GuestOwner {
  readonly machine: Machine;
  readonly events: EventHub;
  /** The disks' images. */
  readonly blocks: Pick<BlockSet, "takeErrors" | "takeCorruptions">;
  readonly running: boolean;
  readonly runState: RunState;
  /** Aborted when the VM has ended. */
  readonly ending: AbortSignal;
  /** What `set-action` and its options say. */
  readonly actions: MachineConfig["actions"];
  /** Which vCPU has put the VM into the run state `debug`, and its DR6. */
  debugStop: { readonly cpuIndex: number; readonly status: number } | undefined;
  /** Stops the guest into a run state. */
  pause(state: RunState): void;
  /** The guest has put the machine to sleep. */
  suspend(): void;
  /** Resets the machine. @throws {Error} if it cannot be */
  reset(reason: string): void;
  /** Ends the VM with exit status 0. */
  quit(reason: string): void;
  /** Takes a line for the user. */
  notice(text: string): void;
  /** Takes what `-d ITEM` asks for. */
  log(item: string, text: () => string): void;
}

/** Answers a machine's events. */
export class GuestEvents {
  readonly #vm: GuestOwner;
  readonly #end: (status: number) => void;
  readonly #againMs: number;
  /** Whether a disk's error still has to stop the guest. */
  #mustStop = false;

  /**
   * @param vm the VM whose guest it is
   * @param end ends the VM with an exit status
   * @param againMs milliseconds until an event is looked at again that could not be answered
   */
  constructor(vm: GuestOwner, end: (status: number) => void, againMs = AGAIN_MS) {
    this.#vm = vm;
    this.#end = end;
    this.#againMs = againMs;
  }

  /**
   * Does what an event asks for; a VM that has ended does nothing. Where a thread does not stop, since
   * its disk does not answer, the guest goes on as far as it can, and the event stays to be answered.
   */
  handle(event: MachineEvent): void {
    if (this.#vm.ending.aborted) return;
    try {
      this.#answer(event);
    } catch (error) {
      this.#vm.notice((error as Error).message);
      setTimeout(() => this.handle(event), this.#againMs);
    }
  }

  #answer({ event, argument, vcpu }: MachineEvent): void {
    const vm = this.#vm;
    // Before the guest is here vCPUs only rehearse: what they run into is not the guest's doing.
    if (vm.runState === "inmigrate" && event !== GuestEvent.THREAD_FAILED) return;
    switch (event) {
      case GuestEvent.TRIPLE_FAULT:
        vm.log("guest_errors", () => `CPU ${vcpu!.index}: triple fault`);
        return this.#reset();
      case GuestEvent.RESET:
        return this.#reset();
      case GuestEvent.DEBUG:
        return this.#debugStop(vcpu!, argument);
      case GuestEvent.SHUTDOWN:
        return this.#shutdown("guest-shutdown");
      case GuestEvent.SUSPEND:
        return vm.suspend();
      case GuestEvent.DEBUG_EXIT:
        return this.#end(argument & 0xff);
      case GuestEvent.CRASH:
        return this.#panic();
      case GuestEvent.DISK_ERROR:
        return this.#diskErrors();
      case GuestEvent.THREAD_FAILED:
        return this.#internalError(`${vcpu ? `CPU ${vcpu.index}` : "I/O"} thread failed`);
      default:
        return this.#internalError(vcpuFailure(vm.machine, vcpu!, event, argument));
    }
  }

  /** A vCPU has come to where a debugger wants it to stop. */
  #debugStop({ index }: Vcpu, status: number): void {
    if (!this.#vm.running) return;
    this.#vm.debugStop = { cpuIndex: index, status };
    this.#vm.pause("debug");
  }

  #reset(): void {
    if (this.#vm.actions.reboot === "shutdown") return this.#shutdown("guest-reset");
    try {
      this.#vm.reset("guest-reset");
    } catch (error) {
      // It runs on: nothing was done yet.
      if (this.#vm.running) throw error;
      this.#vm.notice((error as Error).message);
    }
  }

  #shutdown(reason: string): void {
    const { actions, events } = this.#vm;
    if (actions.shutdown === "poweroff") return this.#vm.quit(reason);
    this.#vm.pause("shutdown");
    events.emit("SHUTDOWN", { guest: true, reason });
  }

  #panic(): void {
    const { actions, events } = this.#vm;
    events.emit("GUEST_PANICKED", { action: actions.panic === "pause" ? "pause" : "poweroff" });
    switch (actions.panic) {
      case "pause":
        return this.#vm.pause("guest-panicked");
      case "exit-failure":
        return this.#end(1);
      case "shutdown":
        return this.#shutdown("guest-panic");
    }
  }

  /** The host could not do what the guest asked of a disk. */
  #diskErrors(): void {
    for (const { drive, nodeName, reason } of this.#vm.blocks.takeCorruptions()) {
      const data = { device: drive, "node-name": nodeName, msg: reason, fatal: true };
      this.#vm.events.emit("BLOCK_IMAGE_CORRUPTED", data);
    }
    const errors = this.#vm.blocks.takeErrors();
    for (const error of errors) this.#vm.events.emit("BLOCK_IO_ERROR", describeError(error));
    this.#mustStop ||= errors.some(({ action }) => action === "stop");
    if (!this.#mustStop) return;
    this.#vm.pause("io-error");
    this.#mustStop = false;
  }

  #internalError(text: string): void {
    this.#vm.pause("internal-error");
    this.#vm.notice(text);
  }
}

/** QAPI BLOCK_IO_ERROR; `nospace` is told where the guest may be stopped for it. */
function describeError({ qomPath, drive, nodeName, operation, action, errno }: BlockError) {
  return {
    "qom-path": qomPath,
    device: drive,
    "node-name": nodeName,
    operation,
    action,
    nospace: errno === Errno.ENOSPC,
    reason: describeErrno(errno),
  };
}
