/**
 * A QMP client for the VMM that is updated and for its successor: replies are checked by schemas,
 * STOP and RESUME are remembered, and whoever waits learns of the connection's end.
 *
 * @module
 */
import { z } from "zod";
import { Epoll } from "../../ffi/event.ts";
import { type OwnedFd, readFd, writeAll } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { connectTcp, connectUnix } from "../../ffi/socket.ts";
import { resolveHost } from "../../ffi/socket_address.ts";
import { migrationStatuses } from "../migration/migration.ts";
import { migrationModes } from "../migration/parameters.ts";

/**
 * Milliseconds in which a VMM has to answer: it answers `migrate` in mode cpr-exec when it has asked the new
 * program, which on a processor that is emulated and busy has taken more than 30 s.
 */
const REPLY_LIMIT_MS = 90_000;
/** Milliseconds in which a VMM has to greet: it serves one client of a socket at a time. */
const GREETING_LIMIT_MS = 5_000;

/** Where a monitor listens. */
export type QmpAddress =
  | { readonly family: "unix"; readonly path: string }
  | { readonly family: "tcp"; readonly host: string; readonly port: number };

/** An error reply. */
export class QmpRefusal extends Error {}

/** The connection has ended. */
export class QmpClosed extends Error {}

const timestamp = z.looseObject({ seconds: z.number(), microseconds: z.number() });
const message = z.union([
  z.looseObject({ QMP: z.unknown() }),
  z.looseObject({ event: z.string(), timestamp }),
  z.looseObject({ error: z.looseObject({ desc: z.string() }) }),
  z.looseObject({ return: z.unknown() }),
]);

/** Schemas of the replies that an update reads; members that it does not know may be there. */
export const replies = {
  version: z.looseObject({ package: z.string() }),
  status: z.looseObject({ status: z.string() }),
  migration: z.looseObject({
    status: z.enum(migrationStatuses).optional(),
    "error-desc": z.string().optional(),
    "blocked-reasons": z.array(z.string()).optional(),
    "x-pause": z.number().optional(),
    "x-plugged": z.array(z.looseObject({ driver: z.string() })).optional(),
    "x-unplugged": z.array(z.string()).optional(),
    "x-pauses": z.array(z.number()).optional(),
    "x-timeline": z.array(z.looseObject({
      step: z.string(),
      us: z.number(),
      process: z.coerce.string(),
    })).optional(),
  }),
  parameters: z.looseObject({
    mode: z.enum(migrationModes),
    "cpr-exec-command": z.array(z.string()),
  }),
  capabilities: z.array(z.looseObject({ capability: z.string(), state: z.boolean() })),
  nothing: z.unknown(),
};

/** One QMP connection, past its negotiation. */
export class QmpClient implements Disposable {
  /** The connection. */
  readonly socket: OwnedFd;
  /** When the guest last stopped and went on, microseconds of the host's clock. */
  readonly times: { STOP?: number; RESUME?: number } = {};
  readonly #reactor: Reactor;
  readonly #waiting: PromiseWithResolvers<unknown>[] = [];
  readonly #buffer = new Uint8Array(65536);
  readonly #decoder = new TextDecoder();
  readonly #greeting = Promise.withResolvers<unknown>();
  #text = "";
  #greeted = false;
  #ended = false;

