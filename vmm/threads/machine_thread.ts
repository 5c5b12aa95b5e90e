/**
 * A thread of the machine, from the main thread: the state machine that runs, parks and ends it.
 *
 * What the guest does, and what is done for it, happens on such threads: vCPUs, and whoever moves data
 * between the guest and the host. State is read and written when all of them are parked; stopping,
 * rehearsing and leaving take the list of them and do not ask what they are.
 *
 * @module
 */
import type { DeviceNews } from "../bus/thread_devices.ts";
import { NewsSender } from "./news.ts";
import { GuestEvent, ThreadControl, ThreadPhase, Wanted } from "./control_block.ts";

/** Milliseconds after which a kick is repeated: only a safety net, one kick is enough. */
const KICK_AGAIN_MS = 20;
/** Milliseconds after which a thread that does not park is a defect. */
const PARK_LIMIT_MS = 10_000;

/**
 * Stops those threads that only serve the guest, which runs on: a request that takes long keeps it from
 * nothing else, and is not in any pause.
 *
 * @param limitMs milliseconds after which one that has not stopped is a defect
 * @throws {Error} if one does not stop; then those that ran go on
 */
export function parkServants(
  threads: readonly MachineThread[],
  limitMs: number = PARK_LIMIT_MS,
): void {
  parkTogether(threads.filter(({ servesGuest }) => servesGuest), limitMs);
}

/**
 * Stops threads, each with nothing half done.
 *
 * @param limitMs milliseconds after which one that has not stopped is a defect
 * @throws {Error} if one does not stop; then those that ran go on, or the guest would stand for ever
 */
export function parkAll(threads: readonly MachineThread[], limitMs: number = PARK_LIMIT_MS): void {
  parkServants(threads, limitMs);
  parkTogether(threads, limitMs);
}

function parkTogether(threads: readonly MachineThread[], limitMs: number): void {
  const ran = threads.filter(({ control }) => control.wanted === Wanted.RUN);
  try {
    for (const thread of threads) thread.kick();
    for (const thread of threads) thread.awaitParked(limitMs);
  } catch (error) {
    // A guest that goes on is served, whenever those who do were stopped.
    const goesOn = (thread: MachineThread) =>
      ran.includes(thread) || (ran.length > 0 && thread.servesGuest);
    for (const thread of threads.filter(goesOn)) thread.resume();
    throw error;
  }
}

/** How many threads come up at a time: as many as there are processors for them. */
export const threadsAtATime: number = Math.max(2, navigator.hardwareConcurrency);

/** Milliseconds between looks whether another thread may be started. */
const START_POLL_MS = 1;

/**
 * Starts threads, only so many at a time: each takes a processor to come up, and making it keeps the
 * main thread, which has clients to greet meanwhile. The first ones are started at once.
 *
 * @param threads the threads
 * @param start starts one
 * @param limit how many may be on their way at a time
 * @param abort ends it
 */
export async function startGradually<T extends { readonly control: Pick<ThreadControl, "phase"> }>(
  threads: readonly T[],
  start: (thread: T) => void,
  limit: number,
  abort: AbortSignal,
): Promise<void> {
  const begun: T[] = [];
  const areComing = () => begun.filter(({ control }) => control.phase === ThreadPhase.STARTING);
  for (const thread of threads) {
    while (areComing().length >= limit && !abort.aborted) {
      await new Promise((resolve) => setTimeout(resolve, START_POLL_MS));
    }
    if (abort.aborted) return;
    start(thread);
    begun.push(thread);
  }
}

/** One thread. */
export abstract class MachineThread {
  /** The thread's control words. */
  readonly control: ThreadControl;
  /** Whether it only does what the guest asks for, and is no part of the guest itself. */
  readonly servesGuest: boolean = false;
  #worker: Worker | undefined;
  #news: NewsSender | undefined;

  /**
   * @param title its name in messages
   * @param controlBlock the machine's control block
   * @param line the thread's line in it
   */
  constructor(
    readonly title: string,
    readonly controlBlock: SharedArrayBuffer,
    line: number,
  ) {
    this.control = new ThreadControl(controlBlock, line);
  }

  /** Lets the thread begin what `halt` forbids. */
  protected abstract allow(): void;
  /** Makes the running thread look at its orders, now and whenever it goes on. */
  protected abstract halt(): void;
  /** Makes the running thread look at its orders, once. */
  abstract interrupt(): void;

  /** The thread's id, 0 until it has started. */
  get threadId(): number {
    return this.control.threadId;
  }

  /**
   * Hands the thread to a Worker, parked. Returns at once; the thread is ready some 10 ms later.
   *
   * @param worker runs the thread's module
   * @param description what the module is told, once
   * @param onFailure called with what the module threw
   * @param hasNews whether devices can come and go while the thread is there
   */
  protected start(
    worker: Worker,
    description: Record<string, unknown>,
    onFailure: (reason: string) => void,
    hasNews: boolean,
  ): void {
    worker.onerror = (event) => {
      event.preventDefault();
      this.control.post(GuestEvent.THREAD_FAILED);
      onFailure(event.message);
    };
    this.#news = hasNews ? new NewsSender() : undefined;
    const news = this.#news?.source;
    worker.postMessage({ ...description, ...news && { news } }, news ? [news.port] : []);
    this.#worker = worker;
  }

  /**
   * Tells the thread, which is parked, that a device has come or gone. One that is still to be started
   * finds what there is.
   */
  tell(news: DeviceNews): void {
    this.#news?.send(news);
  }

  /** Lets the thread run. */
  resume(): void {
    this.allow();
    this.control.wanted = Wanted.RUN;
  }

  /** Asks the thread to park, without waiting. */
  kick(wanted: number = Wanted.PARK): void {
    this.control.wanted = wanted;
    if (this.control.phase === ThreadPhase.RUNNING) this.halt();
  }

  /** Waits until the thread no longer runs. @throws {Error} if it does not park in time */
  awaitParked(limitMs: number = PARK_LIMIT_MS): void {
    if (this.control.spinWhilePhase(ThreadPhase.RUNNING)) return;
    for (let waited = 0; this.control.phase === ThreadPhase.RUNNING; waited += KICK_AGAIN_MS) {
      if (waited >= limitMs) {
        throw new Error(`${this.title} did not stop within ${limitMs / 1000} s`);
      }
      if (!this.control.waitWhilePhase(ThreadPhase.RUNNING, KICK_AGAIN_MS)) this.interrupt();
    }
  }

  /** Ends the thread. What it worked with stays open. */
  async endThread(): Promise<void> {
    this.kick(Wanted.EXIT);
    if (this.control.phase === ThreadPhase.STARTING) {
      // The thread has not taken its message: it can still be terminated, it does not run.
      this.#worker?.terminate();
    } else {
      while (this.control.phase !== ThreadPhase.EXITED) {
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    }
    this.#worker = undefined;
    this.#news?.[Symbol.dispose]();
    this.#news = undefined;
  }
}
