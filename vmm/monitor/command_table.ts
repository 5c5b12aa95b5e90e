/**
 * The one table of monitor commands: QMP dispatch, `query-commands`, `query-qmp-schema`, HMP and its
 * help come from it. Layers above add their own commands at start-up.
 *
 * @module
 */
import type { Command, CommandContext, CommandSet, EventSchemas, HmpCommand } from "./context.ts";
import { QmpError } from "./errors.ts";
import type { JsonObject, JsonValue } from "./json_value.ts";

const byName = (a: { name: string }, b: { name: string }) => a.name < b.name ? -1 : 1;

function addNamed<T>(map: Map<string, T>, name: string, entry: T): void {
  if (map.has(name)) throw new RangeError(`The command '${name}' is defined twice`);
  map.set(name, entry);
}

/** The commands of a VM's monitors. */
export class CommandTable implements CommandSet {
  readonly #commands = new Map<string, Command>();
  /** HMP commands by every name they have. */
  readonly #hmp = new Map<string, HmpCommand>();
  readonly #info = new Map<string, HmpCommand>();
  readonly #events: (() => Promise<EventSchemas>)[] = [];

  /** Adds QMP commands, with their HMP faces. */
  add(...commands: readonly Command[]): this {
    for (const command of commands) {
      addNamed(this.#commands, command.name, command);
      if (command.hmp) this.addHmp(command.hmp);
    }
    return this;
  }

  /** Adds commands that only HMP has. */
  addHmp(...commands: readonly HmpCommand[]): this {
    for (const command of commands) {
      for (const name of [command.name, ...command.aliases]) addNamed(this.#hmp, name, command);
    }
    return this;
  }

  /** Adds sub-commands of HMP's `info`. */
  addInfo(...commands: readonly HmpCommand[]): this {
    for (const command of commands) {
      for (const name of [command.name, ...command.aliases]) addNamed(this.#info, name, command);
    }
    return this;
  }

  /** Declares events, for `query-qmp-schema`. */
  addEvents(load: () => Promise<EventSchemas>): this {
    this.#events.push(load);
    return this;
  }

  /** QMP commands by name, sorted. */
  get commands(): readonly Command[] {
    return [...this.#commands.values()].sort(byName);
  }

  /** HMP commands, sorted. */
  get hmpCommands(): readonly HmpCommand[] {
    return [...new Set(this.#hmp.values())].sort(byName);
  }

  /** Sub-commands of `info`, sorted. */
  get infoCommands(): readonly HmpCommand[] {
    return [...new Set(this.#info.values())].sort(byName);
  }

  /** Every name under which HMP knows a command, sorted. */
  get hmpNames(): readonly string[] {
    return [...this.#hmp.keys()].sort();
  }

  /** An HMP command by any of its names. */
  hmpCommand(name: string): HmpCommand | undefined {
    return this.#hmp.get(name);
  }

  /** A sub-command of `info`. */
  infoCommand(name: string): HmpCommand | undefined {
    return this.#info.get(name);
  }

  /** Loads the schemas of all declared events. */
  async events(): Promise<EventSchemas> {
    return Object.assign({}, ...await Promise.all(this.#events.map((load) => load())));
  }

  /**
   * Executes a QMP command.
   *
   * @throws {QmpError} if there is no such command or an argument is wrong; what the handler throws
   */
  async execute(context: CommandContext, name: string, args: JsonObject = {}): Promise<JsonValue> {
    const command = this.#commands.get(name);
    if (!command) {
      throw new QmpError(`The command ${name} has not been found`, "CommandNotFound");
    }
    return await command.execute(context, args);
  }
}
