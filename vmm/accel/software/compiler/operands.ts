/**
 * Operands of compiled operations: registers in locals, and memory that the TLB knows.
 *
 * @module
 */
import { cpuState, segment } from "../cpu_state.ts";
import { type Flags, mask } from "./flags.ts";
import { Derived, Ea, Tlb } from "./layout.ts";
import type { Operation, Place } from "./records.ts";
import { registerNumber } from "./supported.ts";
import { type Code, I, Type } from "./wasm.ts";

const { gpr, segments } = cpuState.offsets;

/** The processor's numbers of registers that operations use without naming them. */
export const Register = { RAX: 0, RCX: 1, RDX: 2, RSP: 4, RBP: 5 } as const;

const LOADS: Readonly<Record<number, number>> = {
  1: I.i64Load8U,
  2: I.i64Load16U,
  4: I.i64Load32U,
  8: I.i64Load,
};
const STORES: Readonly<Record<number, number>> = {
  1: I.i64Store8,
  2: I.i64Store16,
  4: I.i64Store32,
  8: I.i64Store,
};

/** What operations are written with. */
export class Emitter {
  readonly code: Code;
  readonly flags: Flags;
  /** Leaves the function at an operation. */
  readonly leave: (operation: Operation) => void;
  readonly #registers = new Map<number, number>();
  readonly #written = new Set<number>();
  readonly tlb: number;
  /** Linear address, entry of the TLB, place in memory. */
  readonly linear: number;
  readonly entry: number;
  readonly place: number;
  // The two operands, the result, and another.
  readonly a: number;
  readonly b: number;
  readonly r: number;
  readonly t: number;
  readonly holds: number;

  /**
   * @param leave leaves the function at an operation
   * @param known what the same code was written with before, which tells what it uses
   */
  constructor(code: Code, flags: Flags, leave: (operation: Operation) => void, known?: Emitter) {
    this.code = code;
    this.flags = flags;
    this.leave = leave;
    this.tlb = code.local(Type.i32);
    this.entry = code.local(Type.i32);
    this.place = code.local(Type.i32);
    this.holds = code.local(Type.i32);
    this.linear = code.local(Type.i64);
    this.a = code.local(Type.i64);
    this.b = code.local(Type.i64);
    this.r = code.local(Type.i64);
    this.t = code.local(Type.i64);
    if (!known) return;
    for (const number of known.#registers.keys()) this.register(number);
    for (const number of known.#written) this.target(number);
  }

  /** The local of a general register. */
  register(number: number): number {
    let local = this.#registers.get(number);
    if (local === undefined) this.#registers.set(number, local = this.code.local(Type.i64));
    return local;
  }

  /** The same, to be changed. */
  target(number: number): number {
    this.#written.add(number);
    return this.register(number);
  }

  /** Pushes a register, zero-extended. */
  read(address: number, size: number): void {
    this.code.get(this.register(registerNumber(address)));
    if (size === 1 && address & 1) this.code.i64(8n).op(I.i64ShrU);
    mask(this.code, size);
  }

  /** Writes a register from the stack: a value zero-extended from `size` bytes. */
  write(address: number, size: number): void {
    const code = this.code, local = this.target(registerNumber(address));
    if (size < 4) {
      const shift = size === 1 && address & 1 ? 8n : 0n;
      if (shift) code.i64(shift).op(I.i64Shl);
      const bits = size === 1 ? 0xffn << shift : 0xffffn;
      code.get(local).i64(~bits).op(I.i64And, I.i64Or);
    }
    code.set(local);
  }

  /** Pushes base + index * scale + displacement. */
  sum({ base, index, scale, displacement }: Operation): void {
    const code = this.code;
    code.i64(displacement);
    for (const [address, shift] of [[base, 0], [index, scale]]) {
      const number = registerNumber(address);
      if (number < 0) continue;
      code.get(this.register(number));
      if (shift) code.i64(BigInt(shift)).op(I.i64Shl);
      code.op(I.i64Add);
    }
  }

  /** Finds the memory operand's place, or leaves where the TLB does not have it. */
  find(operation: Operation, size: number, write: boolean): void {
    this.sum(operation);
    if (operation.ea === Ea.FLAT32) mask(this.code, 4);
    if (operation.ea === Ea.BASE64) {
      const at = segments + operation.segment * segment.size + segment.offsets.base;
      this.code.i32(0).memory(I.i64Load, at).op(I.i64Add);
    }
    this.findLinear(operation, size, write);
  }

  /** The same for the linear address on the stack; its place is then in a local. */
  findLinear(operation: Operation, size: number, write: boolean): void {
    const code = this.code;
    code.tee(this.linear).i64(7n).op(I.i64ShrU, I.i32WrapI64);
    code.i32((Tlb.ENTRIES - 1) << 5).op(I.i32And).get(this.tlb).op(I.i32Add).tee(this.entry);
    code.memory(I.i64Load, write ? Tlb.WRITE : Tlb.READ);
    code.get(this.linear);
    if (size > 1) code.i64(BigInt(size - 1)).op(I.i64Add);
    code.i64(-0x1000n).op(I.i64And, I.i64Ne).open(I.if);
    this.leave(operation);
    code.end();
    code.get(this.linear).op(I.i32WrapI64).get(this.entry).memory(I.i32Load, Tlb.ADDEND);
    code.op(I.i32Add).set(this.place);
  }

  load(size: number): void {
    this.code.get(this.place).memory(LOADS[size], 0);
  }

  /** Stores a local's value at the place. */
  store(value: number, size: number): void {
    this.code.get(this.place).get(value).memory(STORES[size], 0);
  }

  /** Pushes an operand, zero-extended; one in memory has been found. */
  operand(place: Place, address: number, { immediate }: Operation, size: number): void {
    if (place === "memory") return this.load(size);
    if (place === "register") return this.read(address, size);
    this.code.i64(BigInt.asUintN(size * 8, immediate));
  }

  /** Loads what the code uses; to be written before it. */
  loadState(code: Code): void {
    code.i32(0).memory(I.i32Load, Derived.TLB).set(this.tlb);
    this.loadRegisters(code);
  }

  /** Loads the registers that the code uses. */
  loadRegisters(code: Code): void {
    for (const [number, local] of this.#registers) {
      code.i32(0).memory(I.i64Load, gpr + number * 8).set(local);
    }
  }

  /** Stores what the code has changed. */
  storeState(): void {
    for (const number of this.#written) {
      this.code.i32(0).get(this.register(number)).memory(I.i64Store, gpr + number * 8);
    }
  }

  /** Writes the result. */
  result(destination: Place, dst: number, size: number): void {
    if (destination === "memory") return this.store(this.r, size);
    this.code.get(this.r);
    this.write(dst, size);
  }
}
