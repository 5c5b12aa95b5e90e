/**
 * Denovo: a KVM virtual machine monitor that can be replaced under a running guest.
 *
 * As a program it takes QEMU's options: `deno run -A mod.ts -kernel vmlinux -nographic`; with `update`
 * as the first word it replaces a running VMM: `deno run -A mod.ts update -qmp qmp.sock`. As a
 * library it gives {@linkcode VirtualMachine} and {@linkcode updateVmm}.
 *
 * @example Run a guest and read its console
 * ```ts
 * import { VirtualMachine } from "./mod.ts";
 * import { programs } from "./tests/guests/programs.ts";
 *
 * const kernel = await Deno.makeTempFile();
 * await Deno.writeFile(kernel, programs.hello.bytes);
 * {
 *   await using vm = await VirtualMachine.create({ kernel, memory: 64 << 20 });
 *   vm.events.subscribe((event) => console.log(event.name));
 *   vm.start();
 *   let text = "";
 *   for await (const part of vm.console.readable.pipeThrough(new TextDecoderStream())) {
 *     text += part;
 *     if (text.includes("\n")) break;
 *   }
 *   vm.stop();
 *   if (!text.startsWith("hello from denovo")) throw new Error(`The guest said: ${text}`);
 * }
 * await Deno.remove(kernel);
 * ```
 *
 * @module
 */
import { deviceTypes } from "./devices/registry.ts";
import { terminationSignals } from "./devices/chardev/raw_terminal.ts";
import { Cpr } from "./cpr/cpr.ts";
import { Arrival } from "./cpr/arrival.ts";
import { answerPreflight, isPreflight } from "./cpr/modes/preflight.ts";
import type { Received } from "./cpr/handover/incoming.ts";
import { GuestEnded } from "./cpr/modes/relay_link.ts";
import type { UpdateOptions, UpdateResult } from "./cpr/update/update.ts";
import { awaitReader, O, openFile, writeAll } from "./ffi/fd.ts";
import { encodeText } from "./ffi/text.ts";
import type { MachineConfig, MonitorConfig } from "./vmm/config.ts";
import {
  daemonIsUp,
  isDaemonChild,
  ownArguments,
  startDaemon,
  takeReadyFd,
  takeUpdateOutput,
  watchParent,
} from "./vmm/daemon.ts";
import { MachineView } from "./vmm/view/machine_view.ts";
import { stampMessage } from "./vmm/messages.ts";
import { Pidfile } from "./vmm/pidfile.ts";
import { denovoVersion } from "./vmm/monitor/version.ts";
import { optionsHelp, parseCommandLine, type Request } from "./vmm/options/command_line.ts";
import { placement } from "./vmm/threads/placement.ts";
import { threadsAtATime } from "./vmm/threads/machine_thread.ts";
import { endSpareThreads, startSpareThreads } from "./vmm/threads/vcpu.ts";
import { VirtualMachine } from "./vmm/virtual_machine.ts";

export type {
  ActionConfig,
  BlockNodeConfig,
  BootConfig,
  ChardevConfig,
  CpuConfig,
  DeviceConfig,
  DriveConfig,
  FirmwareFileConfig,
  LoaderConfig,
  MachineConfig,
  MachineTypeConfig,
  MemoryBackendConfig,
  MonitorConfig,
  NetdevConfig,
  SmpConfig,
} from "./vmm/config.ts";
export { defaultConfig } from "./vmm/config.ts";
export type { VmEvent, VmEventListener } from "./vmm/events.ts";
export { EventHub } from "./vmm/events.ts";
export { type RunState, runStates } from "./vmm/run_state.ts";
export type {
  BlockNodeCommon,
  ErrorAction,
  FileNodeConfig,
  NullNodeConfig,
  RawNodeConfig,
} from "./devices/block/config.ts";
export type {
  DgramConfig,
  HostForward,
  NetAddress,
  NetdevCommon,
  StreamConfig,
  TapConfig,
  UserConfig,
} from "./devices/net/config.ts";
export type { Console } from "./vmm/console.ts";
export type {
  ChardevCommon,
  FdConfig,
  FileConfig,
  NullConfig,
  PipeConfig,
  PtyConfig,
  SocketConfig,
  SocketEndpoint,
  StdioConfig,
} from "./devices/chardev/config.ts";
export type { ChardevState, Held } from "./devices/chardev/backend.ts";
export type { PropertyValue } from "./devices/device.ts";
export type { CreateOptions } from "./vmm/virtual_machine.ts";
export type {
  TimelineStep,
  UpdateError,
  UpdateFailure,
  UpdateMode,
  UpdateOptions,
  UpdateResult,
} from "./cpr/update/update.ts";
export { VirtualMachine };

