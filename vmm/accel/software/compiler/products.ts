/**
 * Compiles MUL and IMUL.
 *
 * @module
 */
import { extend, mask } from "./flags.ts";
import { Kind } from "./layout.ts";
import { type Emitter, Register } from "./operands.ts";
import type { Operation } from "./records.ts";
import { I } from "./wasm.ts";

const [CF, OF] = [1, 1 << 11];

/** Pushes the upper half of the product of the operands. */
function upper(e: Emitter, signed: boolean): void {
  const code = e.code, [a, b, t] = [e.a, e.b, e.t], middle = e.linear;
  const low = (local: number) => code.get(local).i64(0xffff_ffffn).op(I.i64And);
  const high = (local: number) => code.get(local).i64(32n).op(I.i64ShrU);
  // Schoolbook, by halves: see core/multiply.ts.
  high(a);
  low(b);
  code.op(I.i64Mul);
  low(a);
  low(b);
  code.op(I.i64Mul).i64(32n).op(I.i64ShrU, I.i64Add).set(middle);
  low(a);
  high(b);
  code.op(I.i64Mul);
  low(middle);
  code.op(I.i64Add).set(t);
  high(a);
  high(b);
  code.op(I.i64Mul);
  high(middle);
  code.op(I.i64Add);
  high(t);
  code.op(I.i64Add);
  if (!signed) return;
  for (const [sign, other] of [[a, b], [b, a]]) {
    code.get(sign).i64(63n).op(I.i64ShrS).get(other).op(I.i64And, I.i64Sub);
  }
}

/** PARTS of a product: CF and OF if a condition (i32, on the stack) says that it needs its upper half. */
function productFlags(e: Emitter, low: number, size: number): void {
  const code = e.code;
  code.op(I.i64ExtendI32U).i64(BigInt(CF | OF)).op(I.i64Mul).set(e.flags.source);
  code.get(low).set(e.flags.result);
  e.flags.set(Kind.PARTS, size);
}

export function multiply(e: Emitter, operation: Operation, flags: boolean): void {
  const { name, size, source, dst, src, immediate } = operation;
  const code = e.code;
  if (source === "memory") e.find(operation, size, false);
  if (name === "imul3") code.i64(BigInt.asIntN(size * 8, immediate));
  else {
    e.read(dst, size);
    extend(code, size);
  }
  code.set(e.a);
  e.operand(source, src, operation, size);
  extend(code, size);
  code.set(e.b).get(e.a).get(e.b).op(I.i64Mul).set(e.r);
  if (flags && size === 8) {
    upper(e, true);
    code.get(e.r).i64(63n).op(I.i64ShrS, I.i64Ne);
    productFlags(e, e.r, size);
  } else if (flags) {
    code.get(e.r).op(I.i64Extend32S).get(e.r).op(I.i64Ne);
  }
  code.get(e.r);
  mask(code, size);
  code.set(e.r);
  if (flags && size !== 8) productFlags(e, e.r, size);
  e.result("register", dst, size);
}

/** MUL and IMUL of the accumulator: the product is in RDX:RAX, or EDX:EAX. */
export function multiplyWide(e: Emitter, operation: Operation, flags: boolean): void {
  const { name, size, destination, dst } = operation, signed = name === "imul1";
  const code = e.code;
  if (destination === "memory") e.find(operation, size, false);
  e.operand(destination, dst, operation, size);
  if (signed) extend(code, size);
  code.set(e.b).get(e.register(Register.RAX));
  mask(code, size);
  if (signed) extend(code, size);
  code.set(e.a).get(e.a).get(e.b).op(I.i64Mul).set(e.r);
  if (size === 8) {
    upper(e, signed);
    code.set(e.target(Register.RDX)).get(e.r).set(e.target(Register.RAX));
  } else {
    code.get(e.r).i64(32n).op(I.i64ShrU).set(e.target(Register.RDX));
    code.get(e.r);
    mask(code, 4);
    code.set(e.target(Register.RAX));
  }
  if (!flags) return;
  // What the upper half is if the product does not need it.
  code.get(e.register(Register.RDX)).get(e.register(Register.RAX));
  extend(code, size);
  code.i64(63n).op(I.i64ShrS);
  if (!signed) code.i64(0n).op(I.i64And);
  mask(code, size);
  code.op(I.i64Ne);
  productFlags(e, e.register(Register.RAX), size);
}
