/**
 * The VM's vhost-user back-ends: processes that work on devices' queues. They are connected to by the
 * main thread, and handed to a successor as they are: a back-end whose connection, doorbells and memory
 * stay the same works on, and does not notice.
 *
 * @module
 */
import { findDeviceType } from "./bus/device_set.ts";
import type { MachineConfig } from "./config.ts";
import { withDefaults } from "../devices/device.ts";
import { REPLY_LIMIT_MS } from "../devices/vhost_user/connection.ts";
import { type Agreed, negotiate } from "../devices/vhost_user/negotiate.ts";
import type { VhostUserDescription, VhostUserNeeds } from "../devices/vhost_user/port.ts";
import { DescriptorSlot } from "../devices/descriptor_slot.ts";
import { drainEvent, Epoll, makeEventfd } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { connectUnix } from "../ffi/socket.ts";
import { bytes, struct, u32, u64 } from "../ffi/struct.ts";
import type { HandedFd, HandedValue, Handover, Inheritance, Keeper } from "./inheritance.ts";

/** A value of this name, and what is handed over, whose names begin so; the id is the chardev's. */
const VHOST_USER = "vhost-user";
const SOCKET = `${VHOST_USER}/socket`;
const INFLIGHT = `${VHOST_USER}/inflight`;
const KICK = `${VHOST_USER}/kick`;
const CALL = `${VHOST_USER}/call`;

/** What a successor is told of a back-end. */
const handed = struct(VHOST_USER, {
  features: u64,
  inflight_size: u64,
  inflight_offset: u64,
  queues: u32,
  queue_size: u32,
  config_size: u32,
  config: bytes(256),
});

/** A back-end, and what the device asks of it. */
export interface VhostUserConfig {
  /** The character device's id. */
  readonly id: string;
  /** Its UNIX socket. */
  readonly path: string;
  /** Milliseconds after which it is connected to again; never if undefined. */
  readonly reconnectMs?: number;
  readonly needs: VhostUserNeeds;
}

/**
 * The back-ends that a configuration's devices have.
 *
 * @throws {Error} if a device's character device cannot be one
 */
export function vhostUserConfigs({ devices, chardevs }: MachineConfig): VhostUserConfig[] {
  return devices.flatMap(({ driver, properties }) => {
    const type = findDeviceType(driver);
    const needs = type.vhostUser?.(withDefaults(type, properties));
    if (!needs) return [];
    const chardev = chardevs.find(({ id }) => id === properties.chardev);
    if (!chardev) throw new Error(`chardev "${properties.chardev}" not found`);
    const { id } = chardev;
    if (chardev.backend !== "socket" || chardev.family !== "unix" || chardev.mux) {
      throw new Error(`chardev "${id}" is not a unix socket`);
    }
    if (chardev.server) {
      throw new Error(`chardev "${id}" listens: a vhost-user back-end does, say server=off`);
    }
    if (chardev.cpr === false) {
      throw new Error(`chardev "${id}" has cpr=off: a vhost-user back-end would lose requests`);
    }
    const { path, reconnectMs } = chardev;
    return [{ id, path, needs, ...reconnectMs ? { reconnectMs } : {} }];
  });
}

/** What back-ends ask of the VMM. */
export interface VhostUserHost {
  /** Takes a line for the user. */
  notice(text: string): void;
  /** A back-end is connected that was not. */
  connected(id: string): void;
}

/** Back-ends by the ids of their character devices. */
export class VhostUserSet implements Keeper {
  readonly #reactor: Reactor;
  readonly #host: VhostUserHost;
  readonly #backEnds = new Map<string, BackEnd>();

  /**
   * @param reactor waits for back-ends
   * @param host what back-ends ask of the VMM
   */
  constructor(reactor: Reactor, host: VhostUserHost) {
    this.#reactor = reactor;
    this.#host = host;
  }

