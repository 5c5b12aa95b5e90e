/**
 * The multiplexer: several frontends on one backend, with keys to switch between them.
 *
 * @module
 */
import type { Reactor } from "../../ffi/reactor.ts";
import type {
  CharacterBackend,
  CharacterEvent,
  CharacterFrontend,
  ChardevState,
  Held,
  KeptFd,
} from "./backend.ts";
import type { SinkDescription } from "./sink.ts";
import type { StreamBackend } from "./stream_backend.ts";

const MAX_FRONTENDS = 4;
/** C-a. */
const DEFAULT_ESCAPE = 1;
/**
 * Input that is read ahead for a frontend without room: so that C-a is seen although the guest
 * does not read its console (QEMU has the same number).
 */
const READ_AHEAD = 32;

/** What the key prints that asks for help. */
function help(escape: number): string {
  const isControl = escape >= 1 && escape <= 26;
  const key = isControl ? `C-${String.fromCharCode(escape + 96)}` : `0x${escape.toString(16)}`;
  const lines = [
    `${key} h    print this help`,
    `${key} x    exit emulator`,
    `${key} s    save disk data back to file (if -snapshot)`,
    `${key} t    toggle console timestamps`,
    `${key} b    send break (magic sysrq)`,
    `${key} c    switch between console and monitor`,
    `${key} ${key}  sends ${key}`,
  ];
  return ["", ...lines, ""].join("\n\r");
}

/** A frontend with the input that it has had no room for. */
interface Port {
  readonly frontend: CharacterFrontend;
  readonly queue: number[];
  /** The peer has gone, which the frontend is told when it has read what the peer has left. */
  closing: boolean;
}

/** What the command line says of a multiplexer. */
export interface MuxConfig {
  /** The multiplexer's id. */
  readonly label: string;
  /** The key that begins its commands, as a byte. */
  readonly escape?: number;
}

/** Shares a backend between up to four frontends; the one with the focus gets the input. */
export class Mux implements CharacterBackend {
  readonly filename = "mux";
  readonly label: string;
  /** The backend itself; its label is the multiplexer's with `-base`. */
  readonly base: StreamBackend;
  readonly #escape: number;
  readonly #quit: () => void;
  readonly #ports: Port[] = [];
  #focus = -1;
  #escaped = false;
  /** The predecessor's state, until the frontends are there that it belongs to. */
  #restored: ChardevState;

  /**
   * Makes a multiplexer without frontends.
   *
   * @param base the backend, which has no frontend
   * @param config its id and its key
   * @param quit called by C-a x
   * @param restored what `saveState()` gave; the frontends must come in the same order again
   */
  constructor(
    base: StreamBackend,
    { label, escape = DEFAULT_ESCAPE }: MuxConfig,
    quit: () => void,
    restored: ChardevState = {},
  ) {
    this.label = label;
    this.base = base;
    this.#escape = escape;
    this.#quit = quit;
    this.#restored = restored;
    this.#takeFlags();
  }

  get connected(): boolean {
    return this.base.connected;
  }

  get frontendOpen(): boolean {
    return this.#ports.length > 0;
  }

  get sink(): SinkDescription {
    return this.base.sink;
  }

