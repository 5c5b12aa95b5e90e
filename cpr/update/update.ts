/**
 * Replacing the VMM of a running guest, from outside: a client of the VMM's monitor that starts the
 * new VMM, drives the migration, and tells how it went.
 *
 * Everything that can be found wrong is found before the running VMM is told anything.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { Reactor } from "../../ffi/reactor.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { withChanges } from "../../vmm/device_changes.ts";
import { inTransit, type RunState } from "../../vmm/run_state.ts";
import { bundleCommand } from "./bundle.ts";
import { inProgress, type MigrationStatus } from "../migration/migration.ts";
import {
  carriedOptions,
  machineOf,
  optionsOf,
  parseSocket,
  qmpServersOf,
  type Server,
} from "./command_line.ts";
import { checkMode, chooseMode } from "./choose.ts";
import { modes } from "./modes.ts";
import { servingPid, VmmProcess } from "./process.ts";
import { type QmpAddress, QmpClient, replies } from "./qmp_client.ts";
import { checkCancelled, GuestMoved, type Session } from "./session.ts";
import { UpdateError, type UpdateFailure, type UpdateOptions, type UpdateResult } from "./types.ts";

export * from "./types.ts";

/** What a VMM says that is being updated, or migrated, by somebody else. */
const BUSY = "There's a migration process in progress";

/**
 * Replaces the VMM of a running guest on this host by this version of Denovo.
 *
 * @param options which VMM, and how
 * @returns what was done; the guest is in its new VMM
 * @throws {UpdateError} with the reason, and what has become of the guest
 */
export async function updateVmm(options: UpdateOptions): Promise<UpdateResult> {
  await using update = new VmmUpdate(options);
  return await update.run();
}

/** One update and all that it opens. */
class VmmUpdate implements AsyncDisposable {
  readonly #options: UpdateOptions;
  readonly #reactor = new Reactor();
  readonly #say: (step: string) => void;
  #qmp: QmpClient | undefined;
  #vmm: VmmProcess | undefined;
  #folder: string | undefined;
  #known: UpdateFailure = {};

  constructor(options: UpdateOptions) {
    this.#options = options;
    this.#say = options.onProgress ?? (() => {});
  }

  async run(): Promise<UpdateResult> {
    try {
      const session = await this.#prepare();
      const restore = await rememberSettings(session.qmp);
      try {
        const { pid, ...outcome } = await modes[session.mode](session);
        return {
          mode: session.mode,
          oldPid: session.vmm.pid,
          newPid: pid,
          commandLine: session.command,
          ...outcome,
        };
      } catch (error) {
        if (!(error instanceof GuestMoved)) await this.#withMonitor(restore);
        throw error;
      }
    } catch (error) {
      throw await this.#explain(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp?.[Symbol.dispose]();
    this.#vmm?.[Symbol.dispose]();
    await this.#reactor.close();
    if (this.#folder !== undefined) await Deno.remove(this.#folder, { recursive: true });
  }

  async #prepare(): Promise<Session> {
    const { socket, signal } = this.#options;
    const address = parseSocket(socket);
    const qmp = await this.#connect(address);
    const vmm = this.#vmm!;
    const runState = await checkVmm(qmp, socket);
    this.#say(`preparing to update VMM ${vmm.pid}, its guest is ${runState}`);
    const { config, newConfig, newOptions } = this.#readOptions(vmm, address);
    const newAddress = newAddressOf(newConfig, vmm, address);
    const { mode, reason } = chooseMode(config, vmm, this.#options.mode);
    this.#known = { ...this.#known, mode };
    if (reason !== undefined) this.#say(`mode exec: ${reason}`);
    checkMode(mode, config, newConfig, vmm);
    const { "x-plugged": plugged = [], "x-unplugged": unplugged = [] } = await checkMigration(
      qmp,
      mode !== "reboot",
    );
    // In the other modes its start is in the pause, or there are three.
    const compiles = mode === "transfer" && computes(newConfig);
    const options = this.#options.options
      ? newOptions
      : withChanges(newOptions, { plugged, unplugged });
    const command = [...await bundleCommand(compiles), ...options];
    this.#known = { ...this.#known, commandLine: command };
    checkCancelled(signal);
    this.#folder = await Deno.makeTempDir({ prefix: "denovo-update-" });
    return {
      ...{ mode, qmp, vmm, config, newConfig, command, signal },
      reactor: this.#reactor,
      address,
      newAddress,
      folder: this.#folder,
      wasRunning: runState === "running",
      say: this.#say,
    };
  }

  async #connect(address: QmpAddress): Promise<QmpClient> {
    const { socket: name } = this.#options;
    try {
      const qmp = this.#qmp = await QmpClient.connect(address, this.#reactor);
      // Only now: a TCP connection belongs to nobody before it is accepted.
      this.#vmm = VmmProcess.behind(qmp.socket, name);
      this.#known = { oldPid: this.#vmm.pid };
      return qmp;
    } catch (error) {
      throw new Error(`-qmp ${name}: ${(error as Error).message}`, { cause: error });
    }
  }

  #readOptions(vmm: VmmProcess, address: QmpAddress) {
    const { options } = this.#options;
    if (options) {
      const newConfig = machineOf(options, "The new options");
      if (newConfig.incoming.length > 0) {
        throw new Error(
          "The new options have -incoming, which the update adds itself: leave it out",
        );
      }
      const newOptions = carriedOptions(options);
      // -S is about the new VMM only where somebody asks for it.
      if (newConfig.startPaused) newOptions.push("-S");
      return { config: oldConfigOf(vmm) ?? newConfig, newConfig, newOptions };
    }
    const newOptions = carriedOptions(optionsOf(vmm.argv));
    const config = machineOf(newOptions, `The options of VMM ${vmm.pid}`);
    if (qmpServersOf(config).some((server) => isSame(server, address, vmm))) {
      return { config, newConfig: config, newOptions };
    }
    throw new Error(
      `The command line of VMM ${vmm.pid} does not show the socket '${this.#options.socket}': ` +
        "give the new VMM's options after '--'",
    );
  }

