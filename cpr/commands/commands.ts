/**
 * The migration commands, for QMP and HMP.
 *
 * @module
 */
import { defineCommand } from "../../vmm/monitor/command.ts";
import type { Command } from "../../vmm/monitor/context.ts";
import { QmpError } from "../../vmm/monitor/errors.ts";
import { defineHmp } from "../../vmm/monitor/hmp_command.ts";
import type { HmpCommand } from "../../vmm/monitor/context.ts";
import { type MigrationChannel, parseUri } from "../channel/address.ts";
import type { CommandTable } from "../../vmm/monitor/command_table.ts";
import type { Cpr } from "../cpr.ts";
import { setParameterText } from "./hmp_parameters.ts";
import { migrationInfo, migrationText } from "./migration_info.ts";
import {
  type Capability,
  capabilityNames,
  checkCapabilities,
  checkParameter,
  parameterDisplay,
} from "../migration/parameters.ts";

const schemas = () => import("./schema.ts");

/**
 * Adds the migration commands and events to a monitor's table. `mod.ts` does that, so that `vmm` never
 * has to know of them.
 */
export function registerMigration(table: CommandTable, cpr: Cpr): void {
  table.add(...migrationCommands(cpr))
    .addHmp(...migrationHmpCommands(cpr))
    .addInfo(...migrationInfoCommands(cpr))
    .addEvents(async () => (await import("./schema.ts")).migrationEvents);
}

/** All commands that drive and show migrations of one VM. */
function migrationCommands(cpr: Cpr): Command[] {
  const { migration } = cpr;
  return [
    defineCommand({
      name: "migrate-set-parameters",
      help: "set migration parameters",
      schema: async () => (await schemas()).migrateSetParameters,
      handler: (_context, args) => {
        for (const [name, value] of Object.entries(args)) checkParameter(name, value);
        migration.parameters = { ...migration.parameters, ...args } as typeof migration.parameters;
      },
    }),
    defineCommand({
      name: "query-migrate-parameters",
      help: "show migration parameters",
      schema: async () => (await schemas()).queryMigrateParameters,
      handler: () => ({
        ...migration.parameters,
        "cpr-exec-command": [...migration.parameters["cpr-exec-command"]],
      }),
    }),
    defineCommand({
      name: "migrate-set-capabilities",
      help: "switch migration capabilities on and off",
      schema: async () => (await schemas()).migrateSetCapabilities,
      handler: (_context, { capabilities }) => {
        setCapabilities(cpr, capabilities.map(({ capability, state }) => [capability, state]));
      },
    }),
    defineCommand({
      name: "query-migrate-capabilities",
      help: "show migration capabilities",
      schema: async () => (await schemas()).queryMigrateCapabilities,
      handler: () =>
        capabilityNames.map((capability) => ({
          state: migration.capabilities.has(capability),
          capability,
        })),
    }),
    defineCommand({
      name: "query-migrate",
      help: "show the migration's status",
      schema: async () => (await schemas()).queryMigrate,
      handler: () => migrationInfo(cpr),
    }),
    defineCommand({
      name: "migrate",
      help: "migrate the VM",
      schema: async () => (await schemas()).migrate,
      handler: async ({ session }, { uri, channels, resume }) => {
        if (resume) throw new QmpError("Cannot resume if there is no paused migration");
        const goOn = await cpr.migrate(chooseChannels(uri, channels));
        session.afterReply(goOn);
      },
    }),
    defineCommand({
      name: "migrate-incoming",
      help: "start an incoming migration that was deferred",
      schema: async () => (await schemas()).migrateIncoming,
      handler: async ({ session }, { uri, channels, "exit-on-error": exitOnError = true }) => {
        const [main, ...others] = chooseChannels(uri, channels);
        if (others.length > 0 || main["channel-type"] !== "main") {
          throw new QmpError("Channel list must have only one entry, for type 'main'");
        }
        const goOn = await cpr.migrateIncoming(main.addr, exitOnError);
        session.afterReply(goOn);
      },
    }),
    defineCommand({
      name: "migrate-continue",
      help: "let a migration go on that waits before its switchover",
      schema: async () => (await schemas()).migrateContinue,
      handler: ({ session }, { state }) => {
        const { continueHook } = migration;
        if (migration.status !== state || !continueHook) {
          throw new QmpError(`Migration not in expected state: ${migration.status}`);
        }
        // In cpr-exec nobody is left to reply afterwards.
        session.afterReply(continueHook);
      },
    }),
    defineCommand({
      name: "migrate_cancel",
      help: "cancel the current migration",
      hmp: { help: "cancel the current VM migration" },
      handler: () => cpr.cancel(),
    }),
  ];
}

