/**
 * Binds gdb to a character device: a session begins when gdb connects and ends when it goes.
 *
 * @module
 */
import type {
  CharacterBackend,
  CharacterEvent,
  CharacterFrontend,
} from "../../devices/chardev/backend.ts";
import type { ByteTransport } from "../monitor/transport.ts";
import type { VirtualMachine } from "../virtual_machine.ts";
import { GdbSession, type MonitorLine } from "./session.ts";
import { DebugTarget, type StopReason } from "./target.ts";

/** How much of gdb's input is taken at a time. */
const READ_AHEAD = 4096;

/**
 * Lets gdb debug a VM over one of its character devices.
 *
 * @param monitor executes what is typed after gdb's `monitor`
 * @throws {Error} if the character device is taken
 */
export function openGdb(vm: VirtualMachine, chardev: string, monitor?: MonitorLine): void {
  vm.chardevs.attach(chardev, new GdbFrontend(vm, vm.chardevs.get(chardev), monitor));
}

class GdbFrontend implements CharacterFrontend, ByteTransport {
  readonly #vm: VirtualMachine;
  readonly #backend: CharacterBackend;
  readonly #monitor: MonitorLine | undefined;
  /** Output that gdb has not taken yet. */
  #output: Uint8Array<ArrayBuffer>[] = [];
  #session: GdbSession | undefined;
  #busy = false;

  constructor(vm: VirtualMachine, backend: CharacterBackend, monitor?: MonitorLine) {
    this.#vm = vm;
    this.#backend = backend;
    this.#monitor = monitor;
  }

  /** Who does not read its replies gets no more of them. */
  inputRoom(): number {
    return this.#session && !this.#busy && this.#output.length === 0 ? READ_AHEAD : 0;
  }

  input(data: Uint8Array): void {
    this.#busy = true;
    try {
      this.#session!.receive(data.slice());
    } catch (error) {
      this.#vm.notice(`gdb: ${(error as Error).message}; the connection is closed`);
      this.#backend.hangUp();
    } finally {
      this.#busy = false;
    }
    this.#backend.acceptInput();
  }

  event(event: CharacterEvent): void {
    if (event === "opened" && this.#backend.held !== "everything") {
      const target = (onStop: (reason: StopReason) => void) => new DebugTarget(this.#vm, onStop);
      this.#session ??= new GdbSession(target, this, this.#monitor);
    } else if (event === "closed") this.#end();
  }

  writable(): void {
    while (this.#output.length > 0) {
      const [chunk] = this.#output;
      const taken = this.#backend.write(chunk);
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
    if (this.#output.length === 1) this.writable();
  }

  close(): void {
    this.#backend.hangUp();
  }

  #end(): void {
    const session = this.#session;
    this.#session = undefined;
    this.#output = [];
    session?.close();
  }
}
