/**
 * Options about the VMM's process and run state: `-name`, `-action`, `-sandbox`, `-d`, ….
 *
 * @module
 */
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { readOptions } from "./schema.ts";
import { parseUuid } from "./values.ts";

/** `-name [guest=]NAME[,process=NAME][,debug-threads=on|off]` */
export function name(text: string, draft: Draft): void {
  const values = readOptions(parseOpts(text, "guest"), {
    guest: "string",
    process: "string",
    "debug-threads": "bool",
  });
  if (values.guest !== undefined) draft.config.name = values.guest;
  if (values.process !== undefined) draft.config.processName = values.process;
  if (values["debug-threads"] !== undefined) draft.config.debugThreads = values["debug-threads"];
}

/** `-uuid` */
export function uuid(text: string, draft: Draft): void {
  draft.config.uuid = parseUuid(text);
}

/** `-action EVENT=ACTION[,…]` */
export function action(text: string, draft: Draft): void {
  const values = readOptions(parseOpts(text), {
    reboot: ["reset", "shutdown"],
    shutdown: ["poweroff", "pause"],
    panic: ["pause", "shutdown", "exit-failure", "none"],
    watchdog: ["reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"],
  });
  draft.config.actions = { ...draft.config.actions, ...values };
}

/** `-no-reboot` */
export function noReboot(draft: Draft): void {
  draft.config.actions = { ...draft.config.actions, reboot: "shutdown" };
}

/** `-no-shutdown` */
export function noShutdown(draft: Draft): void {
  draft.config.actions = { ...draft.config.actions, shutdown: "pause" };
}

/** Reads `allow` or `deny`, in the words of `-sandbox`. */
function allowed(name: string, value: string | undefined, otherwise: boolean): boolean {
  if (value === undefined) return otherwise;
  if (value !== "allow" && value !== "deny") throw new OptionError(`invalid argument for ${name}`);
  return value === "allow";
}

/**
 * `-sandbox on[,spawn=allow|deny][,resourcecontrol=allow|deny][,obsolete=…][,elevateprivileges=…]`
 *
 * The VMM itself neither makes obsolete system calls nor raises its privileges, whatever is allowed.
 */
export function sandbox(text: string, draft: Draft): void {
  const { enable, spawn, obsolete, elevateprivileges, resourcecontrol } = readOptions(
    parseOpts(text, "enable"),
    {
      enable: "bool",
      spawn: "string",
      obsolete: "string",
      elevateprivileges: "string",
      resourcecontrol: "string",
    },
  );
  allowed("obsolete", obsolete, false);
  if (elevateprivileges !== "children") allowed("elevateprivileges", elevateprivileges, false);
  draft.config.sandbox = {
    enabled: enable ?? false,
    spawn: allowed("spawn", spawn, true),
    resourceControl: allowed("resourcecontrol", resourcecontrol, true),
  };
}

/** `-msg [timestamp=on|off][,guest-name=on|off]` */
export function messages(text: string, draft: Draft): void {
  const { timestamp, "guest-name": guestName } = readOptions(parseOpts(text), {
    timestamp: "bool",
    "guest-name": "bool",
  });
  const { messages } = draft.config;
  draft.config.messages = {
    timestamp: timestamp ?? messages.timestamp,
    guestName: guestName ?? messages.guestName,
  };
}

/** `-watchdog-action ACTION` */
export function watchdogAction(text: string, draft: Draft): void {
  action(`watchdog=${text}`, draft);
}

/** What `-d` can log. */
const LOG_ITEMS = {
  cpu_reset: "show CPU state before CPU resets",
  guest_errors: "log when the guest does something invalid: a triple fault",
} as const;

/** What `-d help` prints. */
export function logItemsHelp(): string {
  const lines = Object.entries(LOG_ITEMS).map(([name, help]) => `${name.padEnd(15)} ${help}`);
  return ["Log items (comma separated):", ...lines].join("\n");
}

/** `-d ITEM[,ITEM…]` */
export function debugItems(text: string, draft: Draft): void {
  const items = text.split(",");
  const stranger = items.find((item) => !Object.hasOwn(LOG_ITEMS, item));
  if (stranger !== undefined) {
    throw new OptionError(
      `unknown log item '${stranger}', known are ${Object.keys(LOG_ITEMS).join(", ")}`,
    );
  }
  draft.config.debugItems = items;
}

/** `-display none`: there is no other. */
export function display(text: string): void {
  if (text !== "none") throw new OptionError(`Parameter 'type' does not accept value '${text}'`);
}

/** `-vga none`: there is no other. */
export function vga(text: string): void {
  if (text !== "none") throw new OptionError(`unknown vga type: ${text}`);
}
