/**
 * Compiles what is hot: the block that the CPU names (`core/compiled.ts`), with those around it.
 *
 * @module
 */
import type { CoreExports } from "../core_exports.ts";
import { Derived } from "./layout.ts";
import { compileRegion, isEntry } from "./compile.ts";
import { Blocks } from "./records.ts";
import { chooseRegion } from "./region.ts";

/** How many functions more the table gets room for at a time. */
const ROOM = 256;
/** What V8 has to keep in mind; a guest with more code that is hot is slow for another reason. */
const MOST_FUNCTIONS = 4096;
/** To enter a function costs about as much as three instructions. */
const LEAST = 3;

/** Compiles one CPU's code. */
export class Compiler {
  readonly #exports: CoreExports;
  readonly #memory: WebAssembly.Memory;
  readonly #blocks: Blocks;
  readonly #hot: Uint32Array;
  /** Where the CPU's own functions end in its table. */
  readonly #first: number;
  #next: number;
  #generation = 0;

  constructor(exports: CoreExports, memory: WebAssembly.Memory) {
    this.#exports = exports;
    this.#memory = memory;
    this.#blocks = new Blocks(memory.buffer as ArrayBuffer);
    this.#hot = new Uint32Array(memory.buffer, Derived.HOT_BLOCK, 1);
    this.#first = this.#next = exports.table.length;
  }

  /** Compiles the block that has become hot, if one has. */
  compileHot(): void {
    const block = this.#hot[0];
    if (block === 0) return;
    this.#hot[0] = 0;
    this.compile(block, LEAST);
  }

  /**
   * Compiles a block and those around it.
   *
   * @param least how many instructions a block must have, if it leads to no other
   * @returns false if there is nothing to gain, or no room
   */
  compile(block: number, least: number): boolean {
    this.#forgetOld();
    const members = chooseRegion(this.#blocks, block);
    if (!isEntry(members[0], least) || this.#next - this.#first === MOST_FUNCTIONS) return false;
    const run = this.#instantiate(compileRegion(members));
    if (!run) return false;
    const place = this.#exports.makeRegion(members.length, this.#next);
    if (place === 0) return false;
    const words = new Uint32Array(this.#memory.buffer, place, members.length);
    words.set(members.map((member) => member.block.address));
    this.#enter(run);
    members.forEach((member, i) => {
      if (isEntry(member, least)) {
        this.#exports.placeCompiled(member.block.address, place, i);
      }
    });
    return true;
  }

  /** A module's function; undefined where the host has no memory for more code. */
  #instantiate(bytes: Uint8Array<ArrayBuffer>): CallableFunction | undefined {
    const { condition, plainly } = this.#exports;
    try {
      const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), {
        e: { condition, plainly, memory: this.#memory },
      });
      return instance.exports.run as CallableFunction;
    } catch (error) {
      if (error instanceof RangeError) return undefined;
      throw error;
    }
  }

  #enter(run: CallableFunction): void {
    const { table } = this.#exports;
    if (this.#next === table.length) table.grow(ROOM);
    table.set(this.#next++, run);
  }

  /** Lets go of functions whose blocks the CPU has forgotten. */
  #forgetOld(): void {
    const generation = this.#exports.blockGeneration();
    if (generation === this.#generation) return;
    this.#generation = generation;
    while (this.#next > this.#first) this.#exports.table.set(--this.#next, null);
  }
}
