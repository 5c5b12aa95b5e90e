/**
 * One VM from the start of the program to its end: what happens in which order.
 *
 * The guest's first instruction waits for as little as can be: monitors are loaded behind it.
 *
 * @module
 */
import type { OwnedFd } from "../ffi/fd.ts";
import { giveBackFreeMemory } from "../ffi/memory.ts";
import type { MachineConfig, MonitorConfig } from "../vmm/config.ts";
import { daemonIsUp, takeReadyFd, takeUpdateOutput, watchParent } from "../vmm/daemon.ts";
import { openLog } from "../vmm/log_file.ts";
import { stampMessage } from "../vmm/messages.ts";
import { Pidfile } from "../vmm/pidfile.ts";
import { listenForSignals } from "../vmm/signals.ts";
import { threadsAtATime } from "../vmm/threads/machine_thread.ts";
import { placement } from "../vmm/threads/placement.ts";
import { startSpareThreads } from "../vmm/threads/vcpu.ts";
import { MachineView } from "../vmm/view/machine_view.ts";
import { VirtualMachine } from "../vmm/virtual_machine.ts";
import { Cpr } from "./cpr.ts";
import type { ExpectedGuest, Origin } from "./origin.ts";

/** A signal asked the process to end before there was a VM. */
export class Terminated extends Error {}

/** A VM without its guest, and what came with it. */
interface Created {
  readonly vm: VirtualMachine;
  /** The guest that comes from somewhere; undefined if it boots. */
  readonly expected: ExpectedGuest | undefined;
  /** No longer ends the VM on a signal. */
  readonly ignoreSignals: () => void;
}

/** Who waits for this process to be up. */
interface Waiters {
  /** The descriptor on which the parent of a daemon waits. */
  readonly ready: OwnedFd | undefined;
  /** Leaves the output of the update that started this process. */
  readonly useOwnOutput: (() => void) | undefined;
}

/** One VM on its way. */
export class Arrival {
  readonly #origin: Origin;
  readonly #vm: VirtualMachine;
  readonly #expected: ExpectedGuest | undefined;
  readonly #waiters: Waiters;
  readonly #view: MachineView;
  readonly #cpr: Cpr;

  private constructor(origin: Origin, { vm, expected }: Created, waiters: Waiters) {
    this.#origin = origin;
    this.#vm = vm;
    this.#expected = expected;
    this.#waiters = waiters;
    this.#view = new MachineView(vm);
    this.#cpr = new Cpr(vm, this.#view.fds, expected?.received, () => this.#guestIsHere());
  }