/** The HMP commands that are more than their QMP twins. */
function migrationHmpCommands(cpr: Cpr): HmpCommand[] {
  return [
    defineHmp({
      name: "migrate",
      parameters: [
        { name: "detach", type: "flag", letter: "d", optional: true },
        { name: "resume", type: "flag", letter: "r", optional: true },
        { name: "uri", type: "string" },
      ],
      usage: "[-d] [-r] uri",
      help: "migrate to URI (using -d to not wait for completion)" +
        "\n\t\t\t -r to resume a paused postcopy migration",
      run: async ({ session }, { detach, resume, uri }) => {
        if (resume) throw new QmpError("Cannot resume if there is no paused migration");
        const goOn = await cpr.migrate([{ "channel-type": "main", addr: parseUri(uri) }]);
        if (detach) session.afterReply(goOn);
        else await goOn();
      },
    }),
    defineHmp({
      name: "migrate_incoming",
      parameters: [{ name: "uri", type: "string" }],
      usage: "uri",
      help: "Continue an incoming migration from an -incoming defer",
      run: async ({ session }, { uri }) => {
        session.afterReply(await cpr.migrateIncoming(parseUri(uri), true));
      },
    }),
    defineHmp({
      name: "migrate_set_parameter",
      parameters: [{ name: "parameter", type: "string" }, { name: "value", type: "rest" }],
      usage: "parameter value",
      help: "Set the parameter for migration",
      run: (context, { parameter, value }) => setParameterText(context, parameter, value),
    }),
    defineHmp({
      name: "migrate_set_capability",
      parameters: [{ name: "capability", type: "string" }, { name: "state", type: "boolean" }],
      usage: "capability state",
      help: "Enable/Disable the usage of a capability for migration",
      run: (_context, { capability, state }) => {
        if (!capabilityNames.includes(capability as Capability)) {
          throw new QmpError(`invalid parameter value: ${capability}`);
        }
        setCapabilities(cpr, [[capability as Capability, state]]);
      },
    }),
    defineHmp({
      name: "migrate_continue",
      parameters: [{ name: "state", type: "string" }],
      usage: "state",
      help: "Continue migration from the given paused state",
      run: async (context, { state }) => {
        await context.table.execute(context, "migrate-continue", { state });
      },
    }),
  ];
}

/** `info migrate` and its neighbours. */
function migrationInfoCommands(cpr: Cpr): HmpCommand[] {
  const { migration } = cpr;
  return [
    defineHmp({
      name: "migrate",
      parameters: [{ name: "all", type: "flag", letter: "a", optional: true }],
      usage: "[-a]",
      help: "show migration status (-a: all, dump all status)",
      run: (_context, { all }) => migrationText(cpr, all ?? false),
    }),
    defineHmp({
      name: "migrate_capabilities",
      help: "show current migration capabilities",
      run: () =>
        capabilityNames.map((name) => `${name}: ${onOff(migration.capabilities.has(name))}\n`).join(
          "",
        ),
    }),
    defineHmp({
      name: "migrate_parameters",
      help: "show current migration parameters",
      run: () => parameterDisplay.map(([name, unit]) => parameterLine(cpr, name, unit)).join(""),
    }),
  ];
}

function parameterLine(cpr: Cpr, name: typeof parameterDisplay[number][0], unit: string): string {
  const value = cpr.migration.parameters[name];
  if (typeof value === "boolean") return `${name}: ${onOff(value)}\n`;
  if (Array.isArray(value)) return `${name}:${value.map((word) => ` ${word}`).join("")}\n`;
  return name.startsWith("tls-") ? `${name}: '${value}'\n` : `${name}: ${value}${unit}\n`;
}

function onOff(on: boolean): string {
  return on ? "on" : "off";
}

function setCapabilities(cpr: Cpr, changes: readonly (readonly [Capability, boolean])[]): void {
  const { migration } = cpr;
  if (migration.inProgress) throw new QmpError("There's a migration process in progress");
  const wanted = new Set(migration.capabilities);
  for (const [capability, on] of changes) {
    if (on) wanted.add(capability);
    else wanted.delete(capability);
  }
  checkCapabilities(wanted);
  migration.capabilities.clear();
  for (const capability of wanted) migration.capabilities.add(capability);
}

/** QEMU wants exactly one of the two. */
function chooseChannels(
  uri: string | undefined,
  channels: readonly MigrationChannel[] | undefined,
): readonly MigrationChannel[] {
  if (uri !== undefined && channels !== undefined && channels.length > 0) {
    throw new QmpError(
      "'uri' and 'channels' arguments are mutually exclusive; exactly one of the two should be present",
    );
  }
  if (uri !== undefined) return [{ "channel-type": "main", addr: parseUri(uri) }];
  if (channels === undefined || channels.length === 0) {
    throw new QmpError("need either 'uri' or 'channels' argument");
  }
  return channels;
}
