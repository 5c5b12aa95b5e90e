/**
 * The timeline of an update: when each step was done, by which process, in one ring that both
 * processes map.
 *
 * Every time is CLOCK_MONOTONIC, which is the same clock in all processes of a host. The ring lies
 * behind the ownership word (`ownership.ts`); its bytes are a peer's and are believed as times only.
 *
 * ```text
 * u32 entries written   then for each: f64 nanoseconds  u16 step  u16 process  u32 vCPU
 * ```
 *
 * In place of a step there may be what a process's half of the pause has used, with u16 page faults and
 * u16 preemptions in place of the vCPU.
 *
 * @module
 */
import { monotonicNow } from "../../ffi/event.ts";

/** The steps of an update in their usual order, each stamped when it is done. */
export const steps = [
  "begin",
  "descriptors-sent",
  "machine-built",
  "listening",
  "connected",
  "rehearsed",
  "machine-agreed",
  "stop",
  "parked",
  "saved",
  "handed-over",
  "sent",
  "exec",
  "runtime-started",
  "program-started",
  "received",
  "checked",
  "loaded",
  "taken",
  "resumed",
  "entered",
  "answered",
  "settled",
] as const;

/** One step of an update. */
export type Step = typeof steps[number];

/** Who can stamp a step: the VMM before, the one after, and the helper of a relayed cpr-exec. */
export const updateProcesses = ["old", "new", "helper"] as const;

/** One of the processes of an update. */
export type UpdateProcess = typeof updateProcesses[number];

/** One entry of a timeline. */
export interface TimelineEntry {
  readonly step: Step;
  readonly process: UpdateProcess;
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly ns: number;
  /** Which vCPU, for the step `entered`. */
  readonly vcpu: number;
}

/** What a process's thread used in its half of a pause, which others can disturb. */
export interface PauseUsage {
  readonly process: UpdateProcess;
  /** Accesses to memory that was not mapped. */
  readonly pageFaults: number;
  /** How often the host gave the thread's processor to somebody else. */
  readonly preemptions: number;
}

/** A step as users read it. */
export function stepLabel({ step, vcpu }: { readonly step: Step; readonly vcpu?: number }): string {
  return step === "entered" ? `${step} (CPU ${vcpu})` : step;
}

/** What the ring has of an entry. */
interface Entry {
  readonly step: number;
  readonly process: UpdateProcess;
  readonly ns: number;
  /** The vCPU, or counts. */
  readonly number: number;
}

const HEAD = 8;
const ENTRY = 16;
const numbers = new Map<Step, number>(steps.map((step, number) => [step, number]));
/** A step's number for what is none. Who does not know it leaves the entry out. */
const USAGE = 0x100;
const MOST = 0xffff;

let observer: ((step: Step) => void) | undefined;

/**
 * Has a function called at each step of this process's updates, after it is stamped. The fault tests
 * kill processes there.
 */
export function observeSteps(observe: ((step: Step) => void) | undefined): void {
  observer = observe;
}

/** One process's view of the ring. */
export class Timeline {
  readonly #count: Int32Array<ArrayBuffer>;
  readonly #data: DataView<ArrayBuffer>;
  readonly #capacity: number;
  /** Whether the observer is called: not for a rehearsal, in which nothing happens to the guest. */
  observed = true;

  /**
   * @param memory the ring, shared with the other process; aligned to 8 bytes
   * @param process who stamps
   */
  constructor(memory: Uint8Array<ArrayBuffer>, readonly process: UpdateProcess) {
    this.#count = new Int32Array(memory.buffer, memory.byteOffset, 1);
    this.#data = new DataView(memory.buffer, memory.byteOffset + HEAD, memory.length - HEAD);
    this.#capacity = Math.floor(this.#data.byteLength / ENTRY);
  }

  /** Notes that a step is done, now or at another time. A full ring takes no more. */
  stamp(step: Step, ns: number = monotonicNow(), vcpu = 0): void {
    this.#put(numbers.get(step)!, ns, vcpu, this.process);
    if (this.observed) observer?.(step);
  }

  /** Notes what this process's half of the pause has used. */
  noteUsage({ pageFaults, preemptions }: Omit<PauseUsage, "process">): void {
    const counts = Math.min(pageFaults, MOST) | (Math.min(preemptions, MOST) << 16);
    this.#put(USAGE, monotonicNow(), counts >>> 0, this.process);
  }

  #put(step: number, ns: number, number: number, process: UpdateProcess): void {
    const index = Atomics.add(this.#count, 0, 1);
    if (index < 0 || index >= this.#capacity) return;
    const at = index * ENTRY;
    this.#data.setFloat64(at, ns, true);
    this.#data.setUint16(at + 8, step, true);
    this.#data.setUint16(at + 10, updateProcesses.indexOf(process), true);
    this.#data.setUint32(at + 12, number, true);
  }

  /** Forgets what was noted. */
  clear(): void {
    Atomics.store(this.#count, 0, 0);
  }

  /** Takes over what another timeline has, with a process by the name that it has here. */
  continue(before: Timeline, process: UpdateProcess, name: UpdateProcess): void {
    for (const { step, ns, number, process: who } of before.#all()) {
      this.#put(step, ns, number, who === process ? name : who);
    }
  }

  /** What was noted so far by all processes, in the order of time; entries without sense left out. */
  entries(): TimelineEntry[] {
    return this.#all().flatMap(({ step, process, ns, number }) =>
      step < steps.length ? { step: steps[step], process, ns, vcpu: number } : []
    );
  }

  /** What each half of a pause has used, in the order of time. */
  usage(): PauseUsage[] {
    return this.#all().flatMap(({ step, process, number }) =>
      step === USAGE ? { process, pageFaults: number & MOST, preemptions: number >>> 16 } : []
    );
  }

  #all(): Entry[] {
    const count = Math.max(0, Math.min(Atomics.load(this.#count, 0), this.#capacity));
    return Array.from({ length: count }, (_, i) => this.#entry(i * ENTRY))
      .filter((entry) => entry !== undefined).sort((a, b) => a.ns - b.ns);
  }

  #entry(at: number): Entry | undefined {
    const process = updateProcesses[this.#data.getUint16(at + 10, true)];
    const ns = this.#data.getFloat64(at, true);
    if (process === undefined || !Number.isFinite(ns)) return undefined;
    const step = this.#data.getUint16(at + 8, true);
    return { step, process, ns, number: this.#data.getUint32(at + 12, true) };
  }
}
