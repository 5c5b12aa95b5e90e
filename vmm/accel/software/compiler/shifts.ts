/**
 * Compiles shifts and rotates.
 *
 * @module
 */
import { extend, mask } from "./flags.ts";
import { Kind } from "./layout.ts";
import { type Emitter, Register } from "./operands.ts";
import type { Operation } from "./records.ts";
import { shiftCount } from "./region.ts";
import { I } from "./wasm.ts";

/** ROL and ROR whose flags nobody looks at. */
export function rotate(e: Emitter, { name, size, dst, immediate }: Operation): void {
  const code = e.code, left = name === "rol";
  e.read(dst, size);
  if (size === 8) code.i64(immediate & 63n).op(left ? I.i64Rotl : I.i64Rotr);
  else {
    code.op(I.i32WrapI64).i32(Number(immediate & 31n)).op(left ? I.i32Rotl : I.i32Rotr);
    code.op(I.i64ExtendI32U);
  }
  e.write(dst, size);
}

export function shift(e: Emitter, operation: Operation, flags: boolean): void {
  const { name, size, dst } = operation, count = BigInt(shiftCount(operation));
  const code = e.code;
  e.read(dst, size);
  code.set(e.a);
  if (count === 0n) {
    code.get(e.a);
    return e.write(dst, size);
  }
  code.i64(count).set(e.b);
  shifted(e, name, size);
  if (flags) {
    shiftParts(e, name, size);
    code.set(e.flags.source).get(e.r).set(e.flags.result);
    e.flags.set(Kind.PARTS, size);
  }
  e.result("register", dst, size);
}

export function shiftByCl(e: Emitter, { name, size, dst }: Operation, flags: boolean): void {
  const code = e.code, kind = name.slice(0, 3);
  e.read(dst, size);
  code.set(e.a).get(e.register(Register.RCX)).i64(size === 8 ? 63n : 31n).op(I.i64And).set(
    e.b,
  );
  shifted(e, kind, size);
  if (flags) {
    shiftParts(e, kind, size);
    code.set(e.t).get(e.b).op(I.i64Eqz, I.i32Eqz).set(e.holds);
    code.get(e.r);
    extend(code, size);
    code.set(e.linear);
    e.flags.setIf(e.holds, e.linear, e.t);
  }
  e.result("register", dst, size);
}

/** The result of a shift of the first operand by the second. */
function shifted(e: Emitter, name: string, size: number): void {
  const code = e.code;
  code.get(e.a);
  if (name === "sar") extend(code, size);
  code.get(e.b).op(name === "shl" ? I.i64Shl : name === "shr" ? I.i64ShrU : I.i64ShrS);
  mask(code, size);
  code.set(e.r);
}

/** Pushes CF and OF of a shift by a count that is not 0. */
function shiftParts(e: Emitter, name: string, size: number): void {
  const code = e.code, bits = BigInt(size * 8), top = bits - 1n;
  const one = () => code.i64(1n).op(I.i64And);
  if (name === "shl") {
    code.get(e.a).i64(bits).get(e.b).op(I.i64Sub, I.i64ShrU);
    one().tee(e.t);
    code.get(e.t).get(e.r).i64(top).op(I.i64ShrU, I.i64Xor).i64(11n).op(
      I.i64Shl,
      I.i64Or,
    );
    return;
  }
  code.get(e.a);
  if (name === "sar") extend(code, size);
  code.get(e.b).i64(1n).op(I.i64Sub, I.i64ShrU);
  one();
  if (name === "shr") {
    code.get(e.a).i64(top).op(I.i64ShrU).i64(11n).op(I.i64Shl, I.i64Or);
  }
}