  /**
   * Runs one VM from its start, or from its predecessor's state, to its end.
   *
   * @returns the exit status
   * @throws {Terminated} if a signal ended it before there was a VM
   * @throws {Error} that says why there is no VM, or why it ended without its guest
   */
  static async run(config: MachineConfig, origin: Origin): Promise<number> {
    const { enabled, resourceControl } = config.sandbox;
    if (enabled && !resourceControl) placement.forbid();
    startSpareThreads(Math.min(config.smp.cpus, threadsAtATime));
    const waiters = { ready: takeReadyFd(), useOwnOutput: takeUpdateOutput() };
    const created = await createVm(config, origin);
    const { vm, ignoreSignals } = created;
    try {
      if (waiters.ready) watchParent(vm.reactor, waiters.ready, () => vm.quit("host-signal"));
      await new Arrival(origin, created, waiters).#bringUp().catch((error) => {
        // Whatever fails because the VM has ended meanwhile is of no interest.
        if (!vm.ending.aborted) throw error;
      });
      const status = await vm.exited;
      // The monitor that was told to quit has a reply to write.
      await new Promise((resolve) => setTimeout(resolve, 0));
      if (vm.failure !== undefined) throw new Error(vm.failure);
      return status;
    } finally {
      ignoreSignals();
      await vm.close();
    }
  }

  /** From a machine to a VM that is up: the guest, monitors, devices, and whoever waits for that. */
  async #bringUp(): Promise<void> {
    const vm = this.#vm;
    const { isHelper } = this.#origin;
    const { monitors } = vm.config;
    // A helper has only those monitors whose connections pass through it, until it has to stay.
    const passes = ({ chardev }: MonitorConfig) => vm.chardevs.keeps(chardev) === "all";
    if (isHelper) vm.chardevs.holdMonitors("everything");
    // A client that came along with the guest hears of its arrival, when its monitor is there.
    vm.events.hold();
    if (!isHelper) await this.#beginGuest();
    const openMonitors = await this.#loadMonitors();
    openMonitors(monitors.filter((one) => !isHelper || passes(one)));
    vm.events.release();
    vm.attachDevices();
    if (isHelper) {
      await this.#origin.help(vm, this.#cpr);
      openMonitors(monitors.filter((one) => !passes(one)));
    }
    vm.ending.throwIfAborted();
    if (isHelper || !vm.pidfile?.inherited) vm.pidfile?.write();
    if (this.#waiters.ready) daemonIsUp(vm.reactor, this.#waiters.ready);
    // What it took to read and compile the program will not be wanted again.
    await giveBackFreeMemory();
  }

  /** Lets the guest boot, takes it, or begins to wait for it. */
  async #beginGuest(): Promise<void> {
    const vm = this.#vm;
    if (this.#expected) {
      const { incoming } = this.#expected;
      return this.#origin.begin(vm, this.#cpr, incoming, this.#waiters.useOwnOutput);
    }
    await vm.chardevs.waitForClients(vm.ending);
    vm.start();
  }

  /** The guest has come, and runs if it ran. */
  #guestIsHere(): void {
    const vm = this.#vm;
    this.#origin.arrived(vm);
    if (!this.#expected?.received || this.#origin.isHelper) return;
    // A pidfile that a predecessor passed names that until the guest is here to stay.
    try {
      vm.pidfile?.write();
    } catch (error) {
      // The guest runs here all the same.
      vm.notice((error as Error).message);
    }
  }

  /**
   * Loads the monitors' code.
   *
   * @returns opens monitors, at once: a monitor that shares a console greets when its turn comes, which
   *   must not be before the console's device is there
   */
  async #loadMonitors(): Promise<(configs: readonly MonitorConfig[]) => void> {
    const [vm, view, cpr] = [this.#vm, this.#view, this.#cpr];
    if (vm.config.monitors.length === 0) return () => {};
    const { openGdb } = vm.config.monitors.some(isGdb)
      ? await import("../vmm/gdb/server.ts")
      : { openGdb: () => {} };
    const { openMonitors } = await import("../vmm/monitor/monitors.ts");
    const { builtinCommands } = await import("../vmm/monitor/builtin_commands.ts");
    const table = builtinCommands();
    (await import("./commands/commands.ts")).registerMigration(table, cpr);
    const { executeAlone } = await import("../vmm/monitor/hmp_line.ts");
    view.monitorLine = (line) => executeAlone(view, table, line);
    const sessionState = vm.chardevs.hasFrontendStates
      ? (await import("../vmm/monitor/schema/session.ts")).sessionState
      : undefined;
    return (configs) => {
      if (vm.runState === "shutdown") return;
      const monitors = configs.filter((config) => !isGdb(config));
      openMonitors(monitors, { chardevs: vm.chardevs, machine: view, table, sessionState });
      for (const { chardev } of configs.filter(isGdb)) openGdb(vm, chardev, view.monitorLine);
    };
  }
}

function isGdb({ mode }: MonitorConfig): boolean {
  return mode === "gdb";
}

/** Creates the VM, with what a predecessor passes; a signal ends every wait on the way. */
async function createVm(options: MachineConfig, origin: Origin): Promise<Created> {
  const end = new AbortController();
  // The guest of a process that goes on where another was is on its way already: before it is here a
  // signal ends the process alone.
  const ignoreEarly = origin.inPlace
    ? () => {}
    : listenForSignals(options, (signal) => end.abort(new Terminated(signal)));
  let pidfile: Pidfile | undefined;
  try {
    const expected = await origin.receive(options, end.signal);
    const inheritance = expected?.received?.inheritance;
    pidfile = Pidfile.takeOver(options.pidfile, inheritance);
    // The guest only passes through a helper: it goes on as it was.
    const config = origin.isHelper ? { ...options, startPaused: false } : options;
    const log = config.logfile === undefined
      ? console.error
      : await openLog(config.logfile, expected !== undefined, end.signal);
    const vm = await VirtualMachine.create(config, {
      incoming: expected !== undefined,
      inheritance,
      abort: end.signal,
      detached: true,
      notice: (text) => log(stampMessage(config, text)),
    });
    const ignoreSignals = listenForSignals(config, () => vm.quit("host-signal"));
    vm.pidfile = pidfile;
    if (end.signal.aborted) vm.quit("host-signal");
    return { vm, expected, ignoreSignals };
  } catch (error) {
    pidfile?.[Symbol.dispose]();
    throw error;
  } finally {
    ignoreEarly();
  }
}
