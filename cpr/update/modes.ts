/**
 * The three ways of an update. Each one leaves the guest running in the old VMM when it fails.
 *
 * @module
 */
import { readBool } from "../../vmm/options/values.ts";
import { sharedRamFile } from "./command_line.ts";
import { HostFiles } from "./host_files.ts";
import { listens } from "./process.ts";
import { QmpClient, QmpClosed, QmpRefusal, replies } from "./qmp_client.ts";
import {
  arrived,
  checkCancelled,
  connectSuccessor,
  endOld,
  GuestMoved,
  MigrationFailed,
  type Outcome,
  outgoingDone,
  type Session,
  setMode,
  sleep,
  waitFor,
} from "./session.ts";
import { Successor } from "./successor.ts";
import type { UpdateMode } from "./types.ts";

/** How long a successor that was refused may take to say why. */
const LAST_WORDS_MS = 2_000;

/** How long a successor may take to have the guest when the old VMM has died meanwhile. */
const ORPHAN_LIMIT_MS = 5_000;

/** cpr-transfer: a second process takes the guest over. */
async function transfer(session: Session): Promise<Outcome> {
  const { command, folder, qmp, say, signal, vmm } = session;
  const [main, cpr] = ["main", "cpr"].map((type) => ({
    "channel-type": type,
    addr: { transport: "socket", type: "unix", path: `${folder}/${type}` },
  }));
  const incoming = ["-incoming", `unix:${main.addr.path}`, "-incoming", JSON.stringify(cpr)];
  using files = new HostFiles(session.config, vmm);
  say("starting the new VMM");
  using successor = new Successor([...command, ...incoming], vmm, folder);
  let begun = false;
  try {
    await waitFor(() => {
      checkCancelled(signal);
      successor.assertAlive();
      return listens(cpr.addr.path);
    }, "the new VMM");
    await setMode(session);
    say(`moving the guest to process ${successor.pid}`);
    begun = true;
    await qmp.execute("migrate", replies.nothing, { channels: [main, cpr] });
    await outgoingDone(session);
  } catch (error) {
    // Only a refusal proves that the guest has stayed: otherwise the successor may have it, and
    // ending that would end the guest.
    const hasStayed = !begun || error instanceof MigrationFailed || error instanceof QmpRefusal;
    if (hasStayed) throw await giveUp(successor, files, error as Error);
    // The old VMM has died: it may have sent the guest just before, so the successor is asked.
    if (!(error instanceof QmpClosed)) throw error;
  }
  const since = performance.now();
  const assertAlive = () => {
    successor.assertAlive();
    if (vmm.ended && performance.now() - since > ORPHAN_LIMIT_MS) {
      throw new Error(`VMM ${vmm.pid} ended during the update`);
    }
  };
  try {
    using monitor = await connectSuccessor(session, successor, assertAlive);
    const outcome = await arrived(session, monitor, successor.pid, assertAlive);
    await endOld(session);
    return outcome;
  } catch (error) {
    throw movedAway(successor, error as Error);
  }
}

/** What is wrong after the guest has moved: nobody but the successor can have it. */
function movedAway(successor: Successor, error: Error): GuestMoved {
  const { message } = error;
  const text = successor.ended
    ? `The guest is lost, process ${successor.pid} ended while it had it: ${successor.reason}`
    : `Nothing is known of the guest in process ${successor.pid}: ${message}`;
  return new GuestMoved(text, { cause: error });
}

/** Ends a successor that has no guest. Returns the error to throw, with the successor's reason. */
async function giveUp(successor: Successor, files: HostFiles, error: Error): Promise<Error> {
  const deadline = performance.now() + LAST_WORDS_MS;
  const cancelled = error instanceof MigrationFailed && error.message.includes("cancelled");
  while (!cancelled && !successor.ended && performance.now() < deadline) await sleep();
  const reason = successor.ended && !cancelled
    ? new Error(`The new VMM ended: ${successor.reason}`, { cause: error })
    : error;
  successor.kill();
  files.restore();
  return reason;
}

