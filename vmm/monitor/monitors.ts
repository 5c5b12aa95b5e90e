/**
 * Binds monitors to character devices: a session begins when a peer is there and ends when it goes.
 *
 * @module
 */
import type {
  CharacterBackend,
  CharacterEvent,
  CharacterFrontend,
} from "../../devices/chardev/backend.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { ChardevSet } from "../chardev_set.ts";
import type { MonitorConfig } from "../config.ts";
import type { CommandSet } from "./context.ts";
import type { MachineControl } from "./control.ts";
import { HmpSession } from "./hmp.ts";
import { toBytes, toLatin1 } from "./latin1.ts";
import { QmpSession } from "./qmp.ts";
import type { HmpState, QmpState, sessionState } from "./schema/session.ts";
import type { ByteTransport } from "./transport.ts";

/** How much of a client's input waits while its commands run. */
const READ_AHEAD = 4096;

/**
 * How many bytes a client that does not read may leave to wait, before the connection is ended: a
 * guest that resets over and over must not fill the host's memory with events.
 */
const MAX_UNREAD = 16 << 20;

/** What all monitors of a VM share. */
export interface MonitorParts {
  readonly chardevs: ChardevSet;
  readonly machine: MachineControl;
  readonly table: CommandSet;
  /** Reads sessions that a predecessor left; without it they begin anew. */
  readonly sessionState?: typeof sessionState;
}

/** Opens the monitors. @throws {Error} in QEMU's words if a character device is missing or taken */
export function openMonitors(configs: readonly MonitorConfig[], parts: MonitorParts): void {
  for (const config of configs) {
    parts.chardevs.attach(config.chardev, new MonitorFrontend(config, parts));
  }
}

class MonitorFrontend implements CharacterFrontend, ByteTransport {
  readonly #config: MonitorConfig;
  readonly #parts: MonitorParts;
  readonly #backend: CharacterBackend;
  /** Output that the peer has not taken yet. */
  readonly #output: Uint8Array<ArrayBuffer>[] = [];
  #unread = 0;
  #session: QmpSession | HmpSession | undefined;
  #busy = false;
  #connected = false;
  #focused = true;

  constructor(config: MonitorConfig, parts: MonitorParts) {
    this.#config = config;
    this.#parts = parts;
    this.#backend = parts.chardevs.get(config.chardev);
  }

  readonly wantsFds = true;

  /** A client that does not read its replies gets no more of them. */
  inputRoom(): number {
    return this.#session && !this.#busy && this.#unread === 0 ? READ_AHEAD : 0;
  }

  input(data: Uint8Array, fds?: readonly OwnedFd[]): void {
    const session = this.#session!;
    this.#busy = true;
    session.receive(data.slice(), fds).finally(() => {
      if (session !== this.#session) return;
      this.#busy = false;
      this.#backend.acceptInput();
    });
  }

  event(event: CharacterEvent): void {
    switch (event) {
      case "opened":
        this.#connected = true;
        // The focus of a multiplexer goes on to the frontend that is bound next.
        return queueMicrotask(() => this.#greet());
      case "mux-in":
        this.#focused = true;
        return queueMicrotask(() => this.#greet());
      case "mux-out":
        this.#focused = false;
        return;
      case "closed":
        this.#connected = false;
        return this.#end();
    }
  }

  writable(): void {
    // What comes while the connection may be a successor's waits until that is known.
    if (this.#backend.held === "everything") return;
    while (this.#output.length > 0) {
      const [chunk] = this.#output;
      const taken = this.#backend.write(chunk);
      this.#unread -= taken;
      if (taken < chunk.length) {
        this.#output[0] = chunk.subarray(taken);
        return;
      }
      this.#output.shift();
    }
    this.#backend.acceptInput();
  }

  write(bytes: Uint8Array<ArrayBuffer>): void {
    this.#output.push(bytes);
    this.#unread += bytes.length;
    if (this.#output.length === 1) this.writable();
    if (this.#unread <= MAX_UNREAD) return;
    this.#end();
    this.#backend.hangUp();
  }

  /** The peer closes connections, or the VM when it ends. */
  close(): void {
    this.#output.length = this.#unread = 0;
  }

  saveState(): string | undefined {
    if (!this.#session) return undefined;
    const output = this.#output.map(toLatin1).join("");
    return JSON.stringify({ output, session: this.#session.save() });
  }

  restoreState(text: string | undefined): void {
    const state = text === undefined ? undefined : this.#read(text);
    if (!this.#connected || !state) return this.#greet();
    const { machine, table } = this.#parts;
    if (state.output !== "") this.write(toBytes(state.output));
    // Somebody's command line may have made a monitor of another kind of it.
    if (this.#config.mode === "control" && "negotiated" in state.session) {
      this.#session = this.#qmpSession(state.session);
    } else if (this.#config.mode !== "control" && "readline" in state.session) {
      this.#session = new HmpSession(machine, table, this, state.session);
    } else this.#greet();
  }

  #read(text: string): { output: string; session: HmpState | QmpState } | undefined {
    try {
      return this.#parts.sessionState?.parse(JSON.parse(text));
    } catch {
      // Only the line is lost: the client is greeted, and begins anew.
      return undefined;
    }
  }

  /**
   * A session on a multiplexer begins, banner and all, when the user first switches to it; one on a
   * connection that still is a predecessor's does not begin.
   */
  #greet(): void {
    if (!this.#connected || !this.#focused || this.#session) return;
    if (this.#backend.held === "everything") return;
    const { machine, table } = this.#parts;
    this.#session = this.#config.mode === "control"
      ? this.#qmpSession()
      : new HmpSession(machine, table, this);
  }

  #qmpSession(state?: QmpState): QmpSession {
    const { machine, table } = this.#parts;
    return new QmpSession(machine, table, this, { pretty: this.#config.pretty }, state);
  }

  #end(): void {
    this.#session?.close();
    this.#session = undefined;
    this.#busy = false;
    this.close();
  }
}
