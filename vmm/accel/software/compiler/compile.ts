/**
 * Compiles a region to one function.
 *
 * Registers, flags and the budget are locals: loaded where the function is entered, stored where it is
 * left. It is left wherever it cannot go on (see `core/compiled.ts`), before anything of the operation has
 * happened.
 *
 * @module
 */
import { cpuState } from "../cpu_state.ts";
import { Flags } from "./flags.ts";
import { Derived } from "./layout.ts";
import { Emitter } from "./operands.ts";
import { call, emit } from "./operations.ts";
import type { Operation } from "./records.ts";
import type { Member } from "./region.ts";
import { Code, I, moduleOf, Type } from "./wasm.ts";

const { attention } = cpuState.offsets;
/** Function 1 of the module: the core's `plainly`. */
const PLAINLY = 1;

/** A region's module. */
export function compileRegion(members: readonly Member[]): Uint8Array<ArrayBuffer> {
  const region = new Region(members);
  const module = region.module();
  if (!members.some(({ compiled }) => compiled.some(({ called }) => called))) return module;
  // What is stored before a call depends on what comes after it, too.
  return new Region(members, region).module();
}

/** Whether it is worth it to enter the function at a member: something is done there. */
export function isEntry({ compiled, taken, next }: Member, least: number): boolean {
  return compiled.length >= least || taken >= 0 || next >= 0;
}

class Region {
  readonly #members: readonly Member[];
  readonly #code = new Code(1);
  readonly #flags = new Flags(this.#code);
  readonly #budget = this.#code.local(Type.i32);
  /** Where the dispatch loop goes on: its block and its operation. */
  readonly #block = this.#code.local(Type.i32);
  readonly #operation = this.#code.local(Type.i32);
  readonly #condition = this.#code.local(Type.i32);
  readonly #emitter: Emitter;
  #exit = 0;
  #dispatch = 0;
  /** By member: what a branch to it from one before it leaves. */
  readonly #labels: number[] = [];

  readonly #codeEpoch = this.#code.local(Type.i32);

  constructor(members: readonly Member[], known?: Region) {
    this.#members = members;
    this.#emitter = new Emitter(this.#code, this.#flags, (operation) => {
      this.#flags.settleHere();
      this.#leaveAt(operation);
    }, known && known.#emitter);
  }

  module(): Uint8Array<ArrayBuffer> {
    const code = this.#code;
    this.#exit = code.open(I.block);
    this.#dispatch = code.open(I.loop);
    for (let i = this.#members.length - 1; i >= 0; i--) this.#labels[i] = code.open(I.block);
    code.get(0).table(this.#labels);
    for (let i = 0; i < this.#members.length; i++) {
      code.end();
      this.#member(i);
    }
    code.end().end();
    this.#epilogue();
    code.prepend(this.#prologue());
    return moduleOf(code);
  }

  #member(i: number): void {
    const code = this.#code, { block, compiled, last, taken, next } = this.#members[i];
    const own = taken === i || next === i ? code.open(I.loop) : 0;
    code.i32(block.address).set(this.#block);
    code.get(this.#budget).i32(block.count).op(I.i32Sub).set(this.#budget);
    this.#flags.forget();
    for (const [at, { operation, flags, called }] of compiled.entries()) {
      if (called) this.#call(operation, compiled[at + 1]?.operation ?? last);
      else emit(this.#emitter, operation, flags);
    }
    this.#end(i, own, last);
    if (own) code.end();
  }

  /** Has the core execute an operation; if it has written code, it may be of what comes next. */
  #call(operation: Operation, next: Operation): void {
    const code = this.#code;
    this.#flags.settle();
    this.#store();
    code.i32(operation.plain).i32(operation.address).at(I.call, PLAINLY);
    this.#emitter.loadRegisters(code);
    this.#flags.load(code);
    this.#flags.forget();
    code.i32(0).memory(I.i32Load, Derived.CODE_EPOCH).get(this.#codeEpoch).op(I.i32Ne).open(I.if);
    this.#leaveAt(next);
    code.end();
  }

  /** Goes on to other members, or leaves. */
  #end(i: number, own: number, last: Operation): void {
    const code = this.#code, { taken, next } = this.#members[i];
    if (last.name === "jcc" && taken >= 0) {
      this.#flags.condition(last.condition);
      code.set(this.#condition);
      this.#flags.settle();
      code.get(this.#condition).open(I.if);
      this.#edge(i, taken, own, last);
      code.end();
    } else if (last.name === "jcc" && next >= 0) {
      this.#flags.condition(last.condition);
      code.set(this.#condition);
      this.#flags.settle();
      code.get(this.#condition).open(I.if);
      this.#leaveAt(last);
      code.end();
    } else if (taken >= 0) {
      this.#flags.settle();
      if (taken <= i) this.#poll(last);
      if (last.name === "call") call(this.#emitter, last);
      this.#jump(i, taken, own);
      return;
    }
    this.#flags.settle();
    if (next >= 0) this.#edge(i, next, own, last);
    else this.#leaveAt(last);
  }

  #edge(from: number, to: number, own: number, last: Operation): void {
    if (to <= from) this.#poll(last);
    this.#jump(from, to, own);
  }

  #jump(from: number, to: number, own: number): void {
    if (to === from) this.#code.branch(own);
    else if (to > from) this.#code.branch(this.#labels[to]);
    else this.#code.i32(to).set(0).branch(this.#dispatch);
  }

  /** Leaves before an edge that leads back if the budget is used up or something wants attention. */
  #poll(last: Operation): void {
    const code = this.#code;
    code.i32(0).memory(I.i32Load, attention);
    code.i32(0).memory(I.i32Load, Derived.ATTENTION_MASK).op(I.i32And);
    code.get(this.#budget).i32(0).op(I.i32LeS, I.i32Or).open(I.if);
    this.#leaveAt(last);
    code.end();
  }

  /** The dispatch loop goes on at an operation of the present block. */
  #leaveAt({ address }: Operation): void {
    this.#code.i32(address).set(this.#operation).branch(this.#exit);
  }

  #prologue(): Code {
    const code = new Code(0);
    code.i32(0).memory(I.i32Load, Derived.BUDGET).set(this.#budget);
    code.i32(0).memory(I.i32Load, Derived.CODE_EPOCH).set(this.#codeEpoch);
    this.#emitter.loadState(code);
    this.#flags.load(code);
    return code;
  }

  #epilogue(): void {
    this.#store();
    this.#code.get(this.#operation);
  }

  /** Stores the state. */
  #store(): void {
    const code = this.#code;
    code.i32(0).get(this.#budget).memory(I.i32Store, Derived.BUDGET);
    code.i32(0).get(this.#block).memory(I.i32Store, Derived.CURRENT_BLOCK);
    this.#emitter.storeState();
    this.#flags.store();
  }
}
