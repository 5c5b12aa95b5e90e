/**
 * Serves exits of vCPUs that no thread of this process runs: a guest that an anchor has run comes out of
 * it with accesses that wait.
 *
 * @module
 */
import { signalEventfd } from "../../ffi/event.ts";
import type { RunPage } from "../../ffi/kvm/run.ts";
import type { InterruptLines } from "../accel/accelerator.ts";
import { ThreadDevices } from "../bus/thread_devices.ts";
import type { Machine } from "../machine/machine.ts";
import { ThreadControl } from "./control_block.ts";
import { handleExit } from "./vcpu_loop.ts";

/** Serves exits on the main thread, while all of the machine's threads are parked. */
export class ExitServer {
  readonly #machine: Machine;
  readonly #devices: ThreadDevices;
  readonly #control: ThreadControl;

  /**
   * @param machine the machine whose devices are accessed
   * @param lines the interrupt lines of the VM in which the vCPUs are
   */
  constructor(machine: Machine, lines: InterruptLines) {
    this.#machine = machine;
    const { controlBlock } = machine.vcpus[0];
    // What devices ask for is not a vCPU's own affair, and is found with the main thread's words.
    this.#control = new ThreadControl(controlBlock, machine.threads.length);
    this.#devices = new ThreadDevices(machine.devices.description, this.#control, lines);
  }

  /**
   * Serves the exit that a run page tells of. What somebody has to decide on is left as an event.
   *
   * @param index the vCPU
   * @returns whether there is such an event
   */
  serve(index: number, run: RunPage): boolean {
    const { eventFd } = this.#machine.devices.description;
    const { control } = this.#machine.vcpus[index];
    handleExit({
      runner: { run },
      bus: this.#devices.bus,
      control,
      notify: () => signalEventfd(eventFd),
    });
    return control.hasEvent || this.#control.hasEvent;
  }
}
