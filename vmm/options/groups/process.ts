/**
 * How the VMM behaves as a process, and what it does when something happens to its guest.
 *
 * @module
 */
import { accel } from "../machine.ts";
import { flag, line, type Option, reads, text } from "../option.ts";
import {
  action,
  debugItems,
  logItemsHelp,
  messages,
  noReboot,
  noShutdown,
  watchdogAction,
} from "../process.ts";

/** The options, in the order of `-help`. */
export const processOptions: readonly Option[] = [
  text("pidfile", "pidfile", "-pidfile file", "write PID to 'file'"),
  flag(
    "S",
    line("-S", "freeze CPU at startup (use 'c' to start execution)"),
    (draft) => {
      draft.config.startPaused = true;
    },
  ),
  reads(
    "d",
    line(
      "-d item1,...",
      "enable logging of specified items (use '-d help' for a list of log items)",
    ),
    (argument, draft) =>
      argument === "help" || argument === "?"
        ? { kind: "log-help", text: logItemsHelp() }
        : debugItems(argument, draft),
  ),
  text("logfile", "D", "-D logfile", "output log to logfile (default stderr)"),
  flag("enable-kvm", line("-enable-kvm", "same as -accel kvm"), (draft) => accel("kvm", draft)),
  flag("no-reboot", line("-no-reboot", "exit instead of rebooting"), noReboot),
  flag("no-shutdown", line("-no-shutdown", "stop before shutdown"), noShutdown),
  reads(
    "action",
    [
      line("-action reboot=reset|shutdown", "action when guest reboots [default=reset]"),
      line(
        "-action shutdown=poweroff|pause",
        "action when guest shuts down [default=poweroff]",
      ),
      line(
        "-action panic=pause|shutdown|exit-failure|none",
        "action when guest panics [default=shutdown]",
      ),
      line(
        "-action watchdog=reset|shutdown|poweroff|inject-nmi|pause|debug|none",
        "action when watchdog fires [default=reset]",
      ),
    ].join("\n"),
    action,
  ),
  flag(
    "daemonize",
    line("-daemonize", "daemonize after initializing"),
    (draft) => {
      draft.config.daemonize = true;
    },
  ),
  reads(
    "incoming",
    [
      "-incoming tcp:[host]:port",
      line("-incoming unix:socketpath", "listen on the address for an incoming migration"),
      "-incoming file:path[,offset=offset]",
      "-incoming fd:fd",
      line(
        "-incoming exec:cmdline",
        "accept incoming migration from a file, an open\n" +
          "descriptor or a command's output",
      ),
      line("-incoming defer", "wait for the URI to be specified via migrate_incoming"),
      line(
        "-incoming <channel>",
        "a channel as JSON or as dotted keys; channel-type=cpr is\n" +
          "the channel that brings memory and descriptors",
      ),
    ].join("\n"),
    (argument, draft) => {
      draft.config.incoming = [...draft.config.incoming, argument];
    },
  ),
  reads(
    "msg",
    line(
      "-msg [timestamp=on|off][,guest-name=on|off]",
      "begin messages with the time, and the guest's name",
    ),
    messages,
  ),
  reads(
    "watchdog-action",
    line("-watchdog-action action", "the same as -action watchdog=action"),
    watchdogAction,
  ),
];
