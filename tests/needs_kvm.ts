/**
 * What guests run on in tests, and tests that are about KVM itself: where there is none they are
 * skipped, and say so.
 *
 * @module
 */
import { whyNoKvm } from "../ffi/kvm/system.ts";
import type { AcceleratorName } from "../vmm/accel/accelerator.ts";

const chosen = Deno.env.get("DENOVO_TEST_ACCEL");
const lacking = whyNoKvm();

/** What guests run on: `DENOVO_TEST_ACCEL`, or else KVM where there is one, and the software CPU. */
export const testAccelerator: AcceleratorName = chosen === "tcg" || lacking !== undefined
  ? "tcg"
  : "kvm";

/** Why tests of KVM itself cannot run here, or undefined. */
export const noKvm = testAccelerator === "tcg"
  ? lacking ?? `DENOVO_TEST_ACCEL is ${chosen}`
  : undefined;
if (lacking !== undefined) console.warn(`SKIPPED: tests of KVM itself: ${lacking}`);

/**
 * Registers a test that runs a guest, on {@linkcode testAccelerator}.
 *
 * @param ignore whether it is skipped, for a reason that the caller says
 */
export function kvmTest(name: string, run: () => void | Promise<void>, ignore = false): void {
  Deno.test({ name, ignore, fn: run });
}

/** A program's messages without the one that says on what a guest runs where there is no KVM. */
export function withoutNotice(text: string): string {
  return text.replaceAll(/^denovo: .*; falling back to tcg, the software CPU\r?\n/gm, "");
}

/** Registers a test of KVM itself, which says nothing on another accelerator. */
export function onlyKvmTest(name: string, run: () => void | Promise<void>, ignore = false): void {
  Deno.test({ name, ignore: ignore || noKvm !== undefined, fn: run });
}
