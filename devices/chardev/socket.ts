/**
 * The socket backend: one connection at a time, as a server or as a client.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { Epoll } from "../../ffi/event.ts";
import {
  fileStatus,
  findNamed,
  isOpen,
  type NamedFile,
  OwnedFd,
  setCloexec,
  setNonblocking,
  unlinkNamed,
} from "../../ffi/fd.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import {
  accept,
  connectTcp,
  connectUnix,
  isListening,
  listenTcp,
  listenUnix,
  sendNow,
  shutdownSocket,
} from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import type { ChardevState, KeptChardev } from "./backend.ts";
import type { FdConfig, SocketConfig } from "./config.ts";
import type { FdRequirements } from "./fd_table.ts";
import { Encoding, MAX_ENCODED } from "./encoding.ts";
import { TelnetDecoder, telnetGreeting } from "./telnet.ts";
import { WebSocketDecoder } from "./websocket.ts";
import { WebSocketHandshake } from "./websocket_handshake.ts";
import { Connector } from "./connector.ts";
import { nameConnection, nameOf } from "./socket_name.ts";
import { StreamBackend } from "./stream_backend.ts";

/** How long to wait when a client cannot be accepted, for want of descriptors for example. */
const RETRY_MS = 1000;

const socketFds: FdRequirements = {
  listener: { kind: "socket", listening: true },
  connection: { kind: "socket", listening: false },
};

/**
 * A connection over a UNIX or TCP socket; the host of a TCP endpoint must be an IP address. Further
 * clients wait until the first hangs up.
 */
export class SocketBackend extends StreamBackend {
  readonly #config: SocketConfig | FdConfig;
  readonly #listener: number | undefined;
  /** What `query-chardev` prints while nobody is connected. */
  readonly #address: string;
  /** The file of a UNIX socket that listens, as it was when this backend was opened. */
  readonly #file: NamedFile | undefined;
  #connectionName: string | undefined;
  #reactor: Reactor | undefined;
  #listening = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #waiting: PromiseWithResolvers<void> | undefined;
  readonly #connector: Connector | undefined;
  readonly #protocol: SocketConfig["protocol"];
  /** Of the connection that there is. */
  #decoder: TelnetDecoder | WebSocketDecoder | undefined;
  #handshake: WebSocketHandshake | undefined;

