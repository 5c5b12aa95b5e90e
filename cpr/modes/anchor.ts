/**
 * The anchored cpr-exec: the guest runs on while its process executes the next program.
 *
 * ```text
 * process P, old program        anchor                        process P, new program
 *  |-- clones ------------------->|
 *  |  parks the vCPUs
 *  |== ownership: HANDED_OVER ===>|  runs the guest
 *  |-- execs ------------------------------------------------------->|
 *                                 |                                  |  builds and rehearses
 *                                 |<---------------- stops the vCPUs |
 *                                 |<- serves what waits, reads state |
 *                                 |   ownership: NEW, runs the guest |
 *                                ends                                |
 * ```
 *
 * The anchor (`ffi/anchor.ts`) shares the memory map of the old program, in which the VM is, so nothing
 * moves when it takes the vCPUs over. It has no devices: a vCPU that touches one waits until the new
 * program serves it. It ends with P, whatever P is by then; and if nobody has taken the guest after
 * {@linkcode ANCHOR_LIMIT_MS}, the guest stands still until somebody does.
 *
 * A new program that cannot take the guest executes the old one, which takes it out of the anchor in the
 * same way.
 *
 * @module
 */
import type { Anchor } from "../../ffi/anchor.ts";
import { monotonicNow } from "../../ffi/event.ts";
import { duplicate, makePipe, type OwnedFd, writeAll } from "../../ffi/fd.ts";
import type { PreparedExec } from "../../ffi/process.ts";
import { ThreadUsage } from "../../ffi/usage.ts";
import { startAnchor } from "../../vmm/accel/kvm/anchored.ts";
import { ExitServer } from "../../vmm/threads/exit_server.ts";
import { parkAll, parkServants } from "../../vmm/threads/machine_thread.ts";
import { placement, vcpuThreads } from "../../vmm/threads/placement.ts";
import { vhostUserConfigs } from "../../vmm/vhost_user_set.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { MigrationAddress } from "../channel/address.ts";
import type { Channel } from "../channel/channel.ts";
import { openOutgoing } from "../channel/open.ts";
import { anchorFds, devicesStream } from "../handover/anchored_guest.ts";
import { collectHandover } from "../handover/handover.ts";
import { Owner } from "../handover/ownership.ts";
import { checkUndecided } from "../pause/pause.ts";
import { DevicesState } from "../state/devices_state.ts";
import { encodeStream } from "../stream/stream.ts";
import type { Departure, Update } from "./departure.ts";
import { encodeTable, execFailure, keepOverExec, prepareExec } from "./exec.ts";

/**
 * Milliseconds for which a guest may run without a VMM, from the making of the anchor on: a runtime that
 * starts on a busy host takes seconds.
 */
export const ANCHOR_LIMIT_MS = 60_000;

const usage = new ThreadUsage();

/** How many files a VM and its runtime open beyond those that are counted, and some more. */
const ROOM = 32;

/** Why a guest cannot be anchored, if so; one that does not run needs no anchor. */
export function whyNotAnchored(
  { config, machine, blocks }: VirtualMachine,
): string | undefined {
  if (machine.accelerator.name !== "kvm") return `it needs KVM, not ${machine.accelerator.title}`;
  if (machine.hasPcie) return "it does not go with -machine pcie=on";
  if (vhostUserConfigs(config).length > 0) return "it does not go with vhost-user devices";
  // The kernel serves it by this process's memory map and number, which the next program has to ask for.
  const isVhost = ({ driver }: { readonly driver: string }) => driver.startsWith("vhost-vsock-");
  if (config.devices.some(isVhost)) return "it does not go with vhost-vsock devices";
  if (blocks.leavesFiles) return "it does not go with disk images that have cpr=off";
  return config.machine.xPauseClock ? "it does not go with x-pause-clock" : undefined;
}

/**
 * The next program has open what this one has, all of it twice as long as there is a way back, the anchor,
 * and what it rehearses on. It is better to fail for that here than there.
 *
 * @throws {OsError} if this process may not open as many files
 */
function checkRoom(vcpus: number): void {
  const open = [...Deno.readDirSync("/proc/self/fd")];
  using files = new DisposableStack();
  const [one] = makePipe().map((end) => files.use(end));
  for (let i = 0; i < open.length + 3 * vcpus + ROOM; i++) files.use(duplicate(one.fd));
}

/** One cpr-exec under which the guest runs on. */
export class AnchorUpdate implements Update {
  /** The guest goes on at once. */
  readonly stopsFirst = false;
  readonly #departure: Departure;
  readonly #command: readonly string[];
  readonly #main: MigrationAddress;
  readonly #opened = new DisposableStack();
  #file: Channel | undefined;
  #devices: DevicesState | undefined;
  #state: OwnedFd | undefined;
  #exec: PreparedExec | undefined;
  #anchor: Anchor | undefined;

