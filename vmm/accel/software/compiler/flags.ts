/**
 * The arithmetic flags in compiled code: like the CPU's own (`core/flags.ts`), what they come from is
 * kept, and they are worked out when they are asked for.
 *
 * Inside a block the operands are in locals as they are, zero-extended; `settle` makes of them what the
 * CPU keeps, sign-extended, with their kind. Where the function is left and at the end of each block they
 * are settled.
 *
 * @module
 */
import { Derived, Kind } from "./layout.ts";
import { type Code, I, Type } from "./wasm.ts";

/** Function 0 of the module: the core's `condition`. */
const CONDITION = 0;

/** AND with the bits of an operand of `size` bytes. */
export function mask(code: Code, size: number): void {
  if (size < 8) code.i64((1n << BigInt(size * 8)) - 1n).op(I.i64And);
}

/** Sign-extends from `size` bytes. */
export function extend(code: Code, size: number): void {
  if (size === 4) code.op(I.i64Extend32S);
  else if (size === 2) code.op(I.i64Extend16S);
  else if (size === 1) code.op(I.i64Extend8S);
}

/** The flags of the code that is being written. */
export class Flags {
  /** u32: the kind, as the CPU has it; valid where settled. */
  readonly kind: number;
  readonly result: number;
  readonly source: number;
  readonly destination: number;
  /** What is known of the kind; INC and DEC without what their carry comes from. */
  #known: number | undefined;
  /** Size of the operands, zero-extended from it; 0: settled. */
  #raw = 0;
  readonly #code: Code;

  constructor(code: Code) {
    this.#code = code;
    this.kind = code.local(Type.i32);
    this.result = code.local(Type.i64);
    this.source = code.local(Type.i64);
    this.destination = code.local(Type.i64);
  }

  /** At the beginning of a block they come from anywhere. */
  forget(): void {
    this.#known = undefined;
    this.#raw = 0;
  }

  /** Flags of an operation; `result`, and for ADD and SUB the operands, have been stored in the locals. */
  set(kind: number, size: number): void {
    this.#known = kind;
    this.#raw = size;
  }

  /** INC or DEC, whose result is on the stack: CF stays what it was. */
  step(kind: number, size: number): void {
    const code = this.#code;
    const known = this.#known;
    this.settle();
    extend(code, size);
    code.set(this.result);
    code.i32(kind | ((size * 8) << 16));
    if (known !== undefined && known < Kind.INC) code.i32(known << 8);
    else this.#carryKind();
    code.op(I.i32Or).set(this.kind);
    this.#known = kind;
  }

  /** What CF comes from, in its place in the kind of INC and DEC. */
  #carryKind(): void {
    const { kind } = this;
    const code = this.#code;
    code.get(kind).i32(8).op(I.i32Shl);
    code.get(kind).i32(0xff00).op(I.i32And);
    code.get(kind).i32(Kind.INC).op(I.i32LtU, I.select);
  }

  /** Makes them what the CPU keeps. */
  settle(): void {
    this.settleHere();
    this.#raw = 0;
  }

  /** The same, on a way that leaves the code: what comes after it knows nothing of it. */
  settleHere(): void {
    if (this.#raw === 0) return;
    const code = this.#code, size = this.#raw;
    const known = this.#known!;
    const widen = (local: number) => {
      if (size === 8) return;
      code.get(local);
      extend(code, size);
      code.set(local);
    };
    widen(this.result);
    if (known === Kind.ADD || known === Kind.SUB) {
      widen(this.source);
      widen(this.destination);
    }
    code.i32(known).set(this.kind);
  }

  /** If a value (i32) on the stack is not 0, the flags become PARTS of `result` and `parts`, settled. */
  setIf(condition: number, result: number, parts: number): void {
    const code = this.#code;
    this.settle();
    code.get(result).get(this.result).get(condition).op(I.select).set(this.result);
    code.get(parts).get(this.source).get(condition).op(I.select).set(this.source);
    code.i32(Kind.PARTS).get(this.kind).get(condition).op(I.select).set(this.kind);
    this.#known = undefined;
  }

  /** Stores them where the CPU has them. */
  store(): void {
    const code = this.#code;
    code.i32(0).get(this.kind).memory(I.i32Store, Derived.FLAGS_KIND);
    code.i32(0).get(this.result).memory(I.i64Store, Derived.FLAGS_RESULT);
    code.i32(0).get(this.source).memory(I.i64Store, Derived.FLAGS_SOURCE);
    code.i32(0).get(this.destination).memory(I.i64Store, Derived.FLAGS_DESTINATION);
  }

  /** Loads them. */
  load(code: Code): void {
    code.i32(0).memory(I.i32Load, Derived.FLAGS_KIND).set(this.kind);
    code.i32(0).memory(I.i64Load, Derived.FLAGS_RESULT).set(this.result);
    code.i32(0).memory(I.i64Load, Derived.FLAGS_SOURCE).set(this.source);
    code.i32(0).memory(I.i64Load, Derived.FLAGS_DESTINATION).set(this.destination);
  }

  /** Puts CF on the stack as an i64. */
  carry(): void {
    if (!this.#carry()) this.#ask(2);
    this.#code.op(I.i64ExtendI32U);
  }

  /** Puts CF on the stack as an i32 if what it comes from is known. */
  #carry(): boolean {
    const code = this.#code;
    switch (this.#known) {
      case Kind.SUB:
        code.get(this.destination).get(this.source).op(I.i64LtU);
        return true;
      case Kind.ADD:
        // Sign-extended operands compare as zero-extended ones do.
        code.get(this.result).get(this.destination).op(I.i64LtU);
        return true;
      case Kind.LOGIC:
        code.i32(0);
        return true;
      case Kind.PARTS:
        code.get(this.source).op(I.i32WrapI64).i32(1).op(I.i32And);
        return true;
    }
    return false;
  }

  #zero(): void {
    this.#code.get(this.result).op(I.i64Eqz);
  }

  /** A value with its sign. */
  #signed(local: number): void {
    this.#code.get(local);
    extend(this.#code, this.#raw);
  }

  #compare(opcode: number): void {
    this.#signed(this.destination);
    this.#signed(this.source);
    this.#code.op(opcode);
  }

  /** Puts on the stack (i32) whether a condition holds, the low four bits of Jcc. */
  condition(condition: number): void {
    if (!this.#holds(condition & 14)) this.#ask(condition);
    else if (condition & 1) this.#code.op(I.i32Eqz);
  }

  /** The even conditions, if they are known. */
  #holds(condition: number): boolean {
    const known = this.#known;
    const code = this.#code;
    if (known === undefined) return false;
    switch (condition) {
      case 2:
        return this.#carry();
      case 4:
        this.#zero();
        return true;
      case 6:
        if (!this.#carry()) return false;
        this.#zero();
        code.op(I.i32Or);
        return true;
      case 8:
        this.#signed(this.result);
        code.i64(0n).op(I.i64LtS);
        return true;
      case 12:
      case 14:
        return this.#less(condition === 14, known);
      default:
        return false;
    }
  }

  /** SF != OF, and with `orEqual` or ZF. */
  #less(orEqual: boolean, known: number): boolean {
    if (known === Kind.SUB) this.#compare(orEqual ? I.i64LeS : I.i64LtS);
    else if (known === Kind.LOGIC) {
      this.#signed(this.result);
      this.#code.i64(0n).op(orEqual ? I.i64LeS : I.i64LtS);
    } else return false;
    return true;
  }

  /** Has the CPU say it. */
  #ask(condition: number): void {
    this.settle();
    this.store();
    this.#code.i32(condition).at(I.call, CONDITION);
  }
}