  attach(reactor: Reactor, frontend: CharacterFrontend): void {
    if (this.#ports.length === MAX_FRONTENDS) {
      throw new Error(
        `too many uses of multiplexed chardev '${this.label}' (maximum is ${MAX_FRONTENDS})`,
      );
    }
    const index = this.#ports.length;
    this.#ports.push({ frontend, queue: this.#restoredQueue(index), closing: false });
    if (index === 0) this.base.attach(reactor, this.#input());
    else {
      if (this.connected) frontend.event("opened");
      frontend.writable();
    }
    // As in QEMU the frontend that came last has the focus.
    const focus = this.#restored.muxFocus;
    if (typeof focus !== "number" || focus === index) this.#setFocus(index);
    this.#deliver();
  }

  write(data: Uint8Array): number {
    return this.base.write(data);
  }

  acceptInput(): void {
    this.base.acceptInput();
  }

  sendBreak(): void {
    this.base.sendBreak();
  }

  receiveBreak(): void {
    this.#ports[this.#focus]?.frontend.event("break");
  }

  hangUp(): void {
    this.base.hangUp();
  }

  keptFds(): KeptFd[] {
    return this.base.keptFds();
  }

  get held(): Held {
    return this.base.held;
  }

  set held(held: Held) {
    this.base.held = held;
  }

  saveState(): ChardevState {
    const queues = this.#ports.map(({ queue }, i) => [`muxQueue${i}`, toHex(queue)]);
    return {
      ...this.base.saveState(),
      muxFocus: this.#focus,
      muxEscaped: this.#escaped,
      muxTimestamps: this.base.stamping,
      ...Object.fromEntries(queues),
    };
  }

  restoreState(state: ChardevState): void {
    this.#restored = state;
    this.#takeFlags();
    this.#ports.forEach(({ queue }, i) => queue.splice(0, queue.length, ...this.#restoredQueue(i)));
    const focus = state.muxFocus;
    if (typeof focus === "number" && focus !== this.#focus && focus < this.#ports.length) {
      this.#setFocus(focus);
    }
    this.base.restoreState(state);
  }

  release(): void {
    this.base.release();
  }

  close(): void {
    this.base.close();
  }

  /** The multiplexer as the backend's frontend. */
  #input(): CharacterFrontend {
    return {
      inputRoom: () => {
        // Asked whenever a frontend has made room: it may be for what was read ahead.
        this.#deliver();
        return Math.max(0, READ_AHEAD - (this.#ports[this.#focus]?.queue.length ?? 0));
      },
      input: (data) => {
        for (const byte of data) this.#byte(byte);
        this.#deliver();
      },
      event: (event) => {
        if (event === "break") return this.receiveBreak();
        if (event === "closed") return this.#peerGone();
        for (const port of this.#ports) {
          this.#closeFinally(port);
          port.frontend.event(event);
        }
      },
      writable: () => {
        for (const { frontend } of this.#ports) frontend.writable();
      },
    };
  }

  #byte(byte: number): void {
    if (this.#escaped) {
      this.#escaped = false;
      if (byte !== this.#escape) return this.#command(String.fromCharCode(byte));
    } else if (byte === this.#escape) {
      this.#escaped = true;
      return;
    }
    this.#ports[this.#focus].queue.push(byte);
  }

  #command(key: string): void {
    switch (key) {
      case "h":
      case "?":
        this.#print(help(this.#escape));
        break;
      case "x":
        this.#print("QEMU: Terminated\n\r");
        this.#quit();
        break;
      case "t":
        this.base.stamping = !this.base.stamping;
        break;
      case "b":
        this.#deliver();
        this.receiveBreak();
        break;
      case "c":
        this.#setFocus((this.#focus + 1) % this.#ports.length);
        break;
        // C-a s commits -snapshot disks, of which there are none.
    }
  }

  #print(text: string): void {
    this.write(new TextEncoder().encode(text));
  }

  #setFocus(index: number): void {
    const notify = (event: CharacterEvent) => this.#ports[this.#focus]?.frontend.event(event);
    notify("mux-out");
    this.#focus = index;
    notify("mux-in");
  }

  /** Gives every frontend what was read ahead for it, as far as it has room. */
  #deliver(): void {
    if (this.held === "everything") return;
    for (const port of this.#ports) {
      const { frontend, queue } = port;
      // A frontend without room may still be at work on what it was given last.
      while (queue.length > 0 || port.closing) {
        const room = frontend.inputRoom() || this.#awaitRoom(frontend);
        if (room <= 0) break;
        if (queue.length === 0) this.#closeFinally(port);
        else frontend.input(Uint8Array.from(queue.splice(0, room)));
      }
    }
  }

  /** A peer that types a command and goes, such as a pipe, has its command run. */
  #peerGone(): void {
    for (const port of this.#ports) port.closing = true;
    this.#deliver();
  }

  #closeFinally(port: Port): void {
    if (!port.closing) return;
    port.closing = false;
    port.frontend.event("closed");
  }

  #takeFlags(): void {
    this.#escaped = this.#restored.muxEscaped === true;
    if (this.#restored.muxTimestamps !== undefined) {
      this.base.stamping = this.#restored.muxTimestamps === true;
    }
  }

  #awaitRoom(frontend: CharacterFrontend): number {
    // The order matters: a thread that makes room after the first line wakes the backend.
    this.base.expectRoom();
    return frontend.inputRoom();
  }

  #restoredQueue(index: number): number[] {
    const saved = this.#restored[`muxQueue${index}`];
    return typeof saved === "string" ? [...Uint8Array.fromHex(saved)] : [];
  }
}

function toHex(bytes: readonly number[]): string {
  return Uint8Array.from(bytes).toHex();
}
