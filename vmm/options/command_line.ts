/**
 * The command line: QEMU's options, read into a configuration.
 *
 * Text only: no file is opened and nothing of the host is looked at, so whether a kernel exists or a
 * socket can be bound turns out later. Every mistake that the text alone shows is one line that
 * begins with the option at fault.
 *
 * @example What a user types
 * ```ts
 * import { parseCommandLine } from "./command_line.ts";
 * import { deviceTypes } from "../../devices/registry.ts";
 *
 * const { config } = parseCommandLine(["-m", "1G", "-smp", "2", "-S"], deviceTypes);
 * ```
 *
 * @module
 */
import type { DeviceType } from "../../devices/device.ts";
import type { MachineConfig } from "../config.ts";
import { addDefaultConsoles } from "./console.ts";
import { applyGlobals } from "./device.ts";
import { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { resolveMemory } from "./memory.ts";
import type { Option, Request } from "./option.ts";
import { optionGroups } from "./table.ts";

export { parseChardev } from "./chardev.ts";
export { parseDevice } from "./device.ts";
export { OptionError } from "./error.ts";
export { parseKeyval } from "./grammar.ts";
export { parseObject } from "./object.ts";
export type { Request } from "./option.ts";
export { optionsHelp } from "./table.ts";
export { parseSize } from "./values.ts";

/** What the command line asks for: a machine, or something to print. */
export type CommandLine =
  | { readonly config: MachineConfig; readonly request?: undefined }
  | { readonly request: Request; readonly config?: undefined };

const options: ReadonlyMap<string, Option> = new Map(
  optionGroups.flatMap((group) => group.options)
    .flatMap((option) => option.names.map((name) => [name, option])),
);

/** Options for drives of other machines. */
const drives = ["hda", "hdb", "hdc", "hdd", "sd", "fda", "fdb", "cdrom"];

/** What to say instead of such an option; the image's format is the user's to know. */
function driveHint(name: string, next: string): string {
  const file = next === "" || next.startsWith("-") ? "FILE" : next.replaceAll(",", ",,");
  const media = name === "cdrom" ? ",media=cdrom" : "";
  return `, say -drive file=${file},if=virtio${media},format=FORMAT with FORMAT raw or qcow2`;
}

/** Finds an option by what the user typed, with one dash or two, before `next`. */
function findOption(word: string, next = ""): Option {
  const name = /^--?(.*)$/s.exec(word)?.[1];
  if (name === undefined) {
    throw new OptionError(
      `${word}: unexpected argument, options begin with '-'; only the first word may be update, ` +
        "state or img",
      true,
    );
  }
  const option = options.get(name);
  if (option) return option;
  const instead = drives.includes(name) ? driveHint(name, next) : "";
  throw new OptionError(`${word}: invalid option${instead}`, true);
}

/** What only shows once all options are known. */
function finish(draft: Draft): MachineConfig {
  const { config } = draft;
  config.noReboot = config.actions.reboot === "shutdown";
  config.noShutdown = config.actions.shutdown === "pause";
  if (config.kernel === undefined) {
    for (const name of ["append", "initrd"] as const) {
      if (config[name] !== undefined) {
        throw new OptionError(`-${name} only allowed with -kernel option`, true);
      }
    }
  }
  applyGlobals(draft);
  resolveMemory(draft);
  addDefaultConsoles(draft);
  draft.finish();
  return config;
}

/**
 * Reads a command line.
 *
 * @param args the words after the program's name
 * @param types the device types that `-device` may name
 * @returns the machine's configuration, or what to print instead of running one
 * @throws OptionError with one line for the user
 */
export function parseCommandLine(
  args: readonly string[],
  types: readonly DeviceType[],
): CommandLine {
  const draft = new Draft(types);
  for (let i = 0; i < args.length; i++) {
    const word = args[i];
    const option = findOption(word, args[i + 1]);
    let request: Request | void;
    if (option.argument) {
      const argument = args[++i];
      if (argument === undefined) throw new OptionError(`${word}: requires an argument`, true);
      request = draft.option(`${word} ${argument}`, () => option.run(argument, draft));
    } else {
      request = draft.option(word, () => option.run(draft));
    }
    if (request) return { request };
  }
  return { config: finish(draft) };
}
