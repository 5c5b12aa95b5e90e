/**
 * The accelerators that there are, each loaded when it is asked for.
 *
 * @module
 */
import type { Accelerator, AcceleratorName, AcceleratorThread } from "./accelerator.ts";

/** How an accelerator is loaded: its main thread's side, and that of other threads. */
interface Loaders {
  open(): Promise<Accelerator>;
  thread(): Promise<AcceleratorThread>;
}

const accelerators: Record<AcceleratorName, Loaders> = {
  kvm: {
    open: async () => new (await import("./kvm/system.ts")).KvmAccelerator(),
    thread: async () => (await import("./kvm/thread.ts")).kvmThread,
  },
};

/**
 * Opens the accelerator for a VM.
 *
 * @throws {Error} that says why this host does not have it
 */
export function openAccelerator(): Promise<Accelerator> {
  return accelerators.kvm.open();
}

/** What threads other than the main one use of an accelerator. */
export function loadAcceleratorThread(name: AcceleratorName): Promise<AcceleratorThread> {
  return accelerators[name].thread();
}