  /**
   * Connects to back-ends.
   *
   * @param inheritance what a predecessor left
   * @param abort ends the wait for their replies
   * @throws {Error} those that are connected to by then stay so until `close`
   */
  async open(
    configs: readonly VhostUserConfig[],
    inheritance?: Inheritance,
    abort?: AbortSignal,
  ): Promise<void> {
    for (const config of configs) {
      const backEnd = new BackEnd(config, this.#reactor, this.#host);
      this.#backEnds.set(config.id, backEnd);
      if (!backEnd.takeOver(inheritance)) await backEnd.connect(abort);
    }
  }

  /** A back-end, for a device on any thread. */
  description(id: string): VhostUserDescription {
    return this.#backEnds.get(id)!.description;
  }

  handOver(): Handover {
    const all = [...this.#backEnds.values()];
    return { fds: all.flatMap((one) => one.fds()), values: all.map((one) => one.value()) };
  }

  /** The guest is here: lost connections are this VMM's to make again. */
  arrive(): () => void {
    return () => this.hold(false);
  }

  /** Leaves lost connections to whom has the guest afterwards. */
  hold(isHeld: boolean): void {
    for (const backEnd of this.#backEnds.values()) backEnd.hold(isHeld);
  }

  /** The guest goes on in another process, from its saved state, which connects itself. */
  letGo(): void {
    for (const backEnd of this.#backEnds.values()) backEnd.letGo();
  }

  /** Connects again to those that were let go of. */
  takeBack(): void {
    for (const backEnd of this.#backEnds.values()) backEnd.takeBack();
  }

  /** Closes all; whoever has the connections too goes on with them. */
  close(): void {
    for (const backEnd of this.#backEnds.values()) backEnd.close();
    this.#backEnds.clear();
  }
}

/** A back-end, as the main thread has it. */
class BackEnd {
  readonly #config: VhostUserConfig;
  readonly #reactor: Reactor;
  readonly #host: VhostUserHost;
  readonly #slot = DescriptorSlot.allocate();
  readonly #space: Uint8Array<SharedArrayBuffer>;
  /** The thread that uses the connection says that it has ended. */
  readonly #wake = makeEventfd();
  readonly #closing = new AbortController();
  #kicks: OwnedFd[] = [];
  #calls: OwnedFd[] = [];
  #connection: OwnedFd | undefined;
  #agreed: Pick<Agreed, "features" | "inflight"> | undefined;
  #isInherited = false;
  #isHeld = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  /** Nothing is connected yet. */
  constructor(config: VhostUserConfig, reactor: Reactor, host: VhostUserHost) {
    this.#config = config;
    this.#reactor = reactor;
    this.#host = host;
    this.#space = new Uint8Array(new SharedArrayBuffer(config.needs.configSize));
    reactor.add(this.#wake.fd, Epoll.IN, () => {
      if (drainEvent(this.#wake.fd)) this.#lost();
    });
  }

  /** Goes on with what a predecessor had. @returns false if it had none */
  takeOver(inheritance: Inheritance | undefined): boolean {
    const { id, needs: { queues, queueSize, configSize } } = this.#config;
    const rings = Array.from({ length: queues }, (_, i) => i);
    const take = (name: string) =>
      rings.map((i) => inheritance?.takeFd(`${name}${i}`, id, { kind: "other" }) ?? makeEventfd());
    this.#kicks = take(KICK);
    this.#calls = take(CALL);
    const value = inheritance?.takeValue(VHOST_USER, id);
    if (!inheritance || !value) return false;
    this.#isHeld = inheritance.shared;
    const connection = inheritance.takeFd(SOCKET, id, { kind: "socket", listening: false });
    this.#isInherited = connection !== undefined;
    this.#connection = connection;
    if (value.length !== handed.size) {
      throw new Error(`vhost-user back-end '${id}' is described by ${value.length} bytes`);
    }
    const view = handed.view(value.slice().buffer);
    if (
      view.queues !== queues || view.queue_size !== queueSize || view.config_size !== configSize
    ) {
      throw new Error(
        `vhost-user back-end '${id}' has ${view.queues} queues of ${view.queue_size} entries in the` +
          ` old VMM, not ${queues} of ${queueSize}`,
      );
    }
    this.#space.set(view.config.subarray(0, configSize));
    const size = Number(view.inflight_size);
    const offset = Number(view.inflight_offset);
    const inflight = inheritance.takeFd(INFLIGHT, id, { kind: "file", bytes: offset + size });
    this.#agreed = {
      features: view.features,
      ...inflight && { inflight: { fd: inflight, size, offset, queues, queueSize } },
    };
    this.#slot.fd = connection?.fd;
    if (!connection) this.#reconnect();
    return true;
  }

  /**
   * Connects for the first time.
   *
   * @throws {Error} in QEMU's words if that fails, or what the back-end lacks
   */
  async connect(abort?: AbortSignal): Promise<void> {
    const { id, path } = this.#config;
    const connection = connectUnix(path, { nonblocking: true });
    try {
      await this.#agree(connection.fd, abort);
    } catch (error) {
      connection.close();
      abort?.throwIfAborted();
      throw new Error(`vhost-user back-end '${id}': ${(error as Error).message}`, { cause: error });
    }
    this.#use(connection);
  }

  /** For a device on any thread. */
  get description(): VhostUserDescription {
    const inflight = this.#agreed?.inflight;
    return {
      slot: this.#slot.buffer,
      wake: this.#wake.fd,
      features: this.#agreed!.features,
      config: this.#space.buffer,
      ...inflight && { inflight: { ...inflight, fd: inflight.fd.fd } },
      kicks: this.#kicks.map(({ fd }) => fd),
      calls: this.#calls.map(({ fd }) => fd),
      isInherited: this.#isInherited,
    };
  }

  /** The descriptors that a successor gets. */
  fds(): HandedFd[] {
    const { id } = this.#config;
    const inflight = this.#agreed?.inflight;
    const socket = this.#slot.fd;
    return [
      ...this.#kicks.map(({ fd }, i) => ({ name: `${KICK}${i}`, id, fd })),
      ...this.#calls.map(({ fd }, i) => ({ name: `${CALL}${i}`, id, fd })),
      ...socket === undefined ? [] : [{ name: SOCKET, id, fd: socket }],
      ...inflight ? [{ name: INFLIGHT, id, fd: inflight.fd.fd }] : [],
    ];
  }

  /** What a successor is told. */
  value(): HandedValue {
    const { id, needs } = this.#config;
    const inflight = this.#agreed?.inflight;
    const { bytes: data, view } = handed.alloc({
      features: this.#agreed!.features,
      inflight_size: BigInt(inflight?.size ?? 0),
      inflight_offset: BigInt(inflight?.offset ?? 0),
      queues: needs.queues,
      queue_size: needs.queueSize,
      config_size: needs.configSize,
    });
    view.config.set(this.#space);
    return { name: VHOST_USER, id, data };
  }

  /** Leaves a lost connection alone, or makes it again. */
  hold(isHeld: boolean): void {
    if (isHeld === this.#isHeld) return;
    this.#isHeld = isHeld;
    clearTimeout(this.#retry);
    if (!isHeld && !this.#connection) this.#reconnect();
  }

  /** Ends the connection: the back-end has one at a time. */
  letGo(): void {
    this.#isHeld = true;
    this.#disconnect();
  }

  /** Connects again, unless it is connected. */
  takeBack(): void {
    this.#isHeld = false;
    clearTimeout(this.#retry);
    if (!this.#connection) void this.#tryAgain();
  }

  /** Closes everything; a connection that a successor has too stays up. */
  close(): void {
    this.#closing.abort();
    clearTimeout(this.#retry);
    this.#reactor.remove(this.#wake.fd);
    this.#wake.close();
    this.#disconnect();
    for (const fd of [...this.#kicks, ...this.#calls]) fd.close();
    this.#agreed?.inflight?.fd.close();
  }

  #use(connection: OwnedFd): void {
    this.#connection = connection;
    this.#slot.fd = connection.fd;
    this.#host.connected(this.#config.id);
  }

  #disconnect(): void {
    this.#slot.fd = undefined;
    this.#connection?.close();
    this.#connection = undefined;
  }

  async #agree(fd: number, abort?: AbortSignal): Promise<void> {
    const limit = new AbortController();
    const late = new Error(`it does not answer within ${REPLY_LIMIT_MS / 1000} s`);
    const timer = setTimeout(() => limit.abort(late), REPLY_LIMIT_MS);
    try {
      const { features, config, inflight } = await negotiate(
        fd,
        this.#config.needs,
        this.#agreed,
        {
          reactor: this.#reactor,
          abort: AbortSignal.any([this.#closing.signal, limit.signal, ...abort ? [abort] : []]),
        },
      );
      this.#space.set(config);
      // What the guest was offered stays, whatever more another back-end has.
      this.#agreed ??= { features, inflight };
    } finally {
      clearTimeout(timer);
    }
  }

  /** The thread that used the connection does so no more. */
  #lost(): void {
    const { id, reconnectMs } = this.#config;
    if (this.#slot.fd !== undefined) return;
    this.#disconnect();
    this.#host.notice(
      `warning: the vhost-user back-end of chardev '${id}' is gone: ` +
        (reconnectMs === undefined
          ? "without reconnect-ms the device stands still for good"
          : "requests wait until it is back"),
    );
    this.#reconnect();
  }

  #reconnect(): void {
    const { reconnectMs } = this.#config;
    if (reconnectMs === undefined || this.#isHeld) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#tryAgain(), reconnectMs);
  }

  async #tryAgain(): Promise<void> {
    let connection: OwnedFd | undefined;
    try {
      connection = connectUnix(this.#config.path, { nonblocking: true });
      await this.#agree(connection.fd);
      if (this.#isHeld || this.#closing.signal.aborted) return connection.close();
      this.#use(connection);
    } catch {
      connection?.close();
      if (!this.#closing.signal.aborted) this.#reconnect();
    }
  }
}
