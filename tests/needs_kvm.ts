/**
 * Tests that need KVM: where there is none they are skipped, and say so.
 *
 * @module
 */
import { whyNoKvm } from "../ffi/kvm/system.ts";
import type { AcceleratorName } from "../vmm/accel/accelerator.ts";

/** What guests run on in tests: `DENOVO_TEST_ACCEL`, or else KVM. */
export const testAccelerator: AcceleratorName = Deno.env.get("DENOVO_TEST_ACCEL") === "tcg"
  ? "tcg"
  : "kvm";

/** Why they cannot run here, or undefined. */
export const noKvm = testAccelerator === "tcg" ? undefined : whyNoKvm();
if (noKvm !== undefined) console.warn(`SKIPPED: tests that need KVM: ${noKvm}`);

/**
 * Registers a test that needs KVM.
 *
 * @param ignore whether it is skipped for another reason, which the caller says
 */
export function kvmTest(name: string, run: () => void | Promise<void>, ignore = false): void {
  Deno.test({ name, ignore: ignore || noKvm !== undefined, fn: run });
}
