/**
 * What an option of the command line is, and short ways to declare one.
 *
 * @module
 */
import type { Draft } from "./draft.ts";

/** Something to print instead of running a machine; whoever runs the program knows the text. */
export type Request =
  | { readonly kind: "help" | "version" | "cpu-help" }
  /** A list that the options themselves know. */
  | {
    readonly kind:
      | "machine-help"
      | "accel-help"
      | "device-help"
      | "object-help"
      | "chardev-help"
      | "netdev-help"
      | "blockdev-help"
      | "log-help";
    readonly text: string;
  };

/** An option: either a flag or something with an argument. */
export type Option =
  & {
    /** Its names without the dash, the one in the help first. */
    readonly names: readonly string[];
    /** Its lines in `-help`. */
    readonly help: string;
  }
  & (
    | {
      readonly argument: true;
      /** Changes the draft, or asks for something to be printed. */
      run(argument: string, draft: Draft): Request | void;
    }
    | { readonly argument: false; run(draft: Draft): Request | void }
  );

type ListKind = Extract<Request, { text: string }>["kind"];

/** The request to print a list, if there is one. */
export function list(kind: ListKind, text: string | undefined): Request | undefined {
  return text === undefined ? undefined : { kind, text };
}

/** A line of help: what is typed, then what it does, aligned as QEMU's. */
export function line(usage: string, text: string): string {
  const indent = " ".repeat(16);
  const [first, ...rest] = text.split("\n").map((part) => indent + part);
  const head = usage.length < 16 ? usage.padEnd(16) + first.trimStart() : `${usage}\n${first}`;
  return [head, ...rest].join("\n");
}

/** An option whose argument goes into the configuration as it is. */
export function text(
  key: "kernel" | "initrd" | "append" | "bios" | "pidfile" | "logfile",
  option: string,
  usage: string,
  help: string,
): Option {
  return {
    names: [option],
    help: line(usage, help),
    argument: true,
    run: (value, draft) => {
      draft.config[key] = value;
    },
  };
}

/** An option whose argument a function reads. */
export function reads(
  names: string | readonly string[],
  help: string,
  run: (argument: string, draft: Draft) => Request | void,
): Option {
  return { names: [names].flat(), help, argument: true, run };
}

/** An option without an argument. */
export function flag(
  names: string | readonly string[],
  help: string,
  run: (draft: Draft) => Request | void,
): Option {
  return { names: [names].flat(), help, argument: false, run };
}