  /** Says what has become of the guest. */
  async #explain(error: unknown): Promise<UpdateError> {
    const { message } = error as Error;
    if (error instanceof GuestMoved) return new UpdateError(message, this.#known, error);
    const { oldPid } = this.#known;
    const reason = message === BUSY
      ? `Another update or migration of VMM ${oldPid} is under way: wait for its end`
      : message;
    const runState = await this.#withMonitor((qmp) => qmp.runState());
    if (runState === undefined) return new UpdateError(reason, this.#known, error);
    // After an exec that failed a helper may have it.
    const pid = this.#known.mode === "exec" ? this.#guestPid : oldPid;
    const where = runState !== "running"
      ? `the guest is in process ${pid}, ${runState}`
      : pid === oldPid
      ? `the guest still runs in process ${pid}`
      : `the guest runs on in process ${pid}, the update's helper`;
    const failure = { ...this.#known, runState, ...pid !== oldPid && { newPid: pid } };
    return new UpdateError(`${reason}; ${where}`, failure, error);
  }

  /** The process that answers now; the old VMM unless that is known to be another. */
  get #guestPid(): number | undefined {
    return this.#qmp && servingPid(this.#qmp.socket.fd) || this.#known.oldPid;
  }

  /** Does something with the old VMM's monitor, if that can be reached. */
  async #withMonitor<T>(action: (qmp: QmpClient) => Promise<T>): Promise<T | undefined> {
    const qmp = this.#qmp;
    if (!qmp || !this.#vmm) return undefined;
    try {
      return await action(qmp);
    } catch {
      // After an exec the connection is another one, and perhaps the process.
    }
    try {
      this.#qmp = await QmpClient.connect(parseSocket(this.#options.socket), this.#reactor);
      return await action(this.#qmp);
    } catch {
      return undefined;
    } finally {
      qmp[Symbol.dispose]();
    }
  }
}

/** Returns the run state. @throws {Error} if this is no VMM that has a guest to give */
async function checkVmm(qmp: QmpClient, name: string): Promise<string> {
  const { package: packageName } = await qmp.execute("query-version", replies.version);
  if (!packageName.startsWith("denovo-")) {
    throw new Error(`The VMM behind '${name}' is not Denovo, its version says '${packageName}'`);
  }
  const runState = await qmp.runState();
  if (inTransit.has(runState as RunState)) {
    throw new Error(`The VMM behind '${name}' has no guest to give, its run state is ${runState}`);
  }
  return runState;
}

/** @throws {Error} if a migration is under way, or something keeps the guest from moving */
async function checkMigration(qmp: QmpClient, inPlace: boolean) {
  const info = await qmp.migration();
  const { status, "blocked-reasons": blocked = [] } = info;
  if (inProgress.has(status as MigrationStatus)) {
    throw new Error(BUSY);
  }
  if (inPlace && blocked.length > 0) throw new Error(blocked.join("; "));
  return info;
}

/** Remembers migration settings. Returns what sets them again. */
async function rememberSettings(qmp: QmpClient): Promise<(qmp: QmpClient) => Promise<void>> {
  const { mode, "cpr-exec-command": command } = await qmp.execute(
    "query-migrate-parameters",
    replies.parameters,
  );
  const capabilities = await qmp.execute("query-migrate-capabilities", replies.capabilities);
  const changed = ["pause-before-switchover", "x-ignore-shared"];
  return async (monitor) => {
    const parameters = { mode, "cpr-exec-command": command };
    await monitor.execute("migrate-set-parameters", replies.nothing, parameters);
    await monitor.execute("migrate-set-capabilities", replies.nothing, {
      capabilities: capabilities.filter(({ capability }) => changed.includes(capability)),
    });
  };
}

/** The running VMM's configuration; undefined if its command line does not show it. */
function oldConfigOf(vmm: VmmProcess): MachineConfig | undefined {
  try {
    return machineOf(carriedOptions(optionsOf(vmm.argv)), "");
  } catch {
    return undefined;
  }
}

/** Where the new VMM's monitor is; the same socket as before if it has that. */
function newAddressOf(config: MachineConfig, vmm: VmmProcess, address: QmpAddress): QmpAddress {
  const servers = qmpServersOf(config);
  if (servers.length === 0) {
    throw new Error("The new options have no QMP socket that tells how the update went: add -qmp");
  }
  if (servers.some((server) => isSame(server, address, vmm))) return address;
  const [server] = servers;
  return server.family === "unix"
    ? { family: "unix", path: vmm.resolve(server.path) }
    : { family: "tcp", host: server.host || "127.0.0.1", port: server.port };
}

/** Whether a character device listens at an address. */
function isSame(server: Server, address: QmpAddress, vmm: VmmProcess): boolean {
  if (server.family === "tcp") return address.family === "tcp" && server.port === address.port;
  if (address.family === "tcp") return false;
  try {
    const [own, given] = [vmm.resolve(server.path), address.path].map((path) =>
      Deno.statSync(path)
    );
    return own.ino === given.ino && own.dev === given.dev;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Whether the software CPU will run a machine's guest: by its options, or as there is no KVM. */
function computes({ accelerators }: MachineConfig): boolean {
  return accelerators[0] === "tcg" || !existsSync("/dev/kvm");
}
