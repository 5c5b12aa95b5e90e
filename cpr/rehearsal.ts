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
import { readVm, stateSections } from "./vm_state.ts";

/** Enough for the optimizing compiler to take the inner loops; about a millisecond each. */
const ROUNDS = 40;

/** Saves, encodes, decodes and loads the state of a scratch VM, as the pause will. */
export function rehearse(machine: Machine): void {
  using scratch = machine.hardware.makeScratch();
  const guest = { wasRunning: false, stoppedNs: 0n };
  for (let round = 0; round < ROUNDS; round++) {
    const bytes = encodeStream(stateSections(machine, guest, scratch));
    readVm(machine, bufferSource(bytes), false, scratch).apply();
  }
}