/**
 * Replaces the VMM of a running guest on this host, in another process, by this version of Denovo.
 *
 * @example Update a VMM that listens on a QMP socket
 * ```ts
 * import { updateVmm } from "./mod.ts";
 *
 * async function update(socket: string): Promise<void> {
 *   const { newPid, pauseUs } = await updateVmm({ socket, onProgress: console.log });
 *   console.log(`process ${newPid} has the guest, which stood still for ${pauseUs} µs`);
 * }
 * ```
 *
 * @param options which VMM, and how
 * @returns what was done; the guest is in its new VMM
 * @throws {UpdateError} with the reason, and what has become of the guest
 */
export async function updateVmm(options: UpdateOptions): Promise<UpdateResult> {
  return await (await import("./cpr/update/update.ts")).updateVmm(options);
}

/**
 * The program: QEMU's options in, exit status out. `update` as the first word is the command that
 * replaces a running VMM; `state` prints the state that was saved in a file.
 *
 * @param args the options
 * @returns the exit status; errors go to stderr, one line each
 */
export async function main(args: readonly string[]): Promise<number> {
  if (args[0] === "update") {
    return (await import("./cpr/update/cli.ts")).updateCommand(args.slice(1));
  }
  if (args[0] === "state") {
    return (await import("./cpr/state/state_dump.ts")).printState(args.slice(1));
  }
  const parse = () => parseCommandLine([...args], deviceTypes);
  if (isPreflight()) return answerPreflight(() => parse().config);
  let arrival: Arrival | undefined;
  let known: MachineConfig | undefined;
  try {
    arrival = Arrival.fromEnvironment();
    const { config, request } = parse();
    if (request) return await printRequest(request);
    known = config;
    if (config.daemonize && !arrival.inPlace && !isDaemonChild()) return startDaemon();
    return await runMachine(config, arrival);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    endSpareThreads();
    if (error instanceof Terminated) return 0;
    console.error(stampMessage(known, `denovo: ${error.message}`));
    if (error instanceof GuestEnded) return error.status;
    arrival?.goBack(error.message);
    return 1;
  }
}

/** A signal asked the process to end before there was a VM. */
class Terminated extends Error {}

async function printRequest(request: Request): Promise<number> {
  switch (request.kind) {
    case "help":
      console.log(optionsHelp());
      return 0;
    case "version":
      console.log(`Denovo virtual machine monitor version ${denovoVersion}`);
      return 0;
    case "cpu-help":
      console.log((await import("./vmm/cpu/help.ts")).cpuHelp());
      return 0;
    default:
      console.log(request.text);
      return 0;
  }
}

/** Runs one VM from its start, or from its predecessor's state, to its end. */
async function runMachine(options: MachineConfig, arrival: Arrival): Promise<number> {
  const { enabled, resourceControl } = options.sandbox;
  if (enabled && !resourceControl) placement.forbid();
  startSpareThreads(Math.min(options.smp.cpus, threadsAtATime));
  const ready = takeReadyFd();
  const useOwnOutput = takeUpdateOutput();
  const { vm, received, signals } = await createMachine(options, arrival);
  if (ready) watchParent(vm.reactor, ready, () => vm.quit("host-signal"));
  const bringUp = async () => {
    if (arrival.isHelper) vm.chardevs.holdMonitors("everything");
    const view = new MachineView(vm);
    const cpr = new Cpr(vm, view.fds, received);
    // A client that came along with the guest hears of its arrival, when its monitor is there.
    vm.events.hold();
    if (!arrival.expected) {
      await vm.chardevs.waitForClients(vm.ending);
      vm.start();
    } else if (!arrival.isHelper) await arrival.begin(vm, cpr, useOwnOutput);
    const { monitors } = vm.config;
    const openMonitors = await loadMonitors(vm, view, cpr);
    // A helper has only those monitors whose connections pass through it, until it has to stay.
    const passes = ({ chardev }: MonitorConfig) => vm.chardevs.keeps(chardev) === "all";
    openMonitors(monitors.filter((one) => !arrival.isHelper || passes(one)));
    vm.events.release();
    vm.attachDevices();
    if (arrival.isHelper) {
      await arrival.help(vm, cpr);
      openMonitors(monitors.filter((one) => !passes(one)));
    }
    vm.ending.throwIfAborted();
    if (arrival.isHelper || !vm.pidfile?.inherited) vm.pidfile?.write();
    if (ready) daemonIsUp(vm.reactor, ready);
  };
  try {
    // Whatever fails because the VM has ended meanwhile is of no interest.
    await bringUp().catch((error) => {
      if (!vm.ending.aborted) throw error;
    });
    const status = await vm.exited;
    // The monitor that was told to quit has a reply to write.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (vm.failure !== undefined) throw new Error(vm.failure);
    return status;
  } finally {
    signals();
    await vm.close();
  }
}

