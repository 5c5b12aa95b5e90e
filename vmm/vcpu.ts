/**
 * A vCPU from the main thread: its Worker, and the state machine that runs, parks and ends it.
 *
 * @module
 */
import { threadId } from "../ffi/process.ts";
import type { AcceleratorVcpu } from "./accel/accelerator.ts";
import { controlBlockSize, GuestEvent, ThreadControl, VcpuPhase, Wanted } from "./control_block.ts";
import type { DeviceSetDescription } from "./device_thread.ts";
import type { VcpuThreadDescription } from "./vcpu_worker.ts";

/** Milliseconds after which a kick is repeated: only a safety net, one kick is enough. */
const KICK_AGAIN_MS = 20;
/** Milliseconds after which a vCPU that does not park is a defect. */
const PARK_LIMIT_MS = 10_000;

/** The Worker's module: TypeScript in the source tree, JavaScript beside the bundle. */
const workerUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./vcpu_worker.ts" : "./vcpu_worker.js",
  import.meta.url,
);

/** Threads that were started for vCPUs that are still to come. */
const spare: Worker[] = [];

/**
 * Starts threads for vCPUs that will be made: a thread takes as long to come up as the machine to be
 * built, or longer.
 */
export function startSpareThreads(count: number): void {
  while (spare.length < count) spare.push(new Worker(workerUrl, { type: "module" }));
}

/** Ends the threads that no vCPU has taken, as soon as they are up. */
export function endSpareThreads(): void {
  for (const worker of spare.splice(0)) worker.postMessage(null);
}

/** Stops vCPUs, each between two guest instructions and with no access half done. */
export function parkAll(vcpus: readonly Vcpu[]): void {
  for (const vcpu of vcpus) vcpu.kick();
  for (const vcpu of vcpus) vcpu.awaitParked();
}

/** One vCPU. */
export class Vcpu {
  /** The vCPU's control words. */
  readonly control: ThreadControl;
  #worker: Worker | undefined;

  /**
   * @param index 0 for the boot processor
   * @param hardware the vCPU in its accelerator
   * @param controlBlock the machine's control block
   */
  constructor(
    readonly index: number,
    readonly hardware: AcceleratorVcpu,
    readonly controlBlock: SharedArrayBuffer,
  ) {
    this.control = new ThreadControl(controlBlock, index);
  }

  /** Starts the vCPU's thread, parked. Returns at once; the thread is ready some 10 ms later. */
  startThread(devices: DeviceSetDescription, onFailure: (reason: string) => void): void {
    const worker = spare.shift() ?? new Worker(workerUrl, { type: "module" });
    worker.onerror = (event) => {
      event.preventDefault();
      this.control.post(GuestEvent.THREAD_FAILED);
      onFailure(event.message);
    };
    const description: VcpuThreadDescription = {
      index: this.index,
      runner: this.hardware.description,
      control: this.controlBlock,
      devices,
    };
    worker.postMessage(description);
    this.#worker = worker;
  }

  /** The thread's id, 0 until it has started. */
  get threadId(): number {
    return this.control.threadId;
  }

  /** Lets the vCPU run. */
  resume(): void {
    this.hardware.allow();
    this.control.wanted = Wanted.RUN;
  }

  /** Asks the vCPU to park, without waiting. */
  kick(wanted: number = Wanted.PARK): void {
    this.control.wanted = wanted;
    if (this.control.phase !== VcpuPhase.RUNNING) return;
    this.hardware.halt(this.control.threadId);
  }

  /** Makes the vCPU leave the guest and come back. */
  interrupt(): void {
    this.hardware.interrupt(this.control.threadId);
  }

  /** Waits until the vCPU no longer runs. @throws {Error} if it does not park in ten seconds */
  awaitParked(): void {
    if (this.control.spinWhilePhase(VcpuPhase.RUNNING)) return;
    for (let waited = 0; this.control.phase === VcpuPhase.RUNNING; waited += KICK_AGAIN_MS) {
      if (waited >= PARK_LIMIT_MS) {
        throw new Error(`CPU ${this.index} did not stop within ${PARK_LIMIT_MS / 1000} s`);
      }
      if (!this.control.waitWhilePhase(VcpuPhase.RUNNING, KICK_AGAIN_MS)) {
        this.hardware.interrupt(this.control.threadId);
      }
    }
  }

  /** Ends the thread. The accelerator's vCPU stays open. */
  async endThread(): Promise<void> {
    this.kick(Wanted.EXIT);
    const started = this.control.phase !== VcpuPhase.STARTING;
    if (!started) {
      // The thread has not taken its message: it can still be terminated, it does not run.
      this.#worker?.terminate();
    } else {
      while (this.control.phase !== VcpuPhase.EXITED) {
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    }
    this.#worker = undefined;
  }
}

/** A vCPU to rehearse on: its thread is the caller's own, and it is parked as soon as it is kicked. */
export class ScratchVcpu extends Vcpu {
  /** @param hardware a scratch VM's vCPU */
  constructor(hardware: AcceleratorVcpu) {
    super(0, hardware, new SharedArrayBuffer(controlBlockSize(1)));
    this.control.threadId = threadId();
  }

  override kick(): void {
    this.control.phase = VcpuPhase.RUNNING;
    super.kick();
    this.control.phase = VcpuPhase.PARKED;
    // As long as another thread takes to park: a loop that gets long for the first time is compiled.
    this.control.spinWhilePhase(VcpuPhase.PARKED);
  }
}
