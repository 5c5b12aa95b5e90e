/**
 * Serial ports, monitors and debuggers, and the character devices they talk to.
 *
 * @module
 */
import {
  debugcon,
  escapeKey,
  gdb,
  mon,
  monitor,
  parallel,
  qmp,
  qmpPretty,
  serial,
} from "../console.ts";
import { flag, line, type Option, reads } from "../option.ts";

/** The options, in the order of `-help`. */
export const consoleOptions: readonly Option[] = [
  reads("serial", line("-serial dev", "redirect the serial port to char device 'dev'"), serial),
  reads("parallel", line("-parallel none", "there is no parallel port"), parallel),
  reads("monitor", line("-monitor dev", "redirect the monitor to char device 'dev'"), monitor),
  reads("qmp", line("-qmp dev", "like -monitor but opens in 'control' mode"), qmp),
  reads(
    "qmp-pretty",
    line("-qmp-pretty dev", "like -qmp but uses pretty JSON formatting"),
    qmpPretty,
  ),
  reads("mon", "-mon [chardev=]name[,mode=readline|control][,pretty[=on|off]]", mon),
  reads(
    "debugcon",
    line("-debugcon dev", "redirect the debug console to char device 'dev'"),
    debugcon,
  ),
  reads(
    "echr",
    line("-echr chr", "set terminal escape character instead of ctrl-a"),
    escapeKey,
  ),
  reads(
    "gdb",
    line("-gdb dev", "accept gdb connection on 'dev'; the guest starts without waiting for it"),
    gdb,
  ),
  flag("s", line("-s", "shorthand for -gdb tcp::1234"), (draft) => gdb("tcp::1234", draft)),
];
