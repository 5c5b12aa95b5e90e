/**
 * The VM's run state, with QEMU's names (QAPI RunState).
 *
 * @module
 */

/** Run states that Denovo can be in. */
export const runStates = [
  "debug",
  "inmigrate",
  "internal-error",
  "io-error",
  "paused",
  "postmigrate",
  "prelaunch",
  "finish-migrate",
  "running",
  "shutdown",
  "suspended",
  "watchdog",
  "guest-panicked",
] as const;

/** One of QEMU's run states. */
export type RunState = typeof runStates[number];

/** States out of which only a reset leads back to running (QEMU: "Resetting the Virtual Machine is required"). */
export const needsReset: ReadonlySet<RunState> = new Set<RunState>([
  "internal-error",
  "shutdown",
  "guest-panicked",
]);

/** States in which the devices' state is on its way from one VMM to another. */
export const inTransit: ReadonlySet<RunState> = new Set<RunState>([
  "inmigrate",
  "finish-migrate",
  "postmigrate",
]);
