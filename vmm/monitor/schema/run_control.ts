/**
 * Schemas of commands that control the VM's run state (QAPI run-state.json).
 *
 * @module
 */
import { z } from "zod";

/** QAPI RunState. */
export const runState = z.enum([
  "debug",
  "inmigrate",
  "internal-error",
  "io-error",
  "paused",
  "postmigrate",
  "prelaunch",
  "finish-migrate",
  "restore-vm",
  "running",
  "save-vm",
  "shutdown",
  "suspended",
  "watchdog",
  "guest-panicked",
  "colo",
]);

/** QAPI WatchdogAction. */
export const watchdogAction = z.enum([
  "reset",
  "shutdown",
  "poweroff",
  "pause",
  "debug",
  "none",
  "inject-nmi",
]);

/** `query-status` */
export const queryStatus = {
  returns: z.strictObject({ status: runState, running: z.boolean() }),
};

/** `set-action` */
export const setAction = {
  args: z.strictObject({
    reboot: z.enum(["reset", "shutdown"]).optional(),
    shutdown: z.enum(["poweroff", "pause"]).optional(),
    panic: z.enum(["pause", "shutdown", "exit-failure", "none"]).optional(),
    watchdog: watchdogAction.optional(),
  }),
};
