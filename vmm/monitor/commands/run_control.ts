/**
 * Commands that start, stop, reset and end the VM.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";

const schemas = () => import("../schema/run_control.ts");

/** `stop`, `cont`, `quit`, `system_*`, `inject-nmi`, `set-action`, `query-status` */
export const runControlCommands: readonly Command[] = [
  defineCommand({
    name: "query-status",
    help: "show the run state of the VM",
    schema: async () => (await schemas()).queryStatus,
    handler: ({ machine }) => ({ status: machine.runState, running: machine.running }),
  }),
  defineCommand({
    name: "stop",
    help: "stop emulation",
    handler: ({ machine }) => machine.stop(),
    hmp: { aliases: ["s"] },
  }),
  defineCommand({
    name: "cont",
    help: "resume emulation",
    handler: ({ machine }) => machine.cont(),
    hmp: { aliases: ["c"] },
  }),
  defineCommand({
    name: "quit",
    help: "quit the emulator",
    handler: ({ machine }) => machine.quit(),
    hmp: { aliases: ["q"] },
  }),
  defineCommand({
    name: "system_reset",
    help: "reset the system",
    handler: ({ machine }) => machine.reset(),
    hmp: {},
  }),
  defineCommand({
    name: "system_powerdown",
    help: "send system power down event",
    handler: ({ machine }) => machine.powerdown(),
    hmp: {},
  }),
  defineCommand({
    name: "system_wakeup",
    help: "wakeup guest from suspend",
    handler: ({ machine }) => machine.wakeup(),
    hmp: {},
  }),
  defineCommand({
    name: "inject-nmi",
    help: "inject an NMI",
    handler: ({ machine }) => machine.injectNmi(),
    hmp: { name: "nmi" },
  }),
  defineCommand({
    name: "set-action",
    help: "set what the VM does when the guest reboots, shuts down, panics or hangs",
    schema: async () => (await schemas()).setAction,
    handler: ({ machine }, actions) => machine.setActions(actions),
  }),
];
