/**
 * What the modes of an update share: the VMM, its successor's command, and waiting for either.
 *
 * @module
 */
import type { Reactor } from "../../ffi/reactor.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { peerPid, type VmmProcess } from "./process.ts";
import { type QmpAddress, QmpClient, QmpClosed, replies } from "./qmp_client.ts";
import type { Successor } from "./successor.ts";
import type { TimelineStep, UpdateMode } from "./types.ts";

/**
 * Milliseconds after which what does not come is given up. The guest runs meanwhile; on a processor that
 * is emulated and busy a new VMM has taken more than 30 s to be ready for it.
 */
const PATIENCE_MS = 120_000;
/** Milliseconds between two looks. */
const INTERVAL_MS = 10;
/** The same while a guest may be moving: whoever looks takes time from the two VMMs. */
const MOVING_INTERVAL_MS = 50;
/** Milliseconds that a VMM has to end after it was told to. */
const END_LIMIT_MS = 10_000;

/** One update under way. */
export interface Session {
  readonly mode: UpdateMode;
  readonly reactor: Reactor;
  /** The running VMM's monitor. */
  readonly qmp: QmpClient;
  /** The running VMM. */
  readonly vmm: VmmProcess;
  /** The running VMM's configuration. */
  readonly config: MachineConfig;
  /** The new VMM's configuration. */
  readonly newConfig: MachineConfig;
  /** The new VMM's command line, without `-incoming`. */
  readonly command: readonly string[];
  /** Where the running VMM's monitor listens. */
  readonly address: QmpAddress;
  /** Where the new VMM's monitor listens. */
  readonly newAddress: QmpAddress;
  /** A folder of this user's alone. */
  readonly folder: string;
  /** Whether the guest ran when the update began. */
  readonly wasRunning: boolean;
  readonly signal?: AbortSignal;
  /** Tells the user what is done now. */
  readonly say: (step: string) => void;
}

/** What an update came to: the guest in its new VMM. */
export interface Outcome {
  readonly pid: number;
  readonly runState: string;
  readonly pauseUs?: number;
  readonly pausesUs?: readonly number[];
  readonly timeline: readonly TimelineStep[];
}

/** The migration has ended without effect: the old VMM has the guest for certain. */
export class MigrationFailed extends Error {}

/** Something failed when the guest was no longer the old VMM's. */
export class GuestMoved extends Error {}

/** @throws {Error} if the user has cancelled the update */
export function checkCancelled(signal?: AbortSignal): void {
  if (signal?.aborted) throw new MigrationFailed("The update was cancelled");
}

/** Lets time pass, in milliseconds. */
export function sleep(milliseconds = INTERVAL_MS): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * Looks again and again until there is something.
 *
 * @param look returns undefined or false to be called again; may throw
 * @param what what is waited for, for the message
 * @param intervalMs milliseconds between two looks
 */
export async function waitFor<T>(
  look: () => T | undefined | false | Promise<T | undefined | false>,
  what: string,
  intervalMs = INTERVAL_MS,
): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > deadline) {
      throw new Error(`Waited ${PATIENCE_MS / 1000} seconds in vain for ${what}`);
    }
    await sleep(intervalMs);
  }
}

/**
 * Waits until an outgoing migration is done. When the user cancels the update, or it takes too long,
 * the migration is cancelled; if that comes too late, it is done all the same.
 *
 * @throws {MigrationFailed} if it failed or was cancelled
 */
export async function outgoingDone({ mode, qmp, signal }: Session): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  // In a reboot the guest stands still until its file is found complete.
  const interval = mode === "reboot" ? INTERVAL_MS : MOVING_INTERVAL_MS;
  let cancelled: string | undefined;
  await waitFor(
    async () => {
      const { status, "error-desc": reason } = await qmp.migration();
      if (status === "completed") return true;
      if (status === "failed") throw new MigrationFailed(reason ?? "The migration failed");
      if (status === "cancelled") throw new MigrationFailed(cancelled!);
      if (cancelled !== undefined) return false;
      if (signal?.aborted) cancelled = "The update was cancelled";
      // Half of the time is left for the cancelling itself.
      else if (performance.now() > deadline - PATIENCE_MS / 2) {
        cancelled = `The migration is still '${status}' after ${PATIENCE_MS / 2000} seconds`;
      }
      if (cancelled !== undefined) await qmp.execute("migrate_cancel", replies.nothing);
      return false;
    },
    "the end of the migration",
    interval,
  );
}

/** Chooses a migration mode, and switches off what would make the update wait or differ. */
export async function setMode(
  { qmp, mode }: Session,
  parameters: Record<string, unknown> = {},
  ignoreShared = false,
): Promise<void> {
  await qmp.execute("migrate-set-parameters", replies.nothing, {
    mode: `cpr-${mode}`,
    ...parameters,
  });
  const capabilities = [
    { capability: "pause-before-switchover", state: false },
    { capability: "x-ignore-shared", state: ignoreShared },
  ];
  await qmp.execute("migrate-set-capabilities", replies.nothing, { capabilities });
}

/** Connects to the successor's monitor, and to nobody else's on the same path. */
export function connectSuccessor(
  session: Session,
  successor: Successor,
  assertAlive: () => void,
): Promise<QmpClient> {
  const { reactor, newAddress } = session;
  return waitFor(async () => {
    assertAlive();
    try {
      return await QmpClient.connect(newAddress, reactor, (socket) => {
        if (newAddress.family === "unix" && peerPid(socket.fd) !== successor.pid) {
          throw new QmpClosed("The old VMM still listens there");
        }
      });
    } catch {
      return undefined;
    }
  }, "the new VMM's monitor");
}

/** Waits until the guest is in the VMM behind a monitor. */
export async function arrived(
  session: Session,
  qmp: QmpClient,
  pid: number,
  assertAlive: () => void,
): Promise<Outcome> {
  return await waitFor(async () => {
    assertAlive();
    const runState = await qmp.runState();
    if (runState === "inmigrate") return undefined;
    const info = await qmp.migration();
    const { "x-pause": pause, "x-pauses": pausesUs, "x-timeline": timeline = [] } = info;
    // It is known as soon as the last vCPU has gone on, which may be a moment later.
    if (session.wasRunning && runState === "running" && pause === undefined) return undefined;
    return {
      pid,
      runState,
      ...(pausesUs ? { pausesUs, pauseUs: Math.max(...pausesUs) } : { pauseUs: pause }),
      timeline: timeline.map(({ step, us, process }) => ({ step, us, process })),
    };
  }, "the guest's arrival");
}

/** Ends the old VMM, whose guest is elsewhere. */
export async function endOld({ qmp, vmm, say }: Session): Promise<void> {
  say(`ending the old VMM, process ${vmm.pid}`);
  try {
    // The one state in which a VMM has no guest of its own.
    if (await qmp.runState() === "postmigrate") await qmp.execute("quit", replies.nothing);
  } catch {
    // The connection may end before the reply. Whether the process ends is what counts.
  }
  const deadline = performance.now() + END_LIMIT_MS;
  while (!vmm.ended) {
    if (performance.now() > deadline) {
      say(`the old VMM, process ${vmm.pid}, does not end: end it yourself, it has no guest`);
      return;
    }
    await sleep();
  }
}
