/**
 * Which mode suits a VMM: what two processes cannot have at once stays in one.
 *
 * @module
 */
import type { MachineConfig } from "../../vmm/config.ts";
import { qmpServersOf, samePort, type Server, serversOf } from "./command_line.ts";
import type { VmmProcess } from "./process.ts";
import type { UpdateMode } from "./types.ts";

/** A terminal's name in /dev. */
const TERMINAL = /^\/dev\/(pts\/|tty|console)/;

/**
 * Chooses the mode.
 *
 * @param wanted what the user says
 * @returns the mode, and why it is not `transfer` where the user said nothing
 */
export function chooseMode(
  config: MachineConfig,
  vmm: VmmProcess,
  wanted: UpdateMode | undefined,
): { mode: UpdateMode; reason?: string } {
  if (wanted !== undefined) return { mode: wanted };
  const reason = whyOneProcess("transfer", config, config, vmm);
  return reason === undefined ? { mode: "transfer" } : { mode: "exec", reason };
}

/** @throws {Error} if a mode cannot work, with what to do instead */
export function checkMode(
  mode: UpdateMode,
  config: MachineConfig,
  newConfig: MachineConfig,
  vmm: VmmProcess,
): void {
  const reason = whyOneProcess(mode, config, newConfig, vmm);
  if (reason !== undefined) throw new Error(`${reason}: use --mode exec`);
}

/** Why the old VMM and the new one cannot be two processes. */
function whyOneProcess(
  mode: UpdateMode,
  config: MachineConfig,
  newConfig: MachineConfig,
  vmm: VmmProcess,
): string | undefined {
  if (mode === "exec") return undefined;
  const terminal = vmm.targetOf(0);
  if (config.chardevs.some(({ backend }) => backend === "stdio") && TERMINAL.test(terminal ?? "")) {
    return `The console is on ${terminal}, which only a process of that terminal can use`;
  }
  const moving = qmpServersOf(config).find(({ cpr }) => cpr === true);
  if (moving && mode === "transfer") {
    return `The QMP monitor '${moving.id}' has cpr=on, its connection would move with the guest`;
  }
  const taken = boundAnew(mode, newConfig).find((server) =>
    serversOf(config).some((own) => samePort(own, server))
  );
  if (taken?.family !== "tcp") return undefined;
  return `Two VMMs cannot listen on TCP port ${taken.port} at once`;
}

/** The sockets that a new VMM does not take over, but listens on itself. */
function boundAnew(mode: UpdateMode, config: MachineConfig): Server[] {
  if (mode === "reboot") return serversOf(config);
  const monitors = config.monitors.map(({ chardev }) => chardev);
  return serversOf(config).filter(({ id, mux, cpr }) =>
    cpr === false || (cpr === undefined && !mux && monitors.includes(id))
  );
}
