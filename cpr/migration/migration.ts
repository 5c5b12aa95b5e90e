/**
 * One VMM's migration: parameters, capabilities, status and its events, as QEMU shows them.
 *
 * @module
 */
import type { EventHub } from "../../vmm/events.ts";
import { parseBool } from "../../vmm/options/values.ts";
import {
  type Capability,
  capabilityNames,
  defaultParameters,
  type MigrationParameters,
  parameterNames,
  parseParameter,
} from "./parameters.ts";
import type { RamStatistics } from "../state/ram.ts";
import type { Timeline } from "./timeline.ts";
import { writeTrace } from "./trace.ts";

/** QAPI MigrationStatus, as far as Denovo uses it. */
export const migrationStatuses = [
  "none",
  "setup",
  "active",
  "pre-switchover",
  "device",
  "completed",
  "failing",
  "failed",
  "cancelling",
  "cancelled",
] as const;

/** A migration's status. */
export type MigrationStatus = typeof migrationStatuses[number];

/** Statuses of a migration that is under way. */
export const inProgress: ReadonlySet<MigrationStatus> = new Set<MigrationStatus>([
  "setup",
  "active",
  "pre-switchover",
  "device",
  "failing",
  "cancelling",
]);

/** Times of a migration, milliseconds of `performance.now()`. */
export interface MigrationTimes {
  begun: number;
  /** When the guest stopped for it. */
  stopped?: number;
  ended?: number;
  /** Between `begun` and the start of the state's transfer. */
  setup?: number;
}

/** The user has cancelled. */
export class Cancelled extends Error {}

/** QAPI InetSocketAddress, as far as a listener has it. */
export interface ListeningAddress {
  readonly type: "inet";
  readonly host: string;
  readonly port: string;
  readonly ipv4?: boolean;
  readonly ipv6?: boolean;
}

/** The state of the migration, for commands to show and modes to drive. */
export class Migration {
  parameters: MigrationParameters = { ...defaultParameters };
  readonly capabilities: Set<Capability> = new Set();
  /** Why the last migration failed. */
  error: string | undefined;
  times: MigrationTimes = { begun: 0 };
  ram: RamStatistics | undefined;
  /** Bytes written to the main channel. */
  transferred = 0;
  /** Where an incoming migration listens, for `query-migrate`. */
  socketAddress: ListeningAddress | undefined;
  /** When the steps of the update were done. */
  timeline: Timeline | undefined;
  #abort = new AbortController();
  /** Whether `migrate_cancel` can still have an effect. */
  #cancellable = false;
  /** Called by `migrate-continue` in pre-switchover. */
  continueHook: (() => void) | undefined;
  #status: MigrationStatus = "none";
  readonly #events: EventHub;

  /** @param events where MIGRATION events go when the capability `events` is on */
  constructor(events: EventHub) {
    this.#events = events;
  }

  /** The status now. */
  get status(): MigrationStatus {
    return this.#status;
  }

  set status(status: MigrationStatus) {
    if (status === this.#status) return;
    this.#status = status;
    if (this.capabilities.has("events")) this.#events.emit("MIGRATION", { status });
  }

  /** Whether a migration is under way. */
  get inProgress(): boolean {
    return inProgress.has(this.#status);
  }

  /**
   * Sets a capability or parameter as `-global migration.KEY=VALUE` does; the key may begin with
   * `x-`, as many of QEMU's do.
   *
   * @throws {Error} in QEMU's words
   */
  setGlobal(key: string, value: string): void {
    const isKey = (name: string) => name === key || `x-${name}` === key;
    const capability = capabilityNames.find(isKey);
    const parameter = parameterNames.find(isKey);
    try {
      if (capability !== undefined) {
        if (parseBool(key, value)) this.capabilities.add(capability);
        else this.capabilities.delete(capability);
      } else if (parameter !== undefined) {
        const parsed = parseParameter(parameter, value);
        this.parameters = { ...this.parameters, [parameter]: parsed };
      } else throw new Error(`Property 'migration.${key}' not found`);
    } catch (cause) {
      const { message } = cause as Error;
      throw new Error(`-global migration.${key}=${value}: ${message}`, { cause });
    }
  }

  /** Whether the migration that is shown brought the guest here, or takes it away. */
  direction: "incoming" | "outgoing" = "incoming";

  /** Starts over: status setup, no error, clocks at zero. */
  begin(direction: "incoming" | "outgoing"): void {
    this.direction = direction;
    this.error = undefined;
    this.ram = undefined;
    this.transferred = 0;
    this.times = { begun: performance.now() };
    this.#abort = new AbortController();
    this.#cancellable = true;
    this.status = "setup";
  }

  /** Aborted when the user cancels; its reason is a {@linkcode Cancelled}. */
  get cancelSignal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Cancels, while that is possible; without effect otherwise. */
  cancel(): void {
    if (!this.#cancellable) return;
    this.#cancellable = false;
    this.status = "cancelling";
    this.#abort.abort(new Cancelled("Migration was cancelled"));
  }

  /** Writes the timeline where the user wants it. @throws {Error} if that cannot be done */
  writeTrace(): void {
    const path = this.parameters["x-trace-file"];
    if (path !== "" && this.timeline) writeTrace(path, this.timeline);
  }

  /**
   * From here on `migrate_cancel` has no effect.
   *
   * @throws {Cancelled} if the user has cancelled already
   */
  commit(): void {
    this.cancelSignal.throwIfAborted();
    this.#cancellable = false;
  }

  /** The guest is stopped, or will be before anything else happens. */
  activate(): void {
    if (this.status === "active" || this.status === "pre-switchover") return;
    this.times.setup = performance.now() - this.times.begun;
    this.status = "active";
    if (this.capabilities.has("events")) this.#events.emit("MIGRATION_PASS", { pass: 2 });
  }

  /** Ends well. */
  complete(): void {
    this.#cancellable = false;
    this.times.ended = performance.now();
    this.status = "completed";
  }

  /**
   * Ends badly. The guest is resumed by whoever stopped it: between the two statuses or, as under
   * QEMU, after `failed` if the migration had already said `completed` (an exec that failed).
   */
  fail(error: unknown, resume?: () => void): void {
    this.error = error instanceof Error ? error.message : String(error);
    this.#cancellable = false;
    this.continueHook = undefined;
    const wasCompleted = this.status === "completed";
    if (!wasCompleted) {
      this.status = "failing";
      resume?.();
    }
    this.times.ended = performance.now();
    this.status = "failed";
    if (wasCompleted) resume?.();
  }

  /** An update failed, but not in this process: it is the one that has the guest now. */
  failedBefore(reason: string): void {
    this.direction = "outgoing";
    this.error = reason;
    this.status = "failed";
  }

  /** Ends because the user said so. The guest is resumed by whoever stopped it. */
  cancelled(resume?: () => void): void {
    this.continueHook = undefined;
    resume?.();
    this.times.ended = performance.now();
    this.status = "cancelled";
  }
}
