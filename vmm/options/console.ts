/**
 * Who talks to whom: serial ports, monitors and the debug console, and their character devices.
 *
 * @module
 */
import type { MonitorConfig } from "../config.ts";
import { parseGdbDevice, parseShortChardev } from "./chardev.ts";
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { readOptions } from "./schema.ts";
import { parseEnum, parseUint } from "./values.ts";

/** COM1 to COM4. */
const MAX_SERIAL_PORTS = 4;

/** `mode` of a monitor. */
const MODES = ["control", "readline"] as const;
type Mode = MonitorConfig["mode"];

function addMonitor(draft: Draft, chardev: string, mode: Mode, pretty = false): void {
  draft.config.monitors = [...draft.config.monitors, { mode, chardev, pretty }];
  draft.later("check", () => draft.requireChardev(chardev));
}

/** The backend that a short form names or makes; `mon:` puts a monitor on it. Returns its id. */
function resolveChardev(draft: Draft, text: string, id: string): string {
  if (text.startsWith("chardev:")) return text.slice("chardev:".length);
  draft.addChardev(parseShortChardev(text, id));
  if (text.startsWith("mon:")) addMonitor(draft, id, "readline");
  return id;
}

/** `-mon [chardev=]ID[,mode=readline|control][,pretty=on|off]` */
export function mon(text: string, draft: Draft): void {
  draft.defaultMonitor = false;
  const values = readOptions(parseOpts(text, "chardev"), {
    chardev: "string",
    id: "id",
    mode: "string",
    pretty: "bool",
  });
  if (values.chardev === undefined) throw new OptionError("Parameter 'chardev' is missing");
  const mode = parseEnum("mode", values.mode ?? "readline", MODES);
  if (mode === "readline" && values.pretty) {
    throw new OptionError("'pretty' is not compatible with HMP monitors");
  }
  addMonitor(draft, values.chardev, mode, values.pretty);
}

function shortMonitor(text: string, draft: Draft, mode: Mode, pretty = false): void {
  draft.defaultMonitor = false;
  const chardev = resolveChardev(draft, text, `compat_monitor${draft.monitorCount}`);
  draft.monitorCount++;
  addMonitor(draft, chardev, mode, pretty);
}

/** `-monitor DEV`; `none` only turns the default monitor off. */
export function monitor(text: string, draft: Draft): void {
  if (text === "none") draft.defaultMonitor = false;
  else shortMonitor(text, draft, "readline");
}

/** `-qmp DEV` */
export function qmp(text: string, draft: Draft): void {
  shortMonitor(text, draft, "control");
}

/** `-qmp-pretty DEV` */
export function qmpPretty(text: string, draft: Draft): void {
  shortMonitor(text, draft, "control", true);
}

/** `-gdb DEV` */
export function gdb(text: string, draft: Draft): void {
  if (text === "none") return;
  const config = parseGdbDevice(text);
  draft.addChardev(config);
  addMonitor(draft, config.id, "gdb");
}

/** The backend of a serial port or the debug console. */
function bindConsole(draft: Draft, text: string, id: string): string {
  const chardev = resolveChardev(draft, text, id);
  draft.later("check", () => draft.requireChardev(chardev));
  return chardev;
}

/** `-serial DEV`; `none` leaves a port out. A port with a monitor stands for the default one. */
export function serial(text: string, draft: Draft): void {
  draft.defaultSerial = false;
  if (text.startsWith("mon:")) draft.defaultMonitor = false;
  draft.later("serial", () => {
    const { serials } = draft.config;
    if (serials.length === MAX_SERIAL_PORTS) {
      throw new OptionError(`Max. supported number of ISA serial ports is ${MAX_SERIAL_PORTS}`);
    }
    const id = `serial${serials.length}`;
    draft.config.serials = [...serials, text === "none" ? "none" : bindConsole(draft, text, id)];
  });
}

/** `-debugcon DEV` */
export function debugcon(text: string, draft: Draft): void {
  draft.later("debugcon", () => {
    if (draft.config.debugcon !== undefined) {
      throw new OptionError("already have a debugcon device");
    }
    draft.config.debugcon = bindConsole(draft, text, "debugcon");
  });
}

/** `-parallel none|null`: there is no parallel port. */
export function parallel(text: string): void {
  if (text !== "none" && text !== "null") {
    throw new OptionError("this machine has no parallel port: none is all that can be asked for");
  }
}

/** `-echr CODE`: the key that begins a multiplexer's commands, C-a (1) unless given. */
export function escapeKey(text: string, draft: Draft): void {
  const code = parseUint("echr", text, 8);
  draft.later("check", () => {
    const { config } = draft;
    config.chardevs = config.chardevs.map((one) => one.mux ? { ...one, escape: code } : one);
  });
}

/**
 * Adds the consoles that were not asked for: with `-nographic` the first serial port and the monitor
 * share the terminal. There is no display, so without `-nographic` what QEMU would show in a window
 * goes nowhere.
 */
export function addDefaultConsoles(draft: Draft): void {
  const { config: { daemonize, nographic }, defaultSerial, defaultMonitor } = draft;
  if (nographic && daemonize) {
    throw new OptionError("-nographic cannot be used with -daemonize", true);
  }
  draft.option(nographic ? "-nographic" : "-serial null", () => {
    if (nographic && defaultSerial && defaultMonitor) serial("mon:stdio", draft);
    else if (defaultSerial) serial(nographic ? "stdio" : "null", draft);
    else if (nographic && defaultMonitor) monitor("stdio", draft);
  });
}
