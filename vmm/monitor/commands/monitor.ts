/**
 * Commands about the monitor itself.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import { newSession } from "../context.ts";
import { QmpError } from "../errors.ts";
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";
import { executeLine, helpFor, infoHelp } from "../hmp_line.ts";
import { schemaInfo } from "../introspect.ts";

const schemas = () => import("../schema/monitor.ts");

/** `qmp_capabilities`, `query-commands`, `query-qmp-schema`, `human-monitor-command` */
export const monitorCommands: readonly Command[] = [
  defineCommand({
    name: "qmp_capabilities",
    help: "end capabilities negotiation",
    schema: async () => (await schemas()).qmpCapabilities,
    // The greeting offers no capability. That the session is negotiated is the session's to know.
    handler: (_context, { enable = [] }) => {
      if (enable.length > 0) {
        throw new QmpError(`Capabilities not available: ${enable.join(", ")}`);
      }
    },
  }),
  defineCommand({
    name: "query-commands",
    help: "show the QMP commands",
    schema: async () => (await schemas()).queryCommands,
    handler: ({ table }) => table.commands.map(({ name }) => ({ name })),
  }),
  defineCommand({
    name: "query-qmp-schema",
    help: "show the QMP commands, events and types",
    schema: async () => (await schemas()).queryQmpSchema,
    handler: ({ table }) => schemaInfo(table),
  }),
  defineCommand({
    name: "human-monitor-command",
    help: "execute an HMP command and show what it prints",
    schema: async () => (await schemas()).humanMonitorCommand,
    handler: async (context, { "command-line": line, "cpu-index": cpuIndex = 0 }) => {
      if (!context.machine.vcpus.some(({ index }) => index === cpuIndex)) {
        throw new QmpError("Parameter 'cpu-index' expects a CPU number");
      }
      // Each command starts from a session's initial state, but may take a descriptor from this one.
      const { takeFd, afterReply } = context.session;
      const session = { ...newSession(), takeFd, afterReply, cpuIndex };
      const text = await executeLine({ ...context, session }, line);
      return text.replaceAll("\n", "\r\n");
    },
  }),
];

/** `help` and `info` */
export const helpCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "help",
    aliases: ["?"],
    parameters: [{ name: "command", type: "rest", optional: true }],
    usage: "[cmd]",
    help: "show the help",
    run: ({ table }, { command = "" }) => helpFor(table, command),
  }),
  defineHmp({
    name: "info",
    usage: "[subcommand]",
    help: "show various information about the system state",
    run: ({ table }) => infoHelp(table),
  }),
];
