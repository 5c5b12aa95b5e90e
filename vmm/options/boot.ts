/**
 * `-boot` and `-fw_cfg`: what firmware is told.
 *
 * @module
 */
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { compact, readOptions } from "./schema.ts";
import { parseInteger } from "./values.ts";

/** Checks a list of drives: `a` and on are floppies, `c` and on disks, `d` CD-ROM, `n` network. */
function checkDrives(drives: string): void {
  const seen = new Set<string>();
  for (const drive of drives) {
    if (drive < "a" || drive > "p") throw new OptionError(`Invalid boot device '${drive}'`);
    if (seen.has(drive)) throw new OptionError(`Boot device '${drive}' was given twice`);
    seen.add(drive);
  }
}

/** Reads a number of milliseconds from `least` to 65535. */
function parseWait(what: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = parseInteger(what, text);
  if (value >= least && value <= 0xffff) return value;
  throw new OptionError(
    `${what.replace("-", " ")} is invalid, it should be a value between ${least} and 65535`,
  );
}

/**
 * `-boot [order=drives][,once=drives][,menu=on|off][,splash-time=ms][,reboot-timeout=ms][,strict=…]`.
 *
 * There are no drives to order: `order` and `once` are checked and mean nothing more, nor does
 * `strict`, which forbids to boot from drives that were not ordered.
 */
export function boot(text: string, draft: Draft): void {
  const values = readOptions(parseOpts(text, "order"), {
    order: "string",
    once: "string",
    menu: "bool",
    splash: "string",
    "splash-time": "string",
    "reboot-timeout": "string",
    strict: "bool",
  });
  checkDrives(values.order ?? "");
  checkDrives(values.once ?? "");
  if (values.splash !== undefined) {
    throw new OptionError("there is no display that could show a splash picture");
  }
  draft.config.boot = compact({
    ...draft.config.boot,
    menu: values.menu ?? draft.config.boot.menu,
    splashTime: parseWait("splash-time", values["splash-time"], 0) ?? draft.config.boot.splashTime,
    rebootTimeout: parseWait("reboot-timeout", values["reboot-timeout"], -1) ??
      draft.config.boot.rebootTimeout,
  });
}

/** `-fw_cfg [name=]NAME,file=FILE|string=TEXT` */
export function firmwareFile(text: string, draft: Draft): void {
  const { name, file, string, gen_id: generator } = readOptions(parseOpts(text, "name"), {
    name: "string",
    file: "string",
    string: "string",
    gen_id: "string",
  });
  const given = [file, string, generator].filter((one) => one !== undefined && one !== "");
  if (!name || given.length !== 1) {
    throw new OptionError("name, plus exactly one of file, string and gen_id, are needed");
  }
  if (generator) throw new OptionError(`Cannot find object ID '${generator}'`);
  const content = file ? { path: file } : { text: string! };
  draft.config.firmwareFiles = [...draft.config.firmwareFiles, { name, ...content }];
}
