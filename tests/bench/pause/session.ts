/**
 * One guest's life: it is started, updated several times, and measured each time.
 *
 * @module
 */
import { z } from "zod";
import { monotonicNow, monotonicNs, realtimeNs } from "../../../ffi/event.ts";
import { sleep } from "../program.ts";
import { counterAddresses, GuestRam, ramPath } from "./guest_ram.ts";
import { type Gap, gapAround, type Interval, lengthUs, lostUs, type Pace } from "./gaps.ts";
import { type Observation, Observer } from "./observer_client.ts";
import { type Configuration, type Run, step, type Subject, usage } from "./results.ts";
import { makeUpdate } from "./update.ts";
import { type CommandContext, commandOf } from "./vmm.ts";
import { until, VmmProcess } from "./vmm_process.ts";

/** After an update, what the successor does late is over after this time. */
const SETTLE_MS = 250;
/** For how long after a pause the guest's pace is looked at. */
const AFTER_MS = 100;
/** Gaps that the guest lists: from this on, and from so many iterations on. */
const LISTED_FROM_MS = 0.1;
const LISTED_ITERATIONS = 4;

/** What the sessions have in common. */
export interface SessionContext extends CommandContext {
  /** A folder in which every session makes one for its sockets and files. */
  readonly folder: string;
  readonly tscKhz: number;
  readonly hasRelay: boolean;
  /** Whether a second process watches the guest. */
  readonly observe: boolean;
}

/** What one update gave. */
export type Outcome = Omit<Run, "configuration" | "subject" | "index" | "error">;

/** What was seen while something was done. */
interface Window {
  /** The longest gap, by the clock that this session goes by. */
  readonly gapUs: number;
  readonly windowMs: number;
  /** By the second process, if there is one. */
  readonly seen?: Observation;
}

/** A running guest under measurement. */
export class Session implements AsyncDisposable {
  #generation = 0;
  #vmm: VmmProcess;
  #ram!: GuestRam;
  #observer: Observer | undefined;

  private constructor(
    readonly context: SessionContext,
    readonly subject: Subject,
    readonly configuration: Configuration,
    readonly folder: string,
  ) {
    const command = commandOf(subject, configuration, context);
    this.#vmm = new VmmProcess(command, this.#path("qmp"));
  }

  /** Starts a guest. @throws {Error} if it does not come to counting */
  static async start(
    context: SessionContext,
    subject: Subject,
    configuration: Configuration,
  ): Promise<Session> {
    const folder = await Deno.makeTempDir({ dir: context.folder });
    const session = new Session(context, subject, configuration, folder);
    try {
      await session.#begin();
      return session;
    } catch (error) {
      await session[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What the VMM's errors said, to be added to a failure. */
  get complaint(): string {
    return this.#vmm.complaint;
  }

  /** Updates once and measures it. @throws {Error} with why it failed */
  async update(): Promise<Outcome> {
    const generation = this.#generation++;
    await using update = makeUpdate(this.subject.mode, this.#vmm, {
      path: (name) => this.#path(name),
      hasRelay: this.subject.vmm === "denovo" && this.context.hasRelay,
      counts: () => this.#counts(),
    });
    await update.prepare();
    const old = this.#vmm;
    let updateMs = 0;
    const pause = await this.#window(async () => {
      const start = performance.now();
      await update.perform();
      updateMs = performance.now() - start;
    });
    const { atStop, afterUs } = await this.#aroundStop(old, pause);
    const arrived = await update.finish();
    const vmm = this.#vmm = arrived.vmm;
    const info = this.subject.vmm === "denovo" ? await vmm.accounted() : arrived.info;
    await sleep(SETTLE_MS);
    const idle = await this.#window(() => sleep(pause.windowMs));
    this.#ram.assertUnharmed();
    const steps = z.array(step).safeParse(info["x-timeline"]);
    const used = usage.safeParse(info["x-pause-usage"]);
    return {
      generation,
      gapUs: pause.gapUs,
      floorUs: idle.gapUs,
      windowMs: pause.windowMs,
      updateMs,
      ...(pause.seen && {
        observedUs: pause.seen.gapUs,
        observerBlindUs: pause.seen.blindUs,
      }),
      ...(atStop && { atStopUs: lengthUs(atStop) }),
      ...(afterUs !== undefined && { afterUs }),
      ...(info["x-pause"] !== undefined && { xPauseUs: info["x-pause"] }),
      ...(used.success && {
        pageFaults: used.data.reduce((sum, half) => sum + half["page-faults"], 0),
        preemptions: used.data.reduce((sum, half) => sum + half.preemptions, 0),
      }),
      ...(steps.success && { timeline: steps.data }),
    };
  }

