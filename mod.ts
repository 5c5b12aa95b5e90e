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
import { Arrival, Terminated } from "./cpr/arrival.ts";
import { answerPreflight, isPreflight } from "./cpr/modes/preflight.ts";
import { GuestEnded } from "./cpr/modes/relay_link.ts";
import { Origin } from "./cpr/origin.ts";
import type { UpdateOptions, UpdateResult } from "./cpr/update/update.ts";
import { deviceTypes } from "./devices/registry.ts";
import type { MachineConfig } from "./vmm/config.ts";
import { isDaemonChild, ownArguments, startDaemon } from "./vmm/daemon.ts";
import { stampMessage } from "./vmm/messages.ts";
import { denovoVersion } from "./vmm/monitor/version.ts";
import { optionsHelp, parseCommandLine, type Request } from "./vmm/options/command_line.ts";
import { endSpareThreads } from "./vmm/threads/vcpu.ts";
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
  IoThreadConfig,
  LoaderConfig,
  MachineConfig,
  MachineTypeConfig,
  MemoryBackendConfig,
  MonitorConfig,
  NetdevConfig,
  RngConfig,
  SmpConfig,
  ThrottleGroupConfig,
} from "./vmm/config.ts";
export { defaultConfig } from "./vmm/config.ts";
export type { VmEvent, VmEventListener } from "./vmm/events.ts";
export { EventHub } from "./vmm/events.ts";
export { type RunState, runStates } from "./vmm/run_state.ts";
export type { Limit, LimitName, ThrottleLimits } from "./devices/block/throttle.ts";
export type {
  BlockNodeCommon,
  DriveThrottle,
  ErrorAction,
  FileNodeConfig,
  NullNodeConfig,
  Qcow2NodeConfig,
  RawNodeConfig,
  ThrottleNodeConfig,
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
export type { GuestControl } from "./vmm/guest_control.ts";
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
 * replaces a running VMM; `state` prints the state that was saved in a file; `img` makes and changes disk
 * images.
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
  if (args[0] === "img") return (await import("./vmm/img/cli.ts")).imgCommand(args.slice(1));
  const parse = () => parseCommandLine([...args], deviceTypes);
  if (isPreflight()) return answerPreflight(() => parse().config);
  let origin: Origin | undefined;
  let known: MachineConfig | undefined;
  try {
    origin = Origin.fromEnvironment();
    const { config, request } = parse();
    if (request) return await printRequest(request);
    known = config;
    if (config.daemonize && !origin.inPlace && !isDaemonChild()) return startDaemon();
    return await Arrival.run(config, origin);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    endSpareThreads();
    if (error instanceof Terminated) return 0;
    console.error(stampMessage(known, `denovo: ${error.message}`));
    if (error instanceof GuestEnded) return error.status;
    origin?.goBack(error.message);
    return 1;
  }
}

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

if (import.meta.main) {
  Deno.exitCode = await main(ownArguments());
  // The child of a preflight ends by itself: what it has compiled is kept then.
  if (!isPreflight()) Deno.exit();
}
