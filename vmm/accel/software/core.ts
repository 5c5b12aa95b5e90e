/**
 * One software CPU: its WebAssembly module, its memory, and its way of running.
 *
 * Whoever makes one maps guest RAM into `memory` (or is content with what is there) and writes the table
 * of regions in the state. A guest's exceptions leave the module as a JavaScript exception; `run` delivers
 * them and goes on.
 *
 * @module
 */
import { Compiler } from "./compiler/compiler.ts";
import type { CoreExports } from "./core_exports.ts";
import { cpuState, RAM_ADDRESS, STOP } from "./cpu_state.ts";
import type { View } from "../../../ffi/struct.ts";

/** What the CPU asks of the machine around it; numbers are 32 bits, addresses come in two halves. */
export interface CoreHost {
  /** Reads a port of `size` bytes (1, 2, 4). */
  portIn(port: number, size: number): number;
  portOut(port: number, size: number, value: number): void;
  /** Reads physical memory that is no RAM; `size` is 1, 2 or 4. */
  mmioRead(low: number, high: number, size: number): number;
  mmioWrite(low: number, high: number, size: number, value: number): void;
  /** Stores the host's TSC in `host_tsc`. */
  readTsc(): void;
  /** Reads an MSR of the chips into `msr_value`; 0 if there is none, which is #GP. */
  msrRead(index: number): number;
  msrWrite(index: number): number;
  /** Acknowledges an interrupt; -1 if none is pending. Sets `attention.interrupt` if more are. */
  interruptVector(): number;
  cr8Changed(): void;
  /** Sets `attention.flush` of all other CPUs of the machine, whose `cpu_bit` is not 0. */
  flushOthers?(): void;
  /** An x87 exception while CR0.NE is 0: IRQ 13. */
  fpuError(): void;
  /** 32 random bits. */
  random(): number;
}

/** What `raise` throws: an object of its own, made once, since throwing must cost little. */
const FAULT = { name: "exception of the guest" };

const PAGE = 0x10000;

/** A CPU. */
export class Core {
  /** The state, at address 0 of `memory`. */
  readonly state: View<typeof cpuState.fields>;
  readonly exports: CoreExports;
  readonly #compiler: Compiler;

  /**
   * @param module compiled core.wasm
   * @param memory its memory, see {@linkcode coreMemory}
   * @param host the machine around it
   */
  constructor(module: WebAssembly.Module, readonly memory: WebAssembly.Memory, host: CoreHost) {
    this.state = cpuState.view(memory.buffer);
    const raise = () => {
      throw FAULT;
    };
    const instance = new WebAssembly.Instance(module, {
      env: {
        memory,
        raise,
        portIn: (port: number, size: number) => host.portIn(port, size),
        portOut: (port: number, size: number, value: number) =>
          host.portOut(port, size, value >>> 0),
        mmioRead: (low: number, high: number, size: number) =>
          host.mmioRead(low >>> 0, high >>> 0, size),
        mmioWrite: (low: number, high: number, size: number, value: number) =>
          host.mmioWrite(low >>> 0, high >>> 0, size, value >>> 0),
        readTsc: () => host.readTsc(),
        msrRead: (index: number) => host.msrRead(index >>> 0),
        msrWrite: (index: number) => host.msrWrite(index >>> 0),
        interruptVector: () => host.interruptVector(),
        cr8Changed: () => host.cr8Changed(),
        flushOthers: () => host.flushOthers?.(),
        fpuError: () => host.fpuError(),
        random: () => host.random(),
      },
    });
    this.exports = instance.exports as unknown as CoreExports;
    this.#compiler = new Compiler(this.exports, memory);
  }

  /**
   * Executes about `budget` instructions.
   *
   * @returns one of `STOP`: why it has stopped
   */
  run(budget: number): number {
    this.#compiler.compileHot();
    try {
      return this.#runInside(budget);
    } finally {
      this.exports.goOutside();
    }
  }

  #runInside(budget: number): number {
    let left = budget;
    for (;;) {
      try {
        return this.exports.run(left);
      } catch (error) {
        if (error !== FAULT) throw error;
      }
      const stop = this.#deliver();
      if (stop !== STOP.budget) return stop;
      left = this.exports.budgetLeft();
      if (left <= 0) return STOP.budget;
    }
  }

  /**
   * As {@linkcode run}, but stops at the first exception, which is in the state's `fault_` fields and not
   * delivered.
   *
   * @returns false if there was one
   */
  runToFault(budget: number): boolean {
    try {
      this.exports.run(budget);
      return true;
    } catch (error) {
      if (error !== FAULT) throw error;
      return false;
    }
  }

  /**
   * Compiles the block at RIP and those around it that have been executed, as happens to what is hot.
   *
   * @param least how many instructions in a row are worth it
   * @returns false if there is nothing to compile
   */
  compileHere(least: number): boolean {
    try {
      return this.#compiler.compile(this.exports.findBlock(), least);
    } catch (error) {
      if (error !== FAULT) throw error;
      return false;
    }
  }

  /** Delivers the exception that was thrown, and those that its delivery throws. */
  #deliver(): number {
    for (;;) {
      try {
        return this.exports.deliverFault();
      } catch (error) {
        if (error !== FAULT) throw error;
      }
    }
  }
}

/**
 * Memory for a CPU.
 *
 * @param ram bytes of guest RAM that it has room for
 */
export function coreMemory(ram: number): WebAssembly.Memory {
  const pages = Math.ceil((RAM_ADDRESS + ram) / PAGE);
  if (pages > 65536) {
    throw new RangeError(
      `Cannot give the software CPU ${ram} bytes of RAM, it has room for ${
        65536 * PAGE - RAM_ADDRESS
      }`,
    );
  }
  return new WebAssembly.Memory({ initial: pages, maximum: 65536 });
}
