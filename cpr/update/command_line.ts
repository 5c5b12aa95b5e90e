/**
 * A running VMM's command line, and what becomes of it for the successor.
 *
 * @module
 */
import { deviceTypes } from "../../devices/registry.ts";
import type { ChardevConfig, SocketEndpoint } from "../../devices/chardev/config.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { optionGroups } from "../../vmm/options/table.ts";

/** A program that Deno runs: a file, or a package. */
const SCRIPT = /\.[cm]?[jt]sx?$|^(npm|jsr|https?):/;

/**
 * The options in a VMM's command line: all that follows the program that Deno runs.
 *
 * @throws {Error} if there is no such program
 */
export function optionsOf(argv: readonly string[]): string[] {
  const script = argv.findIndex((word, i) => i > 0 && !word.startsWith("-") && SCRIPT.test(word));
  if (script !== -1) return argv.slice(script + 1);
  throw new Error(
    "The VMM's command line does not show its options, give those of the new one after '--'",
  );
}

const words = new Map(
  optionGroups.flatMap((group) => group.options)
    .flatMap(({ names, argument }) => names.map((name) => [name, { names, argument }] as const)),
);

/** Options that say how a VMM begins, which the update decides for its successor. */
const BEGINNINGS = ["incoming", "S", "daemonize"];

/** The options of a VMM as its successor gets them: without those about how a VMM begins. */
export function carriedOptions(options: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < options.length; i++) {
    const option = words.get(options[i].replace(/^--?/, ""));
    const length = option?.argument ? 2 : 1;
    if (!BEGINNINGS.includes(option?.names[0] ?? "")) kept.push(...options.slice(i, i + length));
    i += length - 1;
  }
  return kept;
}

/**
 * The machine that options describe.
 *
 * @param whose whose options they are, for the message
 * @throws {Error} that says what is wrong with the options
 */
export function machineOf(options: readonly string[], whose: string): MachineConfig {
  let config: MachineConfig | undefined;
  try {
    config = parseCommandLine(options, deviceTypes).config;
  } catch (error) {
    throw new Error(`${whose}: ${(error as Error).message}`, { cause: error });
  }
  if (config) return config;
  throw new Error(`${whose}: they ask for help or the version, not for a VM`);
}

/** A character device that listens. */
export type Server = Extract<ChardevConfig, { backend: "socket" }>;

/** The character devices that listen on sockets. */
export function serversOf(config: MachineConfig): Server[] {
  return config.chardevs.filter((chardev): chardev is Server =>
    chardev.backend === "socket" && chardev.server
  );
}

/** The listening character devices of QMP monitors. */
export function qmpServersOf(config: MachineConfig): Server[] {
  const ids = config.monitors.filter(({ mode }) => mode === "control").map(({ chardev }) =>
    chardev
  );
  return serversOf(config).filter(({ id }) => ids.includes(id));
}

/** Whether two endpoints cannot be listened on at once; a UNIX path goes over to who comes last. */
export function samePort(a: SocketEndpoint, b: SocketEndpoint): boolean {
  return a.family === "tcp" && b.family === "tcp" && a.port === b.port;
}

/** The file that is the machine's RAM and that other processes see, if it is one. */
export function sharedRamFile(config: MachineConfig): string | undefined {
  const ram = config.objects.find(({ id }) => id === config.machine.memoryBackend);
  return ram?.qomType === "memory-backend-file" && ram.share ? ram.memPath : undefined;
}

/** Reads `-qmp`'s argument, with or without what follows the address in a VMM's own option. */
export function parseSocket(
  text: string,
): { family: "unix"; path: string } | { family: "tcp"; host: string; port: number } {
  const [address] = text.split(/,(?=server|wait|id=)/);
  const tcp = /^tcp:(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(address);
  if (tcp) return { family: "tcp", host: (tcp[1] ?? tcp[2]) || "127.0.0.1", port: Number(tcp[3]) };
  if (address.startsWith("tcp:")) {
    throw new Error(`-qmp ${text}: it does not have the form tcp:HOST:PORT`);
  }
  const path = address.replace(/^unix:/, "");
  if (path === "") throw new Error(`-qmp ${text}: it does not name a socket`);
  return { family: "unix", path };
}