  /**
   * @param departure the VM that the guest leaves
   * @param command `cpr-exec-command`
   * @param main what the new program is told of as its source; no state is written there
   */
  constructor(departure: Departure, command: readonly string[], main: MigrationAddress) {
    this.#departure = departure;
    this.#command = command;
    this.#main = main;
  }

  /** Makes all that the pause needs. The command has been asked whether it would take the guest. */
  async prepare(): Promise<void> {
    const { vm, vm: { machine }, fds, waiting } = this.#departure;
    this.#file = this.#opened.use(await openOutgoing(this.#main, fds, waiting));
    ({ state: this.#state, exec: this.#exec } = prepareExec(this.#command));
    this.#opened.adopt(this.#state, (state) => state.close());
    this.#devices = new DevicesState(machine.devices);
    checkRoom(machine.vcpus.length);
    this.#anchor = startAnchor(machine.hardware, vcpuThreads(vm), ANCHOR_LIMIT_MS);
    this.#departure.ownership.timeline.stamp("rehearsed");
  }

  /** Gives the guest to the anchor and becomes the successor. Returns only by throwing. */
  run(): Promise<void> {
    this.#departure.migration.commit();
    this.#handOver();
    return this.#become();
  }

  /** The pause: the vCPUs stop here and go on in the anchor. */
  #handOver(): void {
    const departure = this.#departure;
    const { vm, vm: { machine }, ownership } = departure;
    const { timeline } = ownership;
    if (!vm.running) throw new Error("The guest has been stopped meanwhile: try again");
    vm.events.hold();
    usage.begin();
    let stoppedNs: number | undefined;
    try {
      parkServants(machine.threads);
      const now = monotonicNow();
      timeline.stamp("stop", now);
      parkAll(machine.threads);
      stoppedNs = now;
      checkUndecided(machine.threads);
      timeline.stamp("parked");
      // From here on only the winner of the next swap may stop or run the guest.
      if (!ownership.swap(Owner.OLD, Owner.HANDED_OVER)) throw new Error("The guest is not here");
      this.#anchor!.resume(machine.vcpus.map(({ hardware }) => hardware.run));
      timeline.stamp("handed-over");
      for (const { index } of machine.vcpus) {
        this.#anchor!.awaitEntry(index);
        timeline.stamp("entered", monotonicNow(), index);
      }
      usage.end();
      timeline.noteUsage(usage);
    } finally {
      if (stoppedNs !== undefined) departure.noteStop({ wasRunning: true, stoppedNs });
      vm.events.release();
    }
  }

  /** The guest runs on: there is time. */
  #become(): never {
    const { vm, migration, ownership } = this.#departure;
    const { timeline } = ownership;
    migration.activate();
    migration.status = "device";
    const devices = this.#devices!;
    devices.save();
    const constants = this.#departure.constants();
    const bytes = devicesStream(constants, devices);
    timeline.stamp("saved");
    // What there is to know so far; the state of a guest that runs on is nowhere but in the guest.
    this.#file!.sink(encodeStream(constants));
    this.#file!.finishNow();
    migration.transferred = bytes.length;
    migration.complete();
    const handed = collectHandover(vm, ownership, "same process");
    const handover = { ...handed, fds: [...handed.fds, ...anchorFds(this.#anchor!)] };
    const state = this.#state!;
    writeAll(
      state.fd,
      encodeTable(vm.commandLine, handover, bytes, { processors: placement.allowed }),
    );
    timeline.stamp("sent");
    keepOverExec(handover, state, true);
    try {
      timeline.stamp("exec");
      return this.#exec!.exec();
    } catch (error) {
      keepOverExec(handover, state, false);
      throw execFailure(this.#command, error);
    }
  }

  /** Whoever still runs this code has not become another: the guest comes back from the anchor. */
  takeBack(): boolean {
    const { vm: { machine }, ownership } = this.#departure;
    const anchor = this.#anchor;
    if (!anchor || ownership.owner === Owner.OLD) return true;
    const pages = machine.vcpus.map(({ hardware }) => hardware.run);
    try {
      anchor.stop(pages);
    } catch {
      // The VM is this process's own, and all of the guest is in it: the anchor need not be there.
      anchor.end();
    }
    const server = new ExitServer(machine, machine.hardware.vm.interrupts);
    // Their own threads complete the accesses when they enter the guest.
    pages.forEach((page, i) => anchor.waits(i, page) && server.serve(i, page));
    return ownership.swap(Owner.HANDED_OVER, Owner.OLD);
  }

  /** Ends the anchor, which has no guest, and closes what was for the successor. */
  [Symbol.dispose](): void {
    this.#anchor?.end();
    this.#anchor?.[Symbol.dispose]();
    this.#opened.dispose();
  }
}
