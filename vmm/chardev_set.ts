/**
 * The VM's character devices: opened by id, bound to the devices that use them.
 *
 * @module
 */
import type {
  CharacterBackend,
  CharacterEvent,
  CharacterFrontend,
  ChardevState,
  Held,
} from "../devices/chardev/backend.ts";
import {
  type ChardevHost,
  connectChardev,
  openChardev,
  resolveChardev,
  waitForClient,
} from "../devices/chardev/open.ts";
import type { SinkDescription } from "../devices/chardev/sink.ts";
import { refuseBoundPath } from "../ffi/socket.ts";
import type { Reactor } from "../ffi/reactor.ts";
import {
  CHARDEV_FD,
  CHARDEV_STATE,
  closeUnused,
  decodeState,
  encodeState,
  takeKept,
} from "./chardev_handover.ts";
import type { ChardevConfig, MonitorConfig } from "./config.ts";
import type { DeviceSet } from "./bus/device_set.ts";
import type {
  HandedFd,
  HandedValue,
  Handover,
  Inheritance,
  Keeper,
  Successor,
} from "./inheritance.ts";

/** Where a backend's state holds those of its frontends; their number follows. */
const FRONTEND = "frontend";
/** The descriptor that new clients come to, in a socket's backend. */
const LISTENER = "listener";

/** Character backends by id. */
export class ChardevSet implements Keeper {
  readonly changing = CHARDEV_STATE;
  readonly #reactor: Reactor;
  readonly #host: ChardevHost;
  readonly #backends = new Map<string, CharacterBackend>();
  /** In the order in which they came: a multiplexer has several. */
  readonly #frontends = new Map<string, CharacterFrontend[]>();
  /** What a predecessor's backends and frontends were when it last said. */
  readonly #states = new Map<string, ChardevState>();
  readonly #configs = new Map<string, ChardevConfig>();
  /** Ids of those that monitors use. */
  readonly #monitors = new Set<string>();
  /** What a successor has been told of the state of each backend that it has too. */
  readonly #told = new Map<string, string>();
  /** Backends whose connections still are a predecessor's. */
  readonly #borrowed = new Set<string>();

  /**
   * @param reactor watches the backends' descriptors
   * @param host what backends ask of the VMM
   */
  constructor(reactor: Reactor, host: ChardevHost) {
    this.#reactor = reactor;
    this.#host = host;
  }

  /** All backends. */
  get backends(): ReadonlyMap<string, CharacterBackend> {
    return this.#backends;
  }

  /** The configuration of each backend. */
  get configs(): ReadonlyMap<string, ChardevConfig> {
    return this.#configs;
  }