  private constructor(socket: OwnedFd, reactor: Reactor) {
    this.socket = socket;
    this.#reactor = reactor;
    this.#greeting.promise.catch(() => {});
    reactor.add(socket.fd, Epoll.IN | Epoll.RDHUP, () => this.#read());
  }

  /**
   * Connects and negotiates.
   *
   * @param accept looks at the connection before anything is said on it; throws to refuse it
   * @throws {Error} if nobody listens, or nobody answers
   */
  static async connect(
    address: QmpAddress,
    reactor: Reactor,
    accept: (socket: OwnedFd) => void = () => {},
  ): Promise<QmpClient> {
    const socket = address.family === "unix"
      ? connectUnix(address.path, { nonblocking: true })
      : connectTcp((await resolveHost(address.host, address.port))[0], address.port);
    try {
      accept(socket);
    } catch (error) {
      socket.close();
      throw error;
    }
    const client = new QmpClient(socket, reactor);
    try {
      await within(
        client.#greeting.promise,
        GREETING_LIMIT_MS,
        "It does not greet: another client, perhaps another update, may be connected to it, or it" +
          " is no QMP socket",
      );
      await client.execute("qmp_capabilities", replies.nothing);
      return client;
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Executes a command.
   *
   * @throws {QmpRefusal} with the reply's description
   * @throws {QmpClosed} when the connection ends before the reply
   */
  async execute<T>(command: string, reply: z.ZodType<T>, args: object = {}): Promise<T> {
    if (this.#ended) throw new QmpClosed("The VMM has closed the QMP connection");
    const request = JSON.stringify({ execute: command, arguments: args }) + "\n";
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.push(waiting);
    try {
      writeAll(this.socket.fd, new TextEncoder().encode(request));
    } catch {
      this.#end();
    }
    const limit = `The VMM does not answer '${command}'`;
    const result = reply.safeParse(await within(waiting.promise, REPLY_LIMIT_MS, limit));
    if (result.success) return result.data;
    throw new Error(`The VMM's reply to '${command}' makes no sense: ${result.error.message}`);
  }

  /** The run state. */
  async runState(): Promise<string> {
    return (await this.execute("query-status", replies.status)).status;
  }

  /** The migration's state. */
  migration(): Promise<z.infer<typeof replies.migration>> {
    return this.execute("query-migrate", replies.migration);
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#end();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reactor.remove(this.socket.fd);
    this.socket.close();
    const closed = new QmpClosed("The VMM has closed the QMP connection");
    for (const waiting of this.#waiting.splice(0)) waiting.reject(closed);
    this.#greeting.reject(closed);
  }

  #read(): void {
    let length = 0;
    try {
      length = readFd(this.socket.fd, this.#buffer);
    } catch {
      // A VMM that dies resets its connections.
    }
    if (length === -1) return;
    if (length === 0) return this.#end();
    this.#text += this.#decoder.decode(this.#buffer.subarray(0, length), { stream: true });
    const lines = this.#text.split("\n");
    this.#text = lines.pop()!;
    for (const line of lines) if (!this.#ended && line.trim() !== "") this.#take(line);
  }

  #take(line: string): void {
    const parsed = message.safeParse(parseJson(line));
    if (!parsed.success) {
      if (!this.#greeted) {
        this.#greeting.reject(
          new Error("It is no QMP socket, perhaps a human monitor's: name one of -qmp"),
        );
      }
      return this.#end();
    }
    const { data } = parsed;
    if ("QMP" in data) {
      // A second greeting: the connection stayed over an exec, and a new VMM begins anew.
      if (this.#greeted) return this.#end();
      this.#greeted = true;
      this.#greeting.resolve(undefined);
    } else if ("event" in data) {
      const { event, timestamp: { seconds, microseconds } } = data as EventMessage;
      if (event === "STOP" || event === "RESUME") {
        this.times[event] = seconds * 1_000_000 + microseconds;
      }
    } else if ("error" in data) {
      const { error } = data as { error: { desc: string } };
      this.#waiting.shift()?.reject(new QmpRefusal(error.desc));
    } else this.#waiting.shift()?.resolve(data.return);
  }
}

interface EventMessage {
  readonly event: string;
  readonly timestamp: z.infer<typeof timestamp>;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Waits for a promise, but not for ever. */
async function within<T>(promise: Promise<T>, milliseconds: number, failure: string): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(() => limit.reject(new Error(failure)), milliseconds);
  try {
    return await Promise.race([promise, limit.promise]);
  } finally {
    clearTimeout(timer);
  }
}
