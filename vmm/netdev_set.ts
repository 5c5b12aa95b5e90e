/**
 * The VM's network backends: opened by id, and handed to a successor with all that is in them.
 *
 * @module
 */
import type { NetdevConfig } from "../devices/net/config.ts";
import type { NetPortDescription } from "../devices/net/port.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { describeKey, type Handover, type Inheritance, type Keeper } from "./inheritance.ts";
import { DATA, LISTENER, NETDEV, Netdev, type NetdevHost } from "./netdev.ts";
import { ThrottleSet } from "./throttle_set.ts";
import { VsockSet } from "./vsock_set.ts";

/** Network backends by id. */
export class NetdevSet implements Keeper {
  /** What is no network, and passes as its interfaces do: the guest's numbers for sockets. */
  readonly vsocks: VsockSet;
  readonly #reactor: Reactor;
  readonly #host: NetdevHost;
  readonly #throttles: ThrottleSet;
  readonly #backends = new Map<string, Netdev>();

  /**
   * @param reactor watches listeners and the ends of connections
   * @param host what backends ask of the VMM
   * @param throttles limits on what backends send and receive
   */
  constructor(reactor: Reactor, host: NetdevHost, throttles: ThrottleSet = new ThrottleSet()) {
    this.#throttles = throttles;
    this.#reactor = reactor;
    this.#host = host;
    this.vsocks = new VsockSet(host);
  }

  /** All backends. */
  get backends(): ReadonlyMap<string, Netdev> {
    return this.#backends;
  }

  /**
   * Opens backends.
   *
   * @param inheritance what a predecessor left
   * @param abort ends the wait for what is outside
   * @throws {Error} those opened by then stay open until `close`
   */
  async open(
    configs: readonly NetdevConfig[],
    inheritance?: Inheritance,
    abort?: AbortSignal,
  ): Promise<void> {
    for (const config of configs) {
      const { throttleGroup: group } = config;
      if (group !== undefined && !this.#throttles.has(group)) {
        throw new Error(`Throttle group '${group}' does not exist`);
      }
      const backend = new Netdev(config, this.#reactor, this.#host);
      this.#backends.set(config.id, backend);
      if (inheritance?.shared) backend.hold(true);
      if (config.cpr !== false) await backend.open(inheritance, abort);
      else {
        for (const fd of inheritance?.takeFds(NETDEV, config.id).values() ?? []) fd.close();
        await backend.open(undefined, abort);
      }
    }
    if (inheritance) refuseUnknown(inheritance);
  }

  /**
   * Opens one more backend.
   *
   * @throws {Error} in QEMU's words; nothing is left of it then
   */
  async add(config: NetdevConfig): Promise<void> {
    if (this.#backends.has(config.id)) throw new Error(`Duplicate ID '${config.id}'`);
    try {
      await this.open([config]);
    } catch (error) {
      this.remove(config.id);
      throw error;
    }
  }

  /** Closes a backend that no card has. */
  remove(id: string): void {
    this.#backends.get(id)?.close(false);
    this.#backends.delete(id);
  }

  /** A backend's port, for a device on any thread. @throws {Error} if there is none */
  port(id: string): NetPortDescription {
    const backend = this.#backends.get(id);
    if (!backend) throw new Error(`Netdev '${id}' not found`);
    const { throttleGroup: group } = backend.config;
    const limits = group !== undefined && { throttle: this.#throttles.group(group).shared };
    return { ...backend.port, ...limits };
  }

  handOver(): Handover {
    return { fds: [...this.#backends.values()].flatMap((one) => one.kept()), values: [] };
  }

  /** A card that the kernel serves has not been seen to go on in another process. */
  blockers(): string[] {
    return [...this.#backends.values()].flatMap(({ config }) =>
      config.type === "tap" && config.vhost
        ? [`netdev '${config.id}' has vhost=on: its card goes to a new VMM by cpr-reboot alone`]
        : []
    );
  }

  /** The guest is here, and with it what comes to the backends. */
  arrive(): () => void {
    return () => {
      for (const backend of this.#backends.values()) backend.own();
      this.hold(false);
      this.vsocks.arrive();
    };
  }

  /** Leaves clients that come to whom has the guest afterwards. */
  hold(isHeld: boolean): void {
    for (const backend of this.#backends.values()) backend.hold(isHeld);
  }

  /** The guest goes on in another process, from its saved state: leaves to it what only one can have. */
  letGo(): void {
    for (const backend of this.#backends.values()) backend.letGo();
    this.vsocks.letGo();
  }

  /** Takes that again. @returns false if another process has it */
  takeBack(): boolean {
    try {
      for (const backend of this.#backends.values()) backend.takeBack();
      this.vsocks.takeBack();
      return true;
    } catch {
      this.letGo();
      return false;
    }
  }

  /** Lets go of what a successor goes on with. */
  releaseKept(): void {
    this.vsocks.letGo();
    for (const [id, backend] of this.#backends) {
      if (backend.config.cpr === false) continue;
      backend.close(true);
      this.#backends.delete(id);
    }
  }

  /** Closes all. */
  close(): void {
    for (const backend of this.#backends.values()) backend.close(false);
    this.#backends.clear();
    this.vsocks.close();
  }
}

/** @throws {Error} if a predecessor left what none of the backends is for */
function refuseUnknown(inheritance: Inheritance): void {
  const [unknown] = [DATA, LISTENER].flatMap((name) => inheritance.idsOf(name));
  if (unknown === undefined) return;
  throw new Error(
    `The guest has a network backend ${describeKey(unknown, "")} that this VMM has not: give it` +
      " a -netdev of that id, or netdev_del it in the old VMM first",
  );
}