  /**
   * Opens backends.
   *
   * @param configs what to open
   * @param monitors the monitors, some of which use them
   * @param inheritance what a predecessor left; descriptors of backends that there are none of here
   *   are closed
   * @param options.abort ends the wait for what is outside
   * @param options.successor whether a predecessor may still listen where these shall
   * @throws {Error} in QEMU's words; those opened by then stay open until `close`
   */
  async open(
    configs: readonly ChardevConfig[],
    monitors: readonly MonitorConfig[],
    inheritance?: Inheritance,
    { abort, successor = false }: {
      readonly abort?: AbortSignal;
      readonly successor?: boolean;
    } = {},
  ): Promise<void> {
    for (const { chardev } of monitors) this.#monitors.add(chardev);
    for (const config of configs) {
      if (this.#backends.has(config.id)) {
        throw new Error(`Chardev with id '${config.id}' already exists`);
      }
      const inherited = config.cpr === false ? undefined : takeKept(inheritance, config.id);
      if (!successor) refuseUsedPath(config);
      const resolved = inherited ? config : await resolveChardev(config, abort);
      const connection = inherited
        ? undefined
        : await connectChardev(resolved, this.#reactor, abort);
      const backend = openChardev(resolved, this.#host, inherited, connection);
      this.#backends.set(config.id, backend);
      this.#configs.set(config.id, config);
      if (inherited) {
        this.#borrowed.add(config.id);
        this.#states.set(config.id, inherited.state);
      }
      if (inherited && inheritance?.shared && this.keeps(config.id) === "all") {
        backend.held = "everything";
      }
    }
    if (inheritance) closeUnused(inheritance);
  }

  handOver(to: Successor): Handover {
    const fds: HandedFd[] = [];
    const values: HandedValue[] = [];
    for (const [id, backend] of this.#backends) {
      const keeps = this.keeps(id);
      if (keeps === "nothing" || (to === "neighbour" && keeps !== "all")) continue;
      const state = keeps === "all" ? this.stateOf(id) : backend.saveState();
      if (keeps === "all") this.#told.set(id, JSON.stringify(state));
      values.push(encodeState(id, keeps === "listener" ? { ...state, connected: false } : state));
      for (const { name, fd } of backend.keptFds()) {
        if (keeps !== "listener" || name === LISTENER) {
          fds.push({ name: CHARDEV_FD + name, id, fd });
        }
      }
    }
    return { fds, values };
  }

  /**
   * The states of the backends which a neighbour has too, where they are not what it has been told:
   * as a rule nothing has changed, and there is nothing to write and to read while the guest waits.
   */
  changes(): HandedValue[] {
    const changes: HandedValue[] = [];
    for (const id of this.#backends.keys()) {
      if (this.keeps(id) !== "all") continue;
      const state = this.stateOf(id);
      if (JSON.stringify(state) !== this.#told.get(id)) changes.push(encodeState(id, state));
    }
    return changes;
  }

  arrive(changes: readonly HandedValue[]): () => void {
    const states = new Map(changes.map(({ id, data }) => [id, decodeState(id, data)]));
    return () => this.#takeOver(states);
  }

  /** The guest has arrived: what was a predecessor's is this VM's own. */
  #takeOver(states: ReadonlyMap<string, ChardevState>): void {
    this.#borrowed.clear();
    for (const [id, state] of states) {
      this.#backends.get(id)?.restoreState(state);
      this.#states.set(id, state);
    }
    for (const [id, backend] of this.#backends) {
      if (backend.held === "nothing") continue;
      backend.held = "nothing";
      this.#frontends.get(id)?.forEach((frontend, i) => this.#restore(frontend, id, i));
    }
  }

  /** What a successor must know of a backend, and of those who use it. */
  stateOf(id: string): ChardevState {
    const state: Record<string, ChardevState[string]> = { ...this.get(id).saveState() };
    this.#frontends.get(id)?.forEach((frontend, i) => {
      const own = frontend.saveState?.();
      if (own !== undefined) state[`${FRONTEND}${i}`] = own;
    });
    return state;
  }

  /** Whether a predecessor's frontends have left something to go on from. */
  get hasFrontendStates(): boolean {
    return [...this.#states.values()].some((state) =>
      Object.keys(state).some((key) => key.startsWith(FRONTEND))
    );
  }

