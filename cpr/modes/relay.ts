/**
 * The relayed cpr-exec: the guest waits in a helper while the VMM executes its successor.
 *
 * ```text
 * process P, old program        helper (the old program as well)      process P, new program
 *  |-- starts -------------------->|
 *  |<- asks for the guest ---------|
 *  |== cpr-transfer ==============>|  runs the guest
 *  |-- execs ----------------------------------------------------------->|
 *                                  |<---------- asks for the guest ------|
 *                                  |========== cpr-transfer ============>|  runs the guest
 *                                 ends                                   |
 * ```
 *
 * Both transfers are warm: the guest stands still for two short moments, and the start of the new
 * program lies in neither. P and the helper are joined by a socket, the *link*, which survives the
 * exec. Whoever wants the guest asks on it, and gets the two connections of a cpr-transfer. A new
 * program that cannot take the guest executes the old one, which asks again; if P ends instead, the
 * guest stays in the helper, which opens the monitors and says so.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import { isOpen, OwnedFd, setCloexec } from "../../ffi/fd.ts";
import { ChildProcess, PreparedExec, spawn } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { socketPair } from "../../ffi/socket.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { placement } from "../../vmm/threads/placement.ts";
import type { MigrationAddress } from "../channel/address.ts";
import { Channel } from "../channel/channel.ts";
import { openOutgoing } from "../channel/open.ts";
import type { Departure, Update } from "./departure.ts";
import { closeChannels, type RelayChannels, RelayLink } from "./relay_link.ts";
import { encodeStream, StateError } from "../stream/stream.ts";
import { sendTable, TransferUpdate } from "./transfer.ts";

/** Tells a process that it is part of a relay; JSON of {@linkcode RelayPart}. */
const RELAY = "DENOVO_CPR_RELAY";
/** Milliseconds that a helper has to come up. */
const HELPER_LIMIT_MS = 60_000;
/**
 * Milliseconds that a new program has to ask for the guest, which runs on meanwhile: a runtime that starts
 * on a busy host takes seconds. Less than `denovo update` waits for it, which shall hear of it.
 */
const TAKER_LIMIT_MS = 45_000;

/** What a process that is part of a relay is told by its environment. */
interface RelayPart {
  /** The link's descriptor. */
  readonly link: number;
  /** The helper's process id; absent in the helper itself. */
  readonly helper?: number;
  /** The command line to go back to; absent in the helper and where nothing is left to try. */
  readonly back?: readonly string[];
  /** Why the program before this one could not take the guest. */
  readonly failure?: string;
  /** Where the process may run; it begins off the guest's processors. */
  readonly processors: readonly number[];
}

/** A transfer to whoever has asked on a link. */
export function transferTo(
  departure: Departure,
  { cpr, main }: RelayChannels,
  options: { readonly announced: boolean },
): TransferUpdate {
  const { vm, ownership } = departure;
  return new TransferUpdate(departure, {
    cpr: () => sendTable(vm, cpr, ownership, "helper"),
    main: () => Promise.resolve(new Channel(main)),
  }, options);
}

/** A helper that is up and has asked for the guest. */
interface Helper {
  readonly child: ChildProcess;
  readonly link: RelayLink;
}

/**
 * Starts this program once more, to keep the guest while this process executes another.
 *
 * @throws {Error} that says why it did not come up; nothing is left of it
 */
async function startHelper(
  { reactor, commandLine }: VirtualMachine,
  cancel: AbortSignal,
): Promise<Helper> {
  const [own, theirs] = socketPair();
  const link = new RelayLink(own);
  let child: ChildProcess | undefined;
  try {
    using inherited = theirs;
    const part: RelayPart = { link: inherited.fd, processors: placement.allowed };
    child = spawn(commandLine, {
      env: { [RELAY]: JSON.stringify(part) },
      fds: [[inherited.fd, inherited.fd]],
    });
  } catch (error) {
    link[Symbol.dispose]();
    throw error;
  }
  try {
    const limit = AbortSignal.any([cancel, AbortSignal.timeout(HELPER_LIMIT_MS)]);
    if (!await link.asked(reactor, limit)) throw new Error("Helper of the relay has ended");
    return { child, link };
  } catch (error) {
    endHelper({ child, link });
    throw error;
  }
}

/** Ends a helper that has no guest. */
function endHelper({ child, link }: Helper): void {
  link[Symbol.dispose]();
  child.kill(9);
  child.wait();
  child[Symbol.dispose]();
}

/** One cpr-exec by way of a helper. */
export class RelayUpdate implements Update {
  /** The pause is over when `migrate` is answered. */
  readonly stopsFirst = false;
  readonly #departure: Departure;
  readonly #command: readonly string[];
  readonly #main: MigrationAddress;
  readonly #helper: Helper;
  readonly #channels: RelayChannels;
  readonly #transfer: TransferUpdate;
  #file: Channel | undefined;

  private constructor(
    departure: Departure,
    command: readonly string[],
    main: MigrationAddress,
    helper: Helper,
  ) {
    this.#departure = departure;
    this.#command = command;
    this.#main = main;
    this.#helper = helper;
    this.#channels = helper.link.grant();
    this.#transfer = transferTo(departure, this.#channels, { announced: false });
  }

  /**
   * Starts the helper that keeps the guest meanwhile.
   *
   * @param departure the VM that the guest leaves
   * @param command `cpr-exec-command`
   * @param main where the state goes as well: scripts expect it there
   * @throws {Error} that says why there is no helper; nothing is left of it
   */
  static async begin(
    departure: Departure,
    command: readonly string[],
    main: MigrationAddress,
  ): Promise<RelayUpdate> {
    const { vm } = departure;
    const helper = await startHelper(vm, departure.waiting.abort);
    try {
      return new RelayUpdate(departure, command, main, helper);
    } catch (error) {
      endHelper(helper);
      throw error;
    }
  }

