/**
 * Where threads run while a live update is prepared: everything but the vCPUs keeps off the
 * processors that the guest runs on.
 *
 * The guest pays for an update not only with its pause. Two VMMs that start, compile and rehearse
 * want processors of their own, and a vCPU that has to share one with them stands still for a slice
 * of the scheduler's at a time, which is longer than the pause. So both VMMs leave the guest alone as
 * far as there are other processors, and the new vCPUs are woken where the old ones have just stopped.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { affinityOf, processorOf, setAffinity, threadIds } from "../../ffi/affinity.ts";
import type { Handover, Inheritance, Keeper } from "../inheritance.ts";
import type { Machine } from "../machine/machine.ts";

const isSame = (one: readonly number[], other: readonly number[]) =>
  one.length === other.length && one.every((cpu, i) => cpu === other[i]);

/** What the processors that are left to the guest are handed over as. */
const PROCESSORS = "processors";

/** This process's threads on the host's processors. */
class Placement implements Keeper {
  /** Where the vCPUs are, of those that are kept for them. */
  #guest: readonly number[] = [];
  /** Where the process may run, if it does not run everywhere there now. */
  #allowed: readonly number[] | undefined;
  /** Where it runs instead. */
  #others: readonly number[] = [];
  #epoch = 0;
  #tied = false;
  #forbidden = false;

  /** The processors that are left to the guest now. */
  get guest(): readonly number[] {
    return this.#guest;
  }

  /** The processors that this process may run on, when nothing is left to anyone. */
  get allowed(): readonly number[] {
    return this.#allowed ?? affinityOf(0);
  }

  /** Whether each vCPU has a processor to itself now. */
  get tied(): boolean {
    return this.#tied;
  }

  /** Changes whenever something else is kept. */
  get epoch(): number {
    return this.#epoch;
  }

  /** The user forbids to place threads: all stay where they are. */
  forbid(): void {
    this.#forbidden = true;
  }

  /** This process was started by one that left processors to the guest. */
  inherit(allowed: readonly number[]): void {
    this.#allowed = allowed;
    this.#others = affinityOf(0);
  }

  /** Tells a successor which processors are left to the guest. */
  handOver(): Handover {
    const data = new Uint8Array(Uint16Array.from(this.#guest).buffer);
    return { fds: [], values: [{ name: PROCESSORS, id: "", data }] };
  }

  /** Keeps off the processors that a predecessor leaves to the guest. @throws {Error} if it did not say */
  takeOver(inheritance: Inheritance): void {
    const data = inheritance.takeValue(PROCESSORS);
    if (!data) throw new Error(`Section '${PROCESSORS}' is missing`);
    if (data.length % 2 !== 0) {
      throw new Error(`Section '${PROCESSORS}' has ${data.length} bytes, expected an even number`);
    }
    this.keepOff([...new Uint16Array(data.slice().buffer)]);
  }

  /**
   * Keeps all threads of this process off the guest's processors, but for the vCPUs and those that
   * somebody has placed by hand. If there are no other processors, it leaves things as they are.
   *
   * @param guest where the vCPUs are, in whatever process
   * @param vcpuTids the vCPUs' threads, if they are in this one
   */
  keepOff(guest: readonly number[], vcpuTids: readonly number[] = []): void {
    if (this.#forbidden) return;
    const { allowed } = this;
    const others = allowed.filter((cpu) => !guest.includes(cpu));
    if (others.length === 0 || others.length === allowed.length) return this.restore();
    const before = affinityOf(0);
    for (const tid of threadIds()) {
      if (!vcpuTids.includes(tid)) move(tid, others, before);
    }
    this.#guest = guest;
    this.#allowed = allowed;
    this.#others = others;
    this.#epoch++;
  }

  /**
   * The guest comes: its vCPUs' threads go where it has been so far, if each finds a processor there.
   * Several that are tied to one would slow each other down, and starve the host's own threads there.
   */
  admit(vcpuTids: readonly number[]): void {
    const allowed = this.#allowed;
    if (!allowed) return;
    const own = this.#guest.filter((cpu) => allowed.includes(cpu));
    this.#tied = own.length >= vcpuTids.length;
    for (const tid of vcpuTids) move(tid, this.#tied ? own : allowed);
  }

  /**
   * Lets all threads run where they might before.
   *
   * @param vcpuTids those of the vCPUs, if they have been admitted
   * @param since the `epoch` to undo: nothing is done in another
   */
  restore(vcpuTids: readonly number[] = [], since: number = this.#epoch): void {
    const allowed = this.#allowed;
    if (!allowed || since !== this.#epoch) return;
    for (const tid of threadIds()) {
      if (vcpuTids.includes(tid)) move(tid, allowed);
      else move(tid, allowed, this.#others);
    }
    this.#guest = [];
    this.#allowed = undefined;
    this.#tied = false;
    this.#epoch++;
  }
}

/**
 * Lets a thread run on other processors.
 *
 * @param to processors from now on
 * @param from if given, a thread that has others than these is left alone: somebody has placed it
 */
function move(tid: number, to: readonly number[], from?: readonly number[]): void {
  try {
    if (!from || isSame(affinityOf(tid), from)) setAffinity(tid, to);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    // The thread has ended, or the host no longer lets this process use those processors. Placement
    // only makes an update quicker: the thread stays where it is.
  }
}

/** Where threads run now. */
export function processorsOf(threads: readonly number[]): number[] {
  return [...new Set(threads.map(processorOf))].sort((a, b) => a - b);
}

/** The threads of a VM's vCPUs. */
export function vcpuThreads({ machine }: { readonly machine: Machine }): number[] {
  return machine.vcpus.map(({ threadId }) => threadId).filter((tid) => tid !== 0);
}

/** The one of this process. */
export const placement: Placement = new Placement();