  #restore(frontend: CharacterFrontend, id: string, index: number): void {
    const state = this.#states.get(id)?.[`${FRONTEND}${index}`];
    frontend.restoreState?.(typeof state === "string" ? state : undefined);
  }

  /**
   * What a successor takes over of a backend. A monitor's connection ends, as under QEMU, so that
   * its client negotiates anew. A successor in the place of this VMM finds the monitor's `listener`
   * or, without one, the terminal it is on (`in place`); a successor beside it has monitors of its
   * own. `cpr=on` hands the connection over too, `cpr=off` nothing.
   */
  keeps(id: string): "all" | "listener" | "in place" | "nothing" {
    const config = this.#configs.get(id);
    if (config?.cpr === false) return "nothing";
    if (!this.#monitors.has(id) || config?.mux || config?.cpr) return "all";
    return config?.backend === "socket" || config?.backend === "fd" ? "listener" : "in place";
  }

  /** Leaves alone what the peers of those backends do that a successor has as well. */
  hold(held: Held): void {
    for (const [id, backend] of this.#backends) {
      if (this.keeps(id) !== "all") continue;
      backend.held = held;
      if (held === "nothing") this.#frontends.get(id)?.forEach((frontend) => frontend.writable());
    }
  }

  /** Whether somebody's session moves with its connection. */
  get movesSessions(): boolean {
    return [...this.#frontends].some(([id, frontends]) =>
      this.keeps(id) === "all" && frontends.some((one) => one.saveState?.() !== undefined)
    );
  }

  /** The same for monitors whose connections are not kept. */
  holdMonitors(held: Held): void {
    for (const [id, backend] of this.#backends) {
      if (["listener", "in place"].includes(this.keeps(id))) backend.held = held;
    }
  }

  /**
   * Lets go of the backends that a successor goes on with.
   *
   * @param monitors of what it takes over of monitors too, being in the place of this VMM
   */
  releaseKept(monitors = false): void {
    for (const id of [...this.#backends.keys()]) {
      const keeps = this.keeps(id);
      if (keeps === "all" || (monitors && keeps !== "nothing")) this.release(id);
    }
  }

  /** Waits for the first client of each server with `wait=on`; rejects by `abort`. */
  async waitForClients(abort: AbortSignal): Promise<void> {
    for (const backend of this.#backends.values()) {
      await waitForClient(backend, this.#reactor, this.#host, abort);
    }
  }

  /** A backend by id. @throws {Error} in QEMU's words if there is none */
  get(id: string): CharacterBackend {
    const backend = this.#backends.get(id);
    if (!backend) throw new Error(`Chardev '${id}' not found`);
    return backend;
  }

  /** A backend's sink, for devices on any thread. */
  sink(id: string): SinkDescription {
    return this.get(id).sink;
  }

  /** Binds a frontend to a backend. @throws {Error} if the backend is taken */
  attach(id: string, frontend: CharacterFrontend): void {
    const backend = this.get(id);
    backend.attach(this.#reactor, frontend);
    const frontends = this.#frontends.get(id) ?? [];
    this.#frontends.set(id, frontends);
    const index = frontends.push(frontend) - 1;
    if (backend.held === "nothing" && this.#states.has(id)) this.#restore(frontend, id, index);
  }

  /**
   * Binds every device that has a `chardev` to it.
   *
   * @param devices the devices
   * @param takesInput asked before anything is read: input that comes while the devices' state is
   *   on its way stays in the host's buffers, for whoever has the guest afterwards
   */
  attachDevices(devices: DeviceSet, takesInput: () => boolean): void {
    for (const { type, id, properties } of devices.devices) {
      if (typeof properties.chardev === "string" && !type.vhostUser) {
        this.attach(properties.chardev, new DeviceFrontend(devices, id, takesInput));
      }
    }
  }

  /** Reading may go on where it has stopped, if the frontends have room. */
  acceptInput(): void {
    for (const backend of this.#backends.values()) backend.acceptInput();
  }

  /** Closes a backend that nobody uses. @throws {Error} in QEMU's words */
  remove(id: string): void {
    const backend = this.#backends.get(id);
    if (!backend) throw new Error(`Chardev '${id}' not found`);
    if (backend.frontendOpen) throw new Error(`Chardev '${id}' is busy`);
    backend.close();
    this.#forget(id);
  }

  /**
   * Closes all backends and leaves the host as it was found; but connections of a predecessor that
   * still has the guest are left alone.
   */
  close(): void {
    for (const [id, backend] of this.#backends) {
      if (this.#borrowed.has(id)) backend.release();
      else backend.close();
    }
    this.#backends.clear();
  }

  /** Closes a backend that somebody uses; without effect if there is none. */
  disconnect(id: string): void {
    const frontends = this.#frontends.get(id) ?? [];
    this.#backends.get(id)?.close();
    this.#forget(id);
    for (const frontend of frontends) frontend.event("closed");
  }

  /** Closes a backend, but leaves to a successor what it goes on using. */
  release(id: string): void {
    const frontends = this.#frontends.get(id) ?? [];
    this.#backends.get(id)?.release();
    this.#forget(id);
    // What they have still to do and to say is the successor's.
    for (const frontend of frontends) frontend.event("closed");
  }

  #forget(id: string): void {
    this.#backends.delete(id);
    this.#configs.delete(id);
    this.#frontends.delete(id);
  }
}

/**
 * A live VMM's monitor or console must not be taken from it by who starts the same VM again.
 *
 * @throws {Error}
 */
function refuseUsedPath(config: ChardevConfig): void {
  if (config.backend !== "socket" || config.family !== "unix" || !config.server) return;
  refuseBoundPath(config.path);
}

/** A device's character side, reached from the main thread. */
class DeviceFrontend implements CharacterFrontend {
  readonly #devices: DeviceSet;
  readonly #id: string;
  readonly #takesInput: () => boolean;

  constructor(devices: DeviceSet, id: string, takesInput: () => boolean) {
    this.#devices = devices;
    this.#id = id;
    this.#takesInput = takesInput;
  }

  inputRoom(): number {
    if (!this.#takesInput()) return 0;
    return this.#devices.with(this.#id, (device) => device.inputRoom?.() ?? 0);
  }

  input(data: Uint8Array): void {
    this.#devices.with(this.#id, (device) => device.input?.(data));
  }

  event(event: CharacterEvent): void {
    if (event === "break") this.#devices.with(this.#id, (device) => device.inputBreak?.());
    if (event === "opened" || event === "closed") {
      this.#devices.with(this.#id, (device) => device.peerChanged?.(event === "opened"));
    }
  }

  writable(): void {
    this.#devices.with(this.#id, (device) => device.writable?.());
  }
}