  /**
   * Listens or connects, or goes on with what was kept.
   *
   * @param config the configuration
   * @param kept what a predecessor left
   * @param connected the connection of a client that has one already
   * @throws {Error} in QEMU's words
   */
  constructor(config: SocketConfig | FdConfig, kept?: KeptChardev, connected?: OwnedFd) {
    super(config, kept, socketFds, encodingOf(config));
    this.#config = config;
    this.#protocol = config.backend === "socket" ? config.protocol : undefined;
    this.#connector = this.#makeConnector(config);
    this.setUp(() => this.#open(kept, connected));
    this.#listener = this.fds.get("listener");
    this.#file = identify(config);
    this.#address = this.#describe();
    const connection = this.fds.get("connection");
    if (connection === undefined) return;
    if (kept) this.#goOn(kept.state);
    else this.#greet(connection);
    this.#use(connection);
    if (kept) this.#restoreUnsent(kept.state);
  }

  /** What `query-chardev` prints. */
  get filename(): string {
    return this.#connectionName ?? `disconnected:${this.#address}`;
  }

  /** Whether the machine shall not start yet: a server with `wait=on` has no client. */
  get wantsClient(): boolean {
    return this.#listener !== undefined && this.#config.wait === true && !this.connected;
  }

  /**
   * Waits until a client of a server is there; rejects by `abort`.
   *
   * @throws {Error} when the backend is closed
   */
  async waitForClient(reactor: Reactor, abort?: AbortSignal): Promise<void> {
    abort?.throwIfAborted();
    this.#reactor = reactor;
    const waiting = this.#waiting = Promise.withResolvers<void>();
    const aborted = () => waiting.reject(abort?.reason);
    abort?.addEventListener("abort", aborted);
    this.#listen();
    await waiting.promise.finally(() => abort?.removeEventListener("abort", aborted));
  }

  /**
   * Whether there is a connection: a client that lost its own does not connect again; and where in its
   * protocol it is.
   */
  override saveState(): ChardevState {
    const connected = this.fds.get("connection") !== undefined;
    if (!this.#decoder) return { connected };
    return { connected, decoder: this.#decoder.save(), unsent: this.unsent.toHex() };
  }

  /** The predecessor's connection may have ended after it was passed on. */
  override restoreState(state: ChardevState): void {
    if (state.connected === false) this.#hangUp();
    this.#goOn(state);
    this.#restoreUnsent(state);
    this.#awaitPeer();
  }

  /** Ends the connection; a server waits for the next client. */
  override hangUp(): void {
    this.inputEnded();
  }

  /** Clients are accepted, or wait. */
  protected override heldChanged(): void {
    if (this.held === "nothing") return this.#awaitPeer();
    this.#unlisten();
    this.#connector?.stop();
    this.#stopHandshake();
  }

  /** Bytes of the protocol, with the peer's in them. */
  protected override received(data: Uint8Array, fds?: readonly OwnedFd[]): void {
    if (!this.#decoder) return this.deliver(data, fds);
    for (const fd of fds ?? []) fd.close();
    this.#decoder.decode(data, {
      data: (bytes) => this.deliver(bytes),
      break: () => this.receiveBreak(),
      answer: (bytes) => void this.answer(bytes),
      end: () => this.inputEnded(),
    });
  }

  /** Begins to accept clients. */
  protected override started(reactor: Reactor): void {
    this.#reactor = reactor;
    if (this.fds.get("connection") === undefined && this.held === "nothing") {
      this.#connector?.start(reactor);
    }
    this.#awaitPeer();
  }

  /** The peer has hung up. */
  protected inputEnded(): void {
    this.#hangUp();
    this.#awaitPeer();
  }

  /** The client has hung up, but not all that it sent is read. */
  protected override peerGone(): void {
    // The next client shall not have to wait until the guest has read what this one left.
    this.#connectionName = undefined;
    this.#awaitPeer();
  }

  /** Stops listening. */
  protected override stopped(): void {
    this.#unlisten();
    this.#connector?.stop();
    this.#stopHandshake();
    this.#reactor = undefined;
    clearTimeout(this.#retry);
    this.#waiting?.reject(new Error(`Chardev '${this.label}' was closed`));
  }

  /** Hangs up and removes the socket file, if it still is this backend's. */
  protected override restoreHost(): void {
    const connection = this.fds.get("connection");
    if (connection !== undefined) shutdownSocket(connection);
    // After a live update the path may lead to a successor's socket.
    if (this.#file) unlinkNamed(this.#file);
  }

  #open(kept: KeptChardev | undefined, connected: OwnedFd | undefined): void {
    const config = this.#config;
    if (config.backend === "fd") {
      if (!kept) this.#takeOver(config.fd);
    } else if (config.server) {
      this.fds.open("listener", () => listen(config));
    } else if (!this.#connector && kept?.state.connected !== false) {
      // Whoever listens but does not accept is not waited for.
      this.fds.open(
        "connection",
        () => connected ?? connect(config, { nonblocking: config.family === "unix" }),
      );
    }
    for (const name of ["listener", "connection"]) {
      const fd = this.fds.get(name);
      if (fd !== undefined) setNonblocking(fd, true);
    }
  }

  /** Takes a socket that the process was started with. */
  #takeOver(fd: number): void {
    if (!isOpen(fd) || fileStatus(fd).kind !== "socket") {
      throw new Error(`File descriptor '${fd}' is not a socket`);
    }
    setCloexec(fd, true);
    this.fds.set(isListening(fd) ? "listener" : "connection", new OwnedFd(fd));
  }

  #describe(): string {
    const config = this.#config;
    if (this.#listener !== undefined) {
      return `${nameOf(localAddress(this.#listener), this.#protocol)},server=on`;
    }
    if (config.backend === "fd") return "unix:";
    return config.family === "unix"
      ? `unix:${config.path}`
      : nameOf({ type: "inet", host: config.host, port: config.port }, this.#protocol);
  }

  #makeConnector(config: SocketConfig | FdConfig): Connector | undefined {
    if (config.backend === "fd" || config.server || !config.reconnectMs) return undefined;
    return new Connector(
      config.reconnectMs,
      () => connect(config, { nonblocking: true }),
      (connection) => this.#take(connection),
    );
  }

  /** Waits for a client, or connects again after a while, unless a peer is there. */
  #awaitPeer(): void {
    this.#listen();
    if (this.#reactor && !this.connected && this.held === "nothing") {
      this.#connector?.startLater(this.#reactor);
    }
  }

