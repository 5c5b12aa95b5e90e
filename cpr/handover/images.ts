/**
 * Disk images that were let go of for another process (`cpr=off`), and come back with the guest.
 *
 * @module
 */
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";

/**
 * Milliseconds for which images may be missing: a process that dies closes one file after the other,
 * and one that refuses a guest may be slow. The guest could not run meanwhile in any case.
 */
const LIMIT_MS = 5_000;
/** Milliseconds between two looks. */
const LOOK_MS = 5;

/**
 * Takes the images again of a guest that is this VMM's again.
 *
 * @param error why it is
 * @returns why it cannot run all the same: an image is another process's, or is none any more
 */
export async function awaitImages(vm: VirtualMachine, error: unknown): Promise<Error | undefined> {
  const limit = performance.now() + LIMIT_MS;
  let lack = vm.blocks.whyNotHeld();
  while (lack !== undefined && performance.now() < limit && !vm.ending.aborted) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    if (!vm.ending.aborted) lack = vm.blocks.whyNotHeld();
  }
  if (lack === undefined) return undefined;
  const reason = error instanceof Error ? error.message : String(error);
  return new Error(`${lack} (the update failed: ${reason})`, { cause: error });
}
