/**
 * How a WebSocket begins (RFC 6455, 4): a client's request, and the answer to it.
 *
 * @module
 */
import { Epoll } from "../../ffi/event.ts";
import { OsError } from "../../ffi/errno.ts";
import { type OwnedFd, readFd } from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { sendNow } from "../../ffi/socket.ts";

/** A request that is longer is none, as under QEMU. */
const MAX_REQUEST = 4096;
/** A client that takes longer keeps others from being served. */
const LIMIT_MS = 10_000;
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PROTOCOL = "binary";
const END = "\r\n\r\n";

const encoder = new TextEncoder();

/** A client's headers, in lower case. */
function readHeaders(request: string): Map<string, string> | undefined {
  const [first, ...lines] = request.split("\r\n");
  if (!/^GET \S+ HTTP\/1\.1$/.test(first)) return undefined;
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = /^([^:]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? [];
    if (name === undefined) return undefined;
    headers.set(name.toLowerCase(), value);
  }
  return headers;
}

const hasWord = (list: string | undefined, word: string) =>
  list?.split(",").some((one) => one.trim().toLowerCase() === word) ?? false;

/**
 * The answer to a request.
 *
 * @param request the request without the empty line at its end
 * @returns undefined if it asks for no WebSocket of version 13, or for other protocols than `binary`
 */
export async function answerUpgrade(request: string): Promise<string | undefined> {
  const headers = readHeaders(request);
  const key = headers?.get("sec-websocket-key");
  const protocols = headers?.get("sec-websocket-protocol");
  const isUpgrade = headers?.has("host") && hasWord(headers.get("connection"), "upgrade") &&
    hasWord(headers.get("upgrade"), "websocket") && headers.get("sec-websocket-version") === "13";
  if (!isUpgrade || key?.length !== 24) return undefined;
  if (protocols !== undefined && !hasWord(protocols, PROTOCOL)) return undefined;
  const digest = await crypto.subtle.digest("SHA-1", encoder.encode(key + GUID));
  return [
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Accept: ${new Uint8Array(digest).toBase64()}`,
    ...(protocols === undefined ? [] : [`Sec-WebSocket-Protocol: ${PROTOCOL}`]),
  ].join("\r\n") + END;
}

/** Speaks with a client until it has a WebSocket, or nothing. */
export class WebSocketHandshake {
  readonly #connection: OwnedFd;
  readonly #reactor: Reactor;
  readonly #done: (connection: OwnedFd | undefined) => void;
  readonly #byte = new Uint8Array(1);
  #request = "";
  readonly #limit: ReturnType<typeof setTimeout>;
  #watching = true;
  #ended = false;

  /**
   * Waits for the request.
   *
   * @param connection a connection, which is closed if nothing comes of it
   * @param done takes a connection that is a WebSocket now, or undefined
   */
  constructor(
    connection: OwnedFd,
    reactor: Reactor,
    done: (connection: OwnedFd | undefined) => void,
  ) {
    this.#connection = connection;
    this.#reactor = reactor;
    this.#done = done;
    this.#limit = setTimeout(() => this.#fail(), LIMIT_MS);
    reactor.add(connection.fd, Epoll.IN, () => this.#read());
  }

  /** Gives up, without a word to anyone. */
  stop(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unwatch();
    this.#connection.close();
  }

  /** Byte by byte: what comes behind the request is not the handshake's. */
  #read(): void {
    for (let byte; (byte = this.#readByte()) !== undefined;) {
      this.#request += String.fromCharCode(byte);
      if (this.#request.endsWith(END)) {
        this.#unwatch();
        answerUpgrade(this.#request.slice(0, -END.length)).then((answer) => this.#finish(answer));
        return;
      }
      if (this.#request.length === MAX_REQUEST) return this.#fail();
    }
  }

  /** Undefined if there is none now, or if the client has gone. */
  #readByte(): number | undefined {
    let length: number;
    try {
      length = readFd(this.#connection.fd, this.#byte);
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      length = 0;
    }
    if (length === 0) this.#fail();
    return length > 0 ? this.#byte[0] : undefined;
  }

  #finish(answer: string | undefined): void {
    if (this.#ended) return;
    const text = answer ?? `HTTP/1.1 400 Bad Request\r\nConnection: close${END}`;
    if (!this.#say(encoder.encode(text)) || answer === undefined) return this.#fail();
    this.#ended = true;
    this.#done(this.#connection);
  }

  /** The socket is new: what does not fit into it goes to nobody. */
  #say(bytes: Uint8Array<ArrayBuffer>): boolean {
    try {
      return sendNow(this.#connection.fd, bytes) === bytes.length;
    } catch (error) {
      if (error instanceof OsError) return false;
      throw error;
    }
  }

  #fail(): void {
    if (this.#ended) return;
    this.stop();
    this.#done(undefined);
  }

  #unwatch(): void {
    clearTimeout(this.#limit);
    if (this.#watching) this.#reactor.remove(this.#connection.fd);
    this.#watching = false;
  }
}
