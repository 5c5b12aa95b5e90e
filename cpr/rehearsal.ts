/**
 * Rehearsals: the code of the pause, run on scratch hardware while the guest still runs.
 *
 * JavaScript that runs for the first time is ten to a hundred times slower than compiled code; after
 * some rounds the compiler has seen it, and so has the processor's cache.
 *
 * @module
 */
import type { Machine } from "../vmm/machine.ts";
import { bufferSource, encodeStream } from "./stream.ts";
import { readVm, VmImage } from "./vm_state.ts";

/** Enough for the optimizing compiler to take the inner loops; about a millisecond each. */
const ROUNDS = 40;

/**
 * Saves, encodes, decodes and loads the state of a scratch VM, as the pause will.
 *
 * @returns buffers for the machine's own state
 */
export function rehearse(machine: Machine): VmImage {
  using scratch = machine.hardware.makeScratch();
  const image = new VmImage(machine, scratch);
  const guest = { wasRunning: false, stoppedNs: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const bytes = encodeStream(image.save(guest));
    readVm(machine, bufferSource(bytes), { agreed: true, hardware: scratch }).apply(true);
  }
  return new VmImage(machine);
}