  #listen(): void {
    if (!this.#reactor || this.#listener === undefined || this.#listening || this.connected) return;
    if (this.held !== "nothing" || this.#handshake) return;
    this.#listening = true;
    this.#reactor.add(this.#listener, Epoll.IN, () => this.#accept());
  }

  #unlisten(): void {
    if (this.#listening) this.#reactor!.remove(this.#listener!);
    this.#listening = false;
  }

  #accept(): void {
    const connection = this.#acceptOrRetry();
    if (!connection) return;
    this.#unlisten();
    if (this.#protocol !== "websocket") return this.#take(connection);
    this.#handshake = new WebSocketHandshake(connection, this.#reactor!, (taken) => {
      this.#handshake = undefined;
      if (taken) this.#take(taken);
      else this.#listen();
    });
  }

  #stopHandshake(): void {
    this.#handshake?.stop();
    this.#handshake = undefined;
  }

  /** A peer is there; what the one before has left is gone. */
  #take(connection: OwnedFd): void {
    this.#hangUp();
    const fd = this.fds.set("connection", connection);
    this.#greet(fd);
    this.#use(fd);
    this.#waiting?.resolve();
  }

  /** Begins the protocol with a new peer. */
  #greet(connection: number): void {
    this.#makeDecoder();
    if (this.#protocol !== "telnet") return;
    try {
      // A new socket has room for it.
      sendNow(connection, telnetGreeting);
    } catch (error) {
      // The peer has gone already, which reading will tell.
      if (!(error instanceof OsError)) throw error;
    }
  }

  #makeDecoder(): void {
    this.#decoder = this.#protocol === "telnet"
      ? new TelnetDecoder()
      : this.#protocol === "websocket"
      ? new WebSocketDecoder()
      : undefined;
  }

  /** Goes on in the protocol where a predecessor was. */
  #goOn({ decoder }: ChardevState): void {
    this.#makeDecoder();
    if (typeof decoder === "string") this.#decoder?.restore(decoder);
  }

  #restoreUnsent({ unsent }: ChardevState): void {
    if (!this.#decoder || typeof unsent !== "string") return;
    if (unsent.length <= 2 * MAX_ENCODED && /^([0-9a-f]{2})*$/.test(unsent)) {
      this.unsent = Uint8Array.fromHex(unsent);
    }
  }

  #acceptOrRetry(): OwnedFd | undefined {
    try {
      return accept(this.#listener!, { nonblocking: true });
    } catch (error) {
      if (!(error instanceof OsError)) throw error;
      // The client is still there, and epoll would say so without end.
      this.#unlisten();
      this.#retry = setTimeout(() => this.#listen(), RETRY_MS);
      return undefined;
    }
  }

  #use(connection: number): void {
    const isServer = this.#listener !== undefined;
    this.#connectionName = nameConnection(connection, isServer, this.#protocol);
    this.connect(connection, connection, true);
  }

  /** Ends the connection, if there is one: no thread uses its descriptor when it is closed. */
  #hangUp(): void {
    if (this.fds.get("connection") === undefined) return;
    this.#connectionName = undefined;
    this.disconnect();
    // The frontend, which was told, may have closed the backend.
    const connection = this.fds.get("connection");
    if (connection !== undefined) shutdownSocket(connection);
    this.fds.close("connection");
  }
}

/** The file of a UNIX socket that listens; undefined for others, or if it is gone. */
function identify(config: SocketConfig | FdConfig): NamedFile | undefined {
  const listens = config.backend === "socket" && config.family === "unix" && config.server;
  return listens ? findNamed(config.path) : undefined;
}

function listen(config: SocketConfig): OwnedFd {
  if (config.family === "unix") return listenUnix(config.path);
  return listenTcp(config.host === "" ? "0.0.0.0" : config.host, config.port);
}

function connect(config: SocketConfig, options: { readonly nonblocking: boolean }): OwnedFd {
  return config.family === "unix"
    ? connectUnix(config.path, options)
    : connectTcp(config.host, config.port, options);
}

function encodingOf(config: SocketConfig | FdConfig): number {
  if (config.backend === "fd" || !config.protocol) return Encoding.PLAIN;
  return config.protocol === "telnet" ? Encoding.TELNET : Encoding.WEBSOCKET;
}