/** A VM, and what came with it. */
interface Created {
  readonly vm: VirtualMachine;
  readonly received: Received | undefined;
  /** No longer ends the VM on a signal. */
  readonly signals: () => void;
}

/** Creates the VM, with what a predecessor passes; a signal ends every wait on the way. */
async function createMachine(options: MachineConfig, arrival: Arrival): Promise<Created> {
  const end = new AbortController();
  // The guest of a process that goes on where another was is on its way already: before it is here a
  // signal ends the process alone.
  const early = arrival.inPlace
    ? () => {}
    : listenForSignals(options, (signal) => end.abort(new Terminated(signal)));
  let pidfile: Pidfile | undefined;
  try {
    const received = withPidfile(await arrival.receive(options, end.signal), arrival);
    pidfile = Pidfile.takeOver(options.pidfile, received?.inheritance);
    // The guest only passes through a helper: it goes on as it was.
    const config = arrival.isHelper ? { ...options, startPaused: false } : options;
    const log = config.logfile === undefined
      ? undefined
      : await openLog(config.logfile, arrival.expected, end.signal);
    const vm = await VirtualMachine.create(config, {
      incoming: arrival.expected,
      inheritance: received?.inheritance,
      abort: end.signal,
      detached: true,
      notice: (text) => (log ?? console.error)(stampMessage(config, text)),
    });
    const signals = listenForSignals(config, () => vm.quit("host-signal"));
    vm.pidfile = pidfile;
    if (end.signal.aborted) vm.quit("host-signal");
    return { vm, received, signals };
  } catch (error) {
    pidfile?.[Symbol.dispose]();
    throw error;
  } finally {
    early();
  }
}

/** A pidfile that a predecessor passes names it until the guest is here to stay. */
function withPidfile(received: Received | undefined, arrival: Arrival): Received | undefined {
  if (!received || arrival.isHelper) return received;
  const onArrival = (vm: VirtualMachine) => {
    received.onArrival?.(vm);
    try {
      vm.pidfile?.write();
    } catch (error) {
      // The guest runs here all the same.
      vm.notice((error as Error).message);
    }
  };
  return { ...received, onArrival };
}

/**
 * Monitors are loaded after the guest runs: its first instruction does not wait for them.
 *
 * @returns opens monitors, at once: a monitor that shares a console greets when its turn comes, which
 *   must not be before the console's device is there
 */
async function loadMonitors(
  vm: VirtualMachine,
  view: MachineView,
  cpr: Cpr,
): Promise<(configs: readonly MonitorConfig[]) => void> {
  if (vm.config.monitors.length === 0) return () => {};
  const { openGdb } = vm.config.monitors.some(isGdb)
    ? await import("./vmm/gdb/server.ts")
    : { openGdb: () => {} };
  const { openMonitors } = await import("./vmm/monitor/monitors.ts");
  const { builtinCommands } = await import("./vmm/monitor/builtin_commands.ts");
  const table = builtinCommands();
  (await import("./cpr/commands/commands.ts")).registerMigration(table, cpr);
  const sessionState = vm.chardevs.hasFrontendStates
    ? (await import("./vmm/monitor/schema/session.ts")).sessionState
    : undefined;
  return (configs) => {
    if (vm.runState === "shutdown") return;
    const monitors = configs.filter((config) => !isGdb(config));
    openMonitors(monitors, { chardevs: vm.chardevs, machine: view, table, sessionState });
    for (const { chardev } of configs.filter(isGdb)) openGdb(vm, chardev);
  };
}

function isGdb({ mode }: MonitorConfig): boolean {
  return mode === "gdb";
}

/** A successor goes on with its predecessor's file. */
async function openLog(
  path: string,
  append: boolean,
  abort: AbortSignal,
): Promise<(text: string) => void> {
  await awaitReader(path, abort);
  const write = (text: string, flags: number) => {
    using file = openFile(path, O.WRONLY | O.CREAT | flags);
    writeAll(file.fd, encodeText(text));
  };
  write("", append ? O.APPEND : O.TRUNC);
  return (text) => write(`${text}\n`, O.APPEND);
}

/** SIGINT, SIGTERM and SIGHUP end the VM as QEMU's do. Returns what takes the listeners away. */
function listenForSignals(config: MachineConfig, end: (signal: string) => void): () => void {
  const listeners = terminationSignals.map((signal) => {
    const listener = () => {
      console.error(stampMessage(config, `denovo: terminating on signal ${signal}`));
      end(signal);
    };
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((remove) => remove());
}

if (import.meta.main) {
  Deno.exitCode = await main(ownArguments());
  // The child of a preflight ends by itself: what it has compiled is kept then.
  if (!isPreflight()) Deno.exit();
}
