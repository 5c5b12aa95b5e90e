/**
 * The software CPU on the threads of vCPUs and devices.
 *
 * @module
 */
import type { AcceleratorThread } from "../accelerator.ts";
import type { SoftwareRunnerDescription, SoftwareVmDescription } from "./description.ts";
import { MachineChips } from "./machine_chips.ts";
import { SoftwareRunner } from "./runner.ts";

/** The software CPU's side for threads. */
export const softwareThread: AcceleratorThread = {
  openRunner: (description, serve) =>
    new SoftwareRunner(description as SoftwareRunnerDescription, serve),
  openInterrupts: (description) => new MachineChips(description as SoftwareVmDescription),
};