/** cpr-exec: the process replaces its own program. */
async function exec(session: Session): Promise<Outcome> {
  const { command, folder, qmp, reactor, say, signal, vmm } = session;
  const uri = `file:${folder}/state`;
  checkCancelled(signal);
  say("asking the new program whether it can take the guest");
  await setMode(session, { "cpr-exec-command": [...command, "-incoming", uri] });
  await qmp.execute("migrate", replies.nothing, { uri });
  say(`replacing the program of process ${vmm.pid}`);
  let current = qmp;
  try {
    let ended: number | undefined;
    await waitFor(async () => {
      // The guest of a program that has ended is in its helper, which opens the monitors then.
      if (vmm.ended) ended ??= performance.now();
      if (ended !== undefined && performance.now() - ended > ORPHAN_LIMIT_MS) assertAlive(session);
      try {
        const { status, "error-desc": reason } = await current.migration();
        if (status === "failed") throw new MigrationFailed(reason ?? "The migration failed");
        return status === "completed";
      } catch (error) {
        if (!(error instanceof QmpClosed)) throw error;
        const next = await reconnect(session);
        if (next) current = next;
        return false;
      }
    }, "the new program");
    return await arrived(session, current, vmm.pid, () => assertAlive(session));
  } finally {
    if (current !== qmp) current[Symbol.dispose]();
  }

  /** A helper that has kept the guest listens where the old VMM did. */
  async function reconnect({ newAddress, address }: Session): Promise<QmpClient | undefined> {
    for (const one of new Set([newAddress, address])) {
      try {
        return await QmpClient.connect(one, reactor);
      } catch {
        // Not there yet, or the other one.
      }
    }
  }
}

function assertAlive({ vmm }: Session): void {
  if (vmm.ended) throw new Error(`VMM ${vmm.pid} has ended, and the guest with it`);
}

/** cpr-reboot: the guest goes through a file. The old VMM keeps it until the new one has it. */
async function reboot(session: Session): Promise<Outcome> {
  const { command, folder, qmp, say, vmm, wasRunning } = session;
  const uri = `file:${folder}/state`;
  const ignoreShared = ramStaysInItsFile(session);
  using files = new HostFiles(session.config, vmm);
  checkCancelled(session.signal);
  await setMode(session, {}, ignoreShared);
  say("writing the guest into a file");
  await qmp.execute("migrate", replies.nothing, { uri });
  await outgoingDone(session);
  const writtenUs = nowUs();
  say("starting the new VMM");
  // It waits with -S, so that the guest can go back as long as it has not run there.
  const incoming = [...ignoreSharedOption(session, ignoreShared), "-S", "-incoming", uri];
  let successor: Successor | undefined;
  try {
    successor = new Successor([...command, ...incoming], vmm, folder);
    return await goOn(session, successor, writtenUs);
  } catch (error) {
    if (error instanceof GuestMoved) throw error;
    const reason = successor ? await giveUp(successor, files, error as Error) : error;
    try {
      if (wasRunning) await qmp.execute("cont", replies.nothing);
    } catch {
      // Where the guest is and how is said with the reason.
    }
    throw reason;
  } finally {
    successor?.[Symbol.dispose]();
  }
}

async function goOn(
  session: Session,
  successor: Successor,
  writtenUs: number,
): Promise<Outcome> {
  const goesOn = () => {
    checkCancelled(session.signal);
    successor.assertAlive();
  };
  using monitor = await connectSuccessor(session, successor, goesOn);
  const { pid } = await arrived(session, monitor, successor.pid, goesOn);
  const arrivedUs = nowUs();
  try {
    const run = session.wasRunning && !session.newConfig.startPaused;
    if (run) await monitor.execute("cont", replies.nothing);
    const runState = await monitor.runState();
    await endOld(session);
    const [STOP, RESUME] = [session.qmp.times.STOP, monitor.times.RESUME];
    if (!run || STOP === undefined || RESUME === undefined) return { pid, runState, timeline: [] };
    // The two VMMs' own events and what was seen from here, on the one clock of this host.
    const timeline = [
      { step: "stop", us: 0, process: "old" },
      { step: "written", us: writtenUs - STOP, process: "old" },
      { step: "loaded", us: arrivedUs - STOP, process: "new" },
      { step: "resumed", us: RESUME - STOP, process: "new" },
    ];
    return { pid, runState, pauseUs: RESUME - STOP, timeline };
  } catch (error) {
    throw movedAway(successor, error as Error);
  }
}

/** The host's clock as QMP's events have it, microseconds. */
function nowUs(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

/** Whether both VMMs have the same shared file as RAM: it need not be copied then. */
function ramStaysInItsFile({ config, newConfig, vmm }: Session): boolean {
  const [old, next] = [config, newConfig].map(sharedRamFile);
  if (old === undefined || next === undefined) return false;
  // A folder stands for a nameless file in it.
  return vmm.resolve(old) === vmm.resolve(next) && Deno.statSync(vmm.resolve(old)).isFile;
}

/** What makes the new VMM's capability x-ignore-shared what the old one's is. */
function ignoreSharedOption({ newConfig }: Session, wanted: boolean): string[] {
  const given = newConfig.globals.findLast(([driver, name]) =>
    driver === "migration" && name === "x-ignore-shared"
  );
  if (readBool(given?.[2] ?? "off") === wanted) return [];
  return ["-global", `migration.x-ignore-shared=${wanted ? "on" : "off"}`];
}

/** The modes. */
export const modes: Readonly<Record<UpdateMode, (session: Session) => Promise<Outcome>>> = {
  transfer,
  exec,
  reboot,
};
