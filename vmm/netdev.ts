/**
 * A network backend: what it has open, and how it comes to a successor.
 *
 * @module
 */
import type { NetdevConfig, StreamConfig } from "../devices/net/config.ts";
import {
  adoptTap,
  connectStream,
  destinationOf,
  listenForStream,
  openDgram,
  openTapBackend,
  prepareStream,
  startPasst,
} from "../devices/net/open.ts";
import type { NetPortDescription } from "../devices/net/port.ts";
import { DescriptorSlot } from "../devices/descriptor_slot.ts";
import { drainEvent, Epoll, makeEventfd } from "../ffi/event.ts";
import { findNamed, type NamedFile, type OwnedFd, unlinkNamed } from "../ffi/fd.ts";
import type { FdRequirement } from "../ffi/fd_requirement.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { accept, listenTcp, listenUnix, refuseBoundPath } from "../ffi/socket.ts";
import { localAddress, peerAddress, type SocketAddress } from "../ffi/socket_address.ts";
import type { HandedFd, Inheritance } from "./inheritance.ts";
import { TapQueues } from "./tap_queues.ts";
import { TapVhost } from "./tap_vhost.ts";

/** What backends hand over begins so; the id is the backend's. */
export const NETDEV = "netdev/";
/** What frames go over is handed over as. */
export const DATA = `${NETDEV}data`;
/** What new clients come to is handed over as. */
export const LISTENER = `${NETDEV}listener`;

/** What network backends ask of the VMM. */
export interface NetdevHost {
  /** Takes a line for the user. */
  notice(text: string): void;
  /** Sends an event with QEMU's name and data. */
  event(name: string, data: Record<string, unknown>): void;
  /** A backend has a connection that it had not. */
  connected(id: string): void;
  /** A socket device has its guest's number. */
  claimed(id: string): void;
}

/** A network backend. */
export class Netdev {
  readonly config: NetdevConfig;
  readonly #reactor: Reactor;
  readonly #host: NetdevHost;
  readonly #slot = DescriptorSlot.allocate();
  readonly #queues: TapQueues | undefined;
  readonly #vhost: TapVhost | undefined;
  /** The thread that uses a connection says that it has ended. */
  readonly #wake = makeEventfd();
  readonly #closing = new AbortController();
  #data: OwnedFd | undefined;
  #listener: OwnedFd | undefined;
  /** Where it has listened, while it does not. */
  #address: SocketAddress | undefined;
  /** The listener's own file: another VMM may have put one in its place. */
  #file: NamedFile | undefined;
  #isHeld = false;
  /** Whether the listener is a predecessor's, until the guest is here. */
  #isBorrowed = false;
  /** Whether the connection has come from a predecessor. */
  #isInherited = false;
  #headerSize = 0;
  #destination: Uint8Array<ArrayBuffer> | undefined;
  #ifname = "";
  #retry: ReturnType<typeof setTimeout> | undefined;

