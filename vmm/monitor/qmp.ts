/**
 * A QMP session: a program on a connection (QEMU's docs/interop/qmp-spec.rst).
 *
 * The greeting comes first, then the client must send `qmp_capabilities`; from then on commands are
 * executed one after the other, and events come in between. Out-of-band execution is not offered.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { VmEvent } from "../events.ts";
import type { CommandSet } from "./context.ts";
import { type CommandContext, Deferred, newSession } from "./context.ts";
import type { MachineControl } from "./control.ts";
import { QmpError, toQmpError } from "./errors.ts";
import { type JsonItem, JsonStream } from "./json.ts";
import { isJsonObject, type JsonObject, type JsonValue, stringify } from "./json_value.ts";
import { type ByteTransport, PassedFds } from "./transport.ts";
import { toBytes, toLatin1 } from "./latin1.ts";
import type { QmpState } from "./schema/session.ts";
import { packageName, qemuVersion } from "./version.ts";

/** How a session writes. */
export interface QmpOptions {
  /** One member a line (`pretty=on`). */
  readonly pretty?: boolean;
}

/** A command as sent. */
interface Request {
  readonly name: string;
  readonly args: JsonObject;
}

const capabilitiesCommand = "qmp_capabilities";

/** One QMP connection, from its greeting to its end. */
export class QmpSession {
  readonly #context: CommandContext;
  readonly #transport: ByteTransport;
  readonly #pretty: boolean;
  readonly #json = new JsonStream();
  readonly #fds = new PassedFds();
  readonly #deferred = new Deferred();
  readonly #unsubscribe: () => void;
  #negotiated = false;
  /** What has come since the last complete command. */
  #received: Uint8Array[] = [];
  #queue: Promise<void> = Promise.resolve();
  #closed = false;

  /**
   * Sends the greeting.
   *
   * @param state of a session that is to go on instead
   */
  constructor(
    machine: MachineControl,
    table: CommandSet,
    transport: ByteTransport,
    options: QmpOptions = {},
    state?: QmpState,
  ) {
    this.#transport = transport;
    this.#pretty = options.pretty ?? false;
    this.#context = { machine, table, session: newSession(this.#deferred, () => this.#fds.take()) };
    this.#unsubscribe = machine.events.subscribe((event) => this.#sendEvent(event));
    if (state) {
      this.#negotiated = state.negotiated;
      void this.receive(toBytes(state.received));
      return;
    }
    const version = { qemu: qemuVersion, package: packageName };
    this.#send({ QMP: { version, capabilities: [] } });
  }

  /** Whether the client has finished capabilities negotiation, so that events are sent. */
  get negotiated(): boolean {
    return this.#negotiated;
  }

  /**
   * Handles bytes from the client.
   *
   * @param bytes any part of the stream
   * @param fds descriptors that came with them; the session owns them from here on
   * @returns once their commands are done: read on only then, so that a client cannot fill memory
   */
  receive(bytes: Uint8Array, fds: readonly OwnedFd[] = []): Promise<void> {
    this.#fds.push(fds);
    if (this.#closed) this.#fds.close();
    this.#received.push(bytes);
    this.#queue = this.#queue.then(() => this.#handle(bytes));
    return this.#queue;
  }

  /** What another session needs to go on with this one's connection. */
  save(): QmpState {
    return { negotiated: this.#negotiated, received: this.#received.map(toLatin1).join("") };
  }

  /** Ends the session: replies and events are dropped, untaken descriptors are closed. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unsubscribe();
    this.#fds.close();
    this.#transport.close();
  }

  async #handle(bytes: Uint8Array): Promise<void> {
    let rest = bytes;
    for (const item of this.#json.feed(bytes)) {
      if (this.#closed) return;
      const before = this.#received.indexOf(rest);
      rest = bytes.subarray(this.#json.taken);
      this.#received.splice(0, before + 1, rest);
      this.#send(await this.#answer(item));
      this.#deferred.run();
    }
  }

  /** The reply to one thing sent. In errors the id comes first, as in QEMU. */
  async #answer(item: JsonItem): Promise<JsonObject> {
    const id = "value" in item && isJsonObject(item.value) ? item.value.id : undefined;
    try {
      if ("error" in item) throw new QmpError(item.error);
      return { return: await this.#execute(readRequest(item.value)), id };
    } catch (error) {
      const { errorClass, message } = toQmpError(error);
      return { id, error: { class: errorClass, desc: message } };
    }
  }

  async #execute({ name, args }: Request): Promise<JsonValue> {
    const isNegotiation = name === capabilitiesCommand;
    if (!this.#negotiated && !isNegotiation) {
      throw new QmpError(
        `Expecting capabilities negotiation with '${capabilitiesCommand}'`,
        "CommandNotFound",
      );
    }
    if (this.#negotiated && isNegotiation) {
      throw new QmpError(
        "Capabilities negotiation is already complete, command ignored",
        "CommandNotFound",
      );
    }
    const result = await this.#context.table.execute(this.#context, name, args);
    this.#negotiated ||= isNegotiation;
    return result;
  }

  #sendEvent({ name, data, timestamp }: VmEvent): void {
    if (!this.#negotiated) return;
    this.#send({ timestamp, event: name, ...data && { data: data as JsonObject } });
  }

  #send(message: JsonObject): void {
    if (this.#closed) return;
    this.#transport.write(new TextEncoder().encode(`${stringify(message, this.#pretty)}\r\n`));
  }
}

/**
 * Checks the outer form of a command.
 *
 * @throws {QmpError} in QEMU's words
 */
function readRequest(value: JsonValue): Request {
  if (!isJsonObject(value)) throw new QmpError("QMP input must be a JSON object");
  for (const [member, content] of Object.entries(value)) {
    if (member === "execute") {
      if (typeof content !== "string") {
        throw new QmpError("QMP input member 'execute' must be a string");
      }
    } else if (member === "arguments") {
      if (!isJsonObject(content)) {
        throw new QmpError("QMP input member 'arguments' must be an object");
      }
    } else if (member !== "id") {
      throw new QmpError(`QMP input member '${member}' is unexpected`);
    }
  }
  if (typeof value.execute !== "string") throw new QmpError("QMP input lacks member 'execute'");
  return { name: value.execute, args: (value.arguments ?? {}) as JsonObject };
}