  /** Moves the guest to the helper. */
  async prepare(): Promise<void> {
    this.#file = await openOutgoing(this.#main, this.#departure.fds, this.#departure.waiting);
    await this.#transfer.prepare();
    try {
      await this.#transfer.deliver();
    } catch (error) {
      if (this.#transfer.takeBack()) throw error;
      // The helper has the guest and could not say so in time: the new program asks there.
    }
  }

  /** Executes the command. Returns only by throwing, with the guest in the helper. */
  run(): Promise<void> {
    const { vm, migration } = this.#departure;
    const { link, child } = this.#helper;
    migration.activate();
    migration.status = "device";
    this.#writeFile();
    vm.setRunState("postmigrate");
    migration.complete();
    const part: RelayPart = {
      link: link.fd.fd,
      helper: child.pid,
      back: vm.commandLine,
      processors: placement.allowed,
    };
    const exec = new PreparedExec(this.#command, { [RELAY]: JSON.stringify(part) });
    setCloexec(link.fd.fd, false);
    this.#departure.ownership.timeline.stamp("exec");
    try {
      return exec.exec();
    } catch (error) {
      const reason = error instanceof OsError ? error.reason : String(error);
      vm.fail(
        `execvp ${this.#command[0]} failed: ${reason}; the guest runs on in process ${child.pid}`,
        true,
      );
      throw error;
    }
  }

  /** The state is where a script expects it, but nobody needs it: the guest is in the helper. */
  #writeFile(): void {
    const { vm } = this.#departure;
    try {
      const state = [...this.#departure.constants(), ...this.#transfer.sections];
      this.#file!.sink(encodeStream(state));
      this.#file!.finishNow();
    } catch (error) {
      vm.notice(
        `Could not write the state, which the relay does not need: ${(error as Error).message}`,
      );
    }
  }

  /** The swap back decides, unless the guest has never left. */
  takeBack(): boolean {
    const ours = this.#transfer.takeBack();
    if (ours) endHelper(this.#helper);
    return ours;
  }

  /** Closes what was for the helper. */
  [Symbol.dispose](): void {
    this.#transfer[Symbol.dispose]();
    closeChannels(this.#channels);
    this.#file?.[Symbol.dispose]();
  }
}

/** This process's part in a relay. */
export class Relay {
  readonly link: RelayLink;
  readonly #part: RelayPart;

  private constructor(part: RelayPart) {
    this.#part = part;
    setCloexec(part.link, true);
    this.link = new RelayLink(new OwnedFd(part.link));
  }

  /**
   * This process's part, if it has one. The environment variable is gone afterwards.
   *
   * @throws {StateError} if what it says makes no sense
   */
  static fromEnvironment(): Relay | undefined {
    const text = Deno.env.get(RELAY);
    if (text === undefined) return undefined;
    Deno.env.delete(RELAY);
    let part: RelayPart;
    try {
      part = Object(JSON.parse(text));
    } catch {
      throw new StateError(`${RELAY}=${text} is not JSON`);
    }
    if (!Number.isInteger(part.link) || part.link <= 2 || !isOpen(part.link)) {
      throw new StateError(`${RELAY}=${text} names no open file descriptor`);
    }
    if (!Array.isArray(part.processors) || !part.processors.every(Number.isInteger)) {
      throw new StateError(`${RELAY}=${text} names no processors`);
    }
    placement.inherit(part.processors);
    return new Relay(part);
  }

  /** Whether this process is the helper. */
  get isHelper(): boolean {
    return this.#part.helper === undefined;
  }

  /** Why the program before this one could not take the guest, if it came to that. */
  get failure(): string | undefined {
    return this.#part.failure;
  }

  /** Executes the program before this one, which asks for the guest again, if there is one. */
  goBack(reason: string): void {
    const { link, helper, back } = this.#part;
    if (!back) return;
    const part: RelayPart = { link, helper, failure: reason, processors: placement.allowed };
    const exec = new PreparedExec(back, { [RELAY]: JSON.stringify(part) });
    setCloexec(link, false);
    exec.exec();
  }

  /**
   * The helper's part: gives the guest to whoever asks for it.
   *
   * @param give moves the guest; false if that failed and the guest is still here
   * @returns undefined when the guest has left, or why nobody will take it any more
   */
  async giveAway(
    reactor: Reactor,
    give: (channels: RelayChannels) => Promise<boolean>,
  ): Promise<string | undefined> {
    using link = this.link;
    for (;;) {
      try {
        if (!await link.asked(reactor, AbortSignal.timeout(TAKER_LIMIT_MS))) {
          return "cpr-exec failed: the new program has ended";
        }
      } catch {
        return `cpr-exec failed: the new program does not come up within ${
          TAKER_LIMIT_MS / 1000
        } s`;
      }
      if (await this.#giveOnce(give)) return undefined;
    }
  }

  /** Who asked may have ended since, at any moment: the guest stays, and the link says it next. */
  async #giveOnce(give: (channels: RelayChannels) => Promise<boolean>): Promise<boolean> {
    let channels: RelayChannels | undefined;
    try {
      channels = this.link.grant();
      return await give(channels);
    } catch {
      return false;
    } finally {
      if (channels) closeChannels(channels);
    }
  }

  /** The guest has arrived in its new program: the helper ends, and is waited for. */
  arrived(reactor: Reactor): void {
    const { helper } = this.#part;
    if (helper === undefined) return;
    this.link[Symbol.dispose]();
    const child = new ChildProcess(helper);
    reactor.add(child.pidfd.fd, Epoll.IN, () => {
      reactor.remove(child.pidfd.fd);
      child.wait();
      child[Symbol.dispose]();
    });
  }
}
