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
import { GdbSession } from "./session.ts";
import { DebugTarget } from "./target.ts";

/** How much of gdb's input is taken at a time. */
const READ_AHEAD = 4096;

/** Lets gdb debug a VM over one of its character devices. @throws {Error} if that is taken */
export function openGdb(vm: VirtualMachine, chardev: string): void {
  vm.chardevs.attach(chardev, new GdbFrontend(vm, vm.chardevs.get(chardev)));
}

class GdbFrontend implements CharacterFrontend, ByteTransport {
  readonly #vm: VirtualMachine;
  readonly #backend: CharacterBackend;
  /** Output that gdb has not taken yet. */
  #output: Uint8Array<ArrayBuffer>[] = [];
  #session: GdbSession | undefined;
  #busy = false;

  constructor(vm: VirtualMachine, backend: CharacterBackend) {
    this.#vm = vm;
    this.#backend = backend;
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
      this.#session ??= new GdbSession((onStop) => new DebugTarget(this.#vm, onStop), this);
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
