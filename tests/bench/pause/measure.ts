/**
 * Runs the plan: in every configuration the subjects take turns, a few updates each, until all
 * have had theirs. Only one guest exists at any time.
 *
 * @module
 */
import { guestFile } from "./guest_files.ts";
import { capacity } from "./host.ts";
import { mismatch, obstacle, type Skipped } from "./plan.ts";
import type { Configuration, Run, Subject } from "./results.ts";
import { Session, type SessionContext } from "./session.ts";

/** So many updates a guest goes through before the next subject's turn. */
const TURN = 5;
/** After so many failures in a row nothing more is tried with a subject and configuration. */
const ENOUGH = 3;

/** What is to be done. */
export interface Plan {
  readonly subjects: readonly Subject[];
  readonly configurations: readonly Configuration[];
  /** Updates of each subject in each configuration. */
  readonly runs: number;
  /** Ends everything after the run that is under way. */
  readonly signal: AbortSignal;
  /** Told of every run. */
  readonly onRun: (run: Run) => void;
  /** Told of everything that is left out. */
  readonly onSkip: (skipped: Skipped) => void;
}

/** What the sessions need, but for the guest. */
export type Context = Omit<SessionContext, "kernel">;

/** Measures all of a plan; what fails is a run with an error. */
export async function measure(plan: Plan, context: Context): Promise<void> {
  for (const configuration of plan.configurations) {
    if (plan.signal.aborted) break;
    const reason = obstacle(configuration, await capacity());
    if (reason !== undefined) {
      plan.onSkip({ what: configuration.name, reason });
      continue;
    }
    const turns = plan.subjects.flatMap((subject) => {
      const reason = mismatch(subject, configuration);
      if (reason === undefined) return new Turns(subject, configuration, plan, context);
      plan.onSkip({ what: `${subject.name}: ${configuration.name}`, reason });
      return [];
    });
    while (turns.some((turn) => !turn.done)) {
      for (const turn of turns) if (!turn.done) await turn.take();
    }
  }
}

/** One subject in one configuration. */
class Turns {
  #index = 0;
  #failuresInARow = 0;

  constructor(
    readonly subject: Subject,
    readonly configuration: Configuration,
    readonly plan: Plan,
    readonly context: Context,
  ) {}

  get done(): boolean {
    return this.#index >= this.plan.runs || this.plan.signal.aborted;
  }

  /** Starts a guest and updates it up to `TURN` times; after a failure the guest is given up. */
  async take(): Promise<void> {
    let session: Session | undefined;
    let generation = 0;
    try {
      const kernel = await guestFile(this.context.folder, this.configuration.guest);
      session = await Session.start({ ...this.context, kernel }, this.subject, this.configuration);
      for (; generation < TURN && !this.done; generation++) {
        this.#record(await session.update());
        this.#failuresInARow = 0;
      }
    } catch (error) {
      // A Ctrl-C reaches the VMMs as well.
      if (this.plan.signal.aborted) return;
      const complaint = session?.complaint;
      const message = (error as Error).message + (complaint ? `; the VMM said: ${complaint}` : "");
      this.#record({ generation, error: message });
      if (++this.#failuresInARow === ENOUGH) this.#giveUp();
    } finally {
      await session?.[Symbol.asyncDispose]();
    }
  }

  #giveUp(): void {
    const error = `not tried after ${ENOUGH} failures in a row`;
    while (!this.done) this.#record({ generation: 0, error });
  }

  #record(run: Omit<Run, "configuration" | "subject" | "index">): void {
    this.plan.onRun({
      configuration: this.configuration.name,
      subject: this.subject.name,
      index: this.#index++,
      ...run,
    });
  }
}