  /** Ends everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#observer?.[Symbol.asyncDispose]();
    await this.#vmm[Symbol.asyncDispose]();
    this.#ram?.[Symbol.dispose]();
    for (const path of [this.folder, this.context.ramFile]) {
      await Deno.remove(path, { recursive: true }).catch((error) => {
        // Only cpr-reboot makes the file of RAM.
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      });
    }
  }

  async #begin(): Promise<void> {
    await this.#vmm.connect();
    const path = await ramPath(this.#vmm.pid);
    this.#ram = new GuestRam(path, this.configuration);
    if (this.context.observe) {
      this.#observer = new Observer(path, counterAddresses(this.configuration));
    }
    await this.#counts();
    this.#ram.listGapsFrom(await this.#shortestGapMs() * this.context.tscKhz);
    // Its start is over; the first window must not find the observer still at it.
    await this.#window(() => sleep(SETTLE_MS));
  }

  /** What is clearly longer than an iteration, which may itself take long in kernel mode. */
  async #shortestGapMs(): Promise<number> {
    const before = this.#ram.counts();
    const start = performance.now();
    await sleep(SETTLE_MS);
    const elapsed = performance.now() - start;
    const slowest = Math.min(...this.#ram.counts().map((count, i) => count - before[i]));
    return Math.max(LISTED_FROM_MS, LISTED_ITERATIONS * elapsed / Math.max(1, slowest));
  }

  /** Measures what the guest and the observer see while something is done. */
  async #window(action: () => Promise<void>): Promise<Window> {
    await this.#observer?.begin();
    // A gap that a vCPU has just seen may be stored right after it was cleared: not in this window.
    this.#ram.clearGaps();
    for (let i = 0; i < 2; i++) await this.#counts();
    const start = performance.now();
    this.#ram.clearGaps();
    await action();
    // Nor may one be missed that is stored a moment later.
    for (let i = 0; i < 2; i++) await this.#counts();
    const ownUs = this.#ram.longestGap() / this.context.tscKhz * 1000;
    const windowMs = performance.now() - start;
    const seen = await this.#observer?.end();
    return { gapUs: this.#isSeenFromOutside ? seen!.gapUs : ownUs, windowMs, seen };
  }

  /** The TSC of a guest of QEMU's software CPU stands still while the guest does. */
  get #isSeenFromOutside(): boolean {
    return this.context.accel === "tcg";
  }

  /** The update's own pause, and what the guest lost after it. */
  async #aroundStop(
    old: VmmProcess,
    { seen }: Window,
  ): Promise<{ readonly atStop?: Interval; readonly afterUs?: number }> {
    const moment = this.#stopMoment(old);
    if (moment === undefined) return {};
    if (this.#isSeenFromOutside) return { atStop: gapAround(seen!.gaps, moment) };
    const atStop = gapAround(this.#ram.gaps(this.context.tscKhz), moment);
    return { atStop, afterUs: atStop && await this.#lostAfter(atStop) };
  }

  /**
   * What the guest lost after a gap, against its pace soon after that: the host's own changes slowly.
   * Not with several vCPUs, which go on one by one.
   */
  async #lostAfter({ endNs, count }: Gap): Promise<number | undefined> {
    if (this.configuration.cpus > 1) return undefined;
    await sleep(Math.max(0, (endNs - monotonicNow()) / 1e6 + AFTER_MS));
    const paces: Pace[] = [];
    for (let i = 0; i < 3; i++) {
      if (i > 0) await sleep(AFTER_MS);
      paces.push(this.#ram.pace());
    }
    return lostUs({ ns: endNs, count }, paces[0], [paces[1], paces[2]]);
  }

  /** The moment of the event STOP, nanoseconds of CLOCK_MONOTONIC. */
  #stopMoment({ stoppedUs }: VmmProcess): number | undefined {
    // The helper's way has two pauses, and only the first one has an event.
    if (stoppedUs === undefined || this.subject.mode === "exec-relay") return undefined;
    return stoppedUs * 1000 - Number(realtimeNs() - monotonicNs());
  }

  async #counts(): Promise<void> {
    const before = this.#ram.counts();
    const move = () => this.#ram.counts().every((count, i) => count > before[i]);
    await until(move, "the guest to count");
  }

  /** A path of this generation: nothing is in the way of the next. */
  #path(name: string): string {
    return `${this.folder}/${this.#generation}.${name}`;
  }
}
