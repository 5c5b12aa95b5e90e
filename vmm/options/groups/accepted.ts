/**
 * What management programs pass, and what is done anyhow or cannot be asked for.
 *
 * @module
 */
import { takeLacking } from "../lacking.ts";
import { flag, line, type Option, reads } from "../option.ts";
import { sandbox } from "../process.ts";

/** The options, in the order of `-help`. */
export const acceptedOptions: readonly Option[] = [
  reads(
    "overcommit",
    line("-overcommit [mem-lock=off][,cpu-pm=off]", "accepted: that is what is done"),
    (argument) => takeLacking("overcommit", argument),
  ),
  reads(
    "run-with",
    line(
      "-run-with [async-teardown=off][,exit-with-parent=off]",
      "accepted: that is what is done",
    ),
    (argument) => takeLacking("run-with", argument),
  ),
  reads(
    "compat",
    line(
      "-compat [deprecated-input=accept][,deprecated-output=accept]",
      "accepted: that is what is done",
    ),
    (argument) => takeLacking("compat", argument),
  ),
  flag(
    "only-migratable",
    line("-only-migratable", "accepted: all devices can be migrated"),
    () => {},
  ),
  flag("nodefaults", line("-nodefaults", "don't create default devices"), (draft) => {
    draft.defaultSerial = false;
    draft.defaultMonitor = false;
  }),
  reads(
    "sandbox",
    line(
      "-sandbox on[,spawn=allow|deny][,resourcecontrol=allow|deny]\n" +
        "         [,obsolete=allow|deny][,elevateprivileges=allow|deny|children]",
      "forbid system calls (default 'off');\n'spawn' allows or denies to start other programs,\n" +
        "'resourcecontrol' to choose the processors of threads",
    ),
    sandbox,
  ),
  flag(
    "no-user-config",
    line("-no-user-config", "accepted: there are no user-provided config files"),
    () => {},
  ),
];