  /** Nothing is open yet. */
  constructor(config: NetdevConfig, reactor: Reactor, host: NetdevHost) {
    this.config = config;
    this.#reactor = reactor;
    this.#host = host;
    this.#queues = config.type === "tap" ? new TapQueues(config) : undefined;
    this.#vhost = config.type === "tap" ? new TapVhost(config) : undefined;
    reactor.add(this.#wake.fd, Epoll.IN, () => {
      if (drainEvent(this.#wake.fd)) this.#lost();
    });
  }

  /** Opens it, or takes it over. @throws {Error} */
  async open(inheritance?: Inheritance, abort?: AbortSignal): Promise<void> {
    const { config } = this;
    switch (config.type) {
      case "tap": {
        const kept = this.#take(inheritance, DATA, {});
        const tap = kept
          ? adoptTap(kept, config.id, config.vnetHdr ?? true)
          : openTapBackend(config);
        this.#headerSize = tap.headerSize;
        this.#ifname = tap.ifname;
        this.#use(tap.fd);
        this.#queues?.open(tap, kept && inheritance);
        return this.#vhost?.open(inheritance);
      }
      case "dgram": {
        const kept = this.#take(inheritance, DATA, { kind: "socket", listening: false });
        if (kept) this.#destination = config.remote && await destinationOf(config.remote);
        const { fd, destination } = kept
          ? { fd: kept, destination: this.#destination }
          : await openDgram(config);
        this.#destination = destination;
        return this.#use(fd);
      }
      case "user": {
        const kept = this.#take(inheritance, DATA, { kind: "socket", listening: false });
        this.#isInherited = kept !== undefined;
        return this.#use(kept ?? await startPasst(config.id, config.hostfwd));
      }
      case "stream":
        return await this.#openStream(config, inheritance, abort);
    }
  }

  async #openStream(
    config: StreamConfig,
    inheritance?: Inheritance,
    abort?: AbortSignal,
  ): Promise<void> {
    const kept = this.#take(inheritance, DATA, { kind: "socket", listening: false });
    this.#isInherited = kept !== undefined;
    if (kept) this.#use(kept);
    if (!config.server) {
      if (!kept && !this.#isHeld) await this.#connect(config, abort);
      return;
    }
    const listener = this.#take(inheritance, LISTENER, { kind: "socket", listening: true });
    this.#isBorrowed = listener !== undefined;
    this.#listener = listener ?? await listenForStream(config);
    if (config.addr.type === "unix") this.#file = findNamed(config.addr.path);
    this.#watchListener();
  }

  #take(inheritance: Inheritance | undefined, name: string, must: FdRequirement) {
    return inheritance?.takeFd(name, this.config.id, must);
  }

  /** The port, for a device on any thread. */
  get port(): NetPortDescription {
    const { type } = this.config;
    return {
      kind: type === "user" ? "stream" : type,
      slot: this.#slot.buffer,
      wake: this.#wake.fd,
      headerSize: this.#headerSize,
      more: this.#queues?.slots,
      vhost: this.#vhost?.ports,
      destination: this.#destination,
      isInherited: this.#isInherited,
    };
  }

  /** What a successor gets. */
  kept(): HandedFd[] {
    const { id, cpr } = this.config;
    if (cpr === false) return [];
    const fds: HandedFd[] = [];
    if (this.#slot.fd !== undefined) fds.push({ name: DATA, id, fd: this.#slot.fd });
    if (this.#queues) fds.push(...this.#queues.kept());
    if (this.#vhost) fds.push(...this.#vhost.kept());
    if (this.#listener) fds.push({ name: LISTENER, id, fd: this.#listener.fd });
    return fds;
  }

  /** What `info network` says of it. */
  get info(): string {
    const { config } = this;
    if (config.type === "user") return this.#slot.fd === undefined ? "passt has ended" : "passt";
    if (config.type === "tap") {
      return config.fd === undefined
        ? `ifname=${this.#ifname},script=no,downscript=no`
        : `fd=${config.fd}`;
    }
    const address = describe(config.type === "stream" ? config.addr : config.local);
    return this.#slot.fd === undefined ? `not connected: ${address}` : address;
  }

  /** The guest is here: what was a predecessor's is this VM's own. */
  own(): void {
    this.#isBorrowed = false;
  }

  /** Leaves clients that come alone, or takes them again. */
  hold(isHeld: boolean): void {
    if (isHeld === this.#isHeld) return;
    this.#isHeld = isHeld;
    const { config } = this;
    if (this.#listener) this.#watchListener();
    else if (!isHeld && !this.#data && config.type === "stream") void this.#connect(config);
  }

  /** Closes what another process cannot have as well: an interface by its name, an address. */
  letGo(): void {
    const { config } = this;
    if (config.type === "tap" && config.fd === undefined && config.fds === undefined) {
      this.#slot.fd = undefined;
      this.#data?.close();
      this.#queues?.close();
      this.#data = undefined;
    }
    if (!this.#listener || this.#address) return;
    this.#address = localAddress(this.#listener.fd);
    this.#reactor.remove(this.#listener.fd);
    this.#listener.close();
    this.#listener = undefined;
  }

  /** Opens that again, unless it is open. @throws {Error} if another process has it */
  takeBack(): void {
    const { config } = this;
    if (config.type === "tap" && !this.#data) {
      const tap = openTapBackend({ ...config, ifname: this.#ifname });
      this.#use(tap.fd);
      this.#queues?.open(tap);
    }
    if (this.#listener || !this.#address) return;
    this.#listener = listenAgain(this.#address);
    this.#address = undefined;
    this.#file = config.type === "stream" && config.addr.type === "unix"
      ? findNamed(config.addr.path)
      : undefined;
    this.#watchListener();
  }

  /** @param isKept whether a successor goes on with it */
  close(isKept: boolean): void {
    this.#closing.abort();
    clearTimeout(this.#retry);
    this.#reactor.remove(this.#wake.fd);
    this.#wake.close();
    this.#slot.fd = undefined;
    this.#data?.close();
    this.#queues?.close();
    this.#vhost?.close();
    if (!this.#listener) return;
    this.#reactor.remove(this.#listener.fd);
    this.#listener.close();
    if (!isKept && !this.#isBorrowed && this.#file) unlinkNamed(this.#file);
  }

  #use(fd: OwnedFd): void {
    this.#data = fd;
    this.#slot.fd = fd.fd;
    this.#host.connected(this.config.id);
  }

  /** One client at a time: the next one waits until the connection has ended. */
  #watchListener(): void {
    const { fd } = this.#listener!;
    this.#reactor.remove(fd);
    if (this.#isHeld || this.#data) return;
    this.#reactor.add(fd, Epoll.IN, () => {
      const connection = accept(fd, { nonblocking: true });
      if (!connection) return;
      this.#use(prepareStream(connection));
      this.#watchListener();
      this.#announce(connection.fd);
    });
  }

  async #connect(config: StreamConfig, abort?: AbortSignal): Promise<void> {
    const { id, addr } = config;
    clearTimeout(this.#retry);
    try {
      const signals = [this.#closing.signal, ...abort ? [abort] : []];
      const connection = await connectStream(config, this.#reactor, AbortSignal.any(signals));
      // Meanwhile a successor may have come, which connects itself.
      if (this.#closing.signal.aborted || this.#isHeld) return connection.close();
      this.#use(prepareStream(connection));
      this.#announce(connection.fd);
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      abort?.throwIfAborted();
      // A peer may come later, a descriptor does not.
      if (addr.type === "fd") throw error;
      if (config.reconnectMs === undefined) {
        this.#host.notice(`netdev '${id}': ${(error as Error).message}`);
      }
      this.#reconnect(config);
    }
  }

  #reconnect(config: StreamConfig): void {
    if (config.reconnectMs === undefined || this.#isHeld) return;
    this.#retry = setTimeout(() => void this.#connect(config), config.reconnectMs);
  }

  #announce(fd: number): void {
    const { config } = this;
    if (config.type !== "stream") return;
    const peer = config.server ? peerAddress(fd) : undefined;
    const address = peer?.type === "inet" ? peer : config.addr;
    const addr = address.type === "inet"
      ? { ...address, port: `${address.port}` }
      : address.type === "fd"
      ? { type: "fd", str: `${address.fd}` }
      : address;
    this.#host.event("NETDEV_STREAM_CONNECTED", { "netdev-id": config.id, addr });
  }

  /** The thread that used the connection does so no more. */
  #lost(): void {
    this.#data?.close();
    this.#data = undefined;
    const { config } = this;
    this.#host.event("NETDEV_STREAM_DISCONNECTED", { "netdev-id": config.id });
    if (config.type === "user") {
      this.#host.notice(`netdev '${config.id}': passt has ended, and with it the guest's network`);
    }
    if (this.#listener) this.#watchListener();
    else if (config.type === "stream") this.#reconnect(config);
  }
}

/** Listens where it was listened before. @throws {Error} if somebody else does */
function listenAgain(address: SocketAddress): OwnedFd {
  if (address.type === "inet") {
    return listenTcp(address.host, address.port, { nonblocking: true });
  }
  refuseBoundPath(address.path);
  return listenUnix(address.path, { nonblocking: true });
}

/** An address as QEMU shows it. */
function describe(address: StreamConfig["addr"]): string {
  switch (address.type) {
    case "inet":
      return `tcp:${address.host}:${address.port}`;
    case "unix":
      return `unix:${address.path}`;
    case "fd":
      return `fd:${address.fd}`;
  }
}
