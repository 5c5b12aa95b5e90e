/**
 * The accelerators that there are, each loaded when it is asked for.
 *
 * @module
 */
import {
  type Accelerator,
  type AcceleratorName,
  acceleratorNames,
  type AcceleratorThread,
} from "./accelerator.ts";

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
  tcg: {
    open: async () => await (await import("./software/system.ts")).SoftwareAccelerator.open(),
    thread: async () => (await import("./software/thread.ts")).softwareThread,
  },
};

/**
 * Opens the accelerator for a VM: the first that this host has.
 *
 * @param wanted which, best first; none for any
 * @param notice told when it is not the first
 * @throws {Error} that says why this host has none of them
 */
export async function openAccelerator(
  wanted: readonly AcceleratorName[],
  notice: (text: string) => void = () => {},
): Promise<Accelerator> {
  const [first, ...others] = wanted.length > 0 ? wanted : acceleratorNames;
  try {
    return await accelerators[first].open();
  } catch (error) {
    if (others.length === 0 || !(error instanceof Error)) throw error;
    notice(`denovo: ${error.message}; falling back to ${others[0]}, the software CPU`);
    return await openAccelerator(others, notice);
  }
}

/** What threads other than the main one use of an accelerator. */
export function loadAcceleratorThread(name: AcceleratorName): Promise<AcceleratorThread> {
  return accelerators[name].thread();
}
