/**
 * Compiles operations, one by one.
 *
 * @module
 */
import { extend, mask } from "./flags.ts";
import { Ea, Kind } from "./layout.ts";
import { type Emitter, Register } from "./operands.ts";
import { multiply, multiplyWide } from "./products.ts";
import type { Operation } from "./records.ts";
import { rotate, shift, shiftByCl } from "./shifts.ts";
import { I } from "./wasm.ts";

const { RAX, RDX, RSP, RBP } = Register;

/** AND, OR, XOR: flags of the result alone. */
const LOGIC: Readonly<Record<string, number>> = {
  and: I.i64And,
  test: I.i64And,
  or: I.i64Or,
  xor: I.i64Xor,
};
const [CF, AF, OF] = [1, 1 << 4, 1 << 11];

/** Writes an operation's code; `flags`: those that it leaves are looked at. */
export function emit(e: Emitter, operation: Operation, flags: boolean): void {
  const { name } = operation;
  switch (name) {
    case "nop":
      return;
    case "mov":
      return move(e, operation);
    case "lea":
      e.sum(operation);
      if (operation.ea === Ea.FLAT32) mask(e.code, 4);
      mask(e.code, operation.size);
      return e.write(operation.dst, operation.size);
    case "inc":
    case "dec":
    case "not":
    case "neg":
      return unary(e, operation, flags);
    case "push":
      return push(e, operation);
    case "pop":
      return pop(e, operation);
    case "leave":
      return leaveFrame(e, operation);
    case "xchg":
      e.read(operation.dst, operation.size);
      e.read(operation.src, operation.size);
      e.write(operation.dst, operation.size);
      return e.write(operation.src, operation.size);
    case "cmov":
      return moveIf(e, operation);
    case "setcc":
      return setIf(e, operation);
    case "cbw":
    case "cwd":
      return extendAccumulator(e, operation);
    case "rol":
    case "ror":
      return rotate(e, operation);
    case "imul":
    case "imul3":
      return multiply(e, operation, flags);
    case "mul":
    case "imul1":
      return multiplyWide(e, operation, flags);
    case "shl":
    case "shr":
    case "sar":
      return shift(e, operation, flags);
    case "shlCl":
    case "shrCl":
    case "sarCl":
      return shiftByCl(e, operation, flags);
  }
  if (name.startsWith("movzx") || name.startsWith("movsx")) return moveExtended(e, operation);
  arithmetic(e, operation, flags);
}

/** CALL's push of the address to return to. */
export function call(e: Emitter, operation: Operation): void {
  pushPlace(e, operation);
  e.code.i64(operation.next).memory(I.i64Store, 0);
  e.code.get(e.linear).set(e.target(RSP));
}

function move(e: Emitter, operation: Operation): void {
  const { destination, source, size, dst, src } = operation;
  if (destination === "memory" || source === "memory") {
    e.find(operation, size, destination === "memory");
  }
  e.operand(source, src, operation, size);
  if (destination === "register") return e.write(dst, size);
  e.code.set(e.r);
  e.store(e.r, size);
}

function moveExtended(e: Emitter, operation: Operation): void {
  const { name, source, src, dst, size } = operation;
  const from = name === "movsxd" ? 4 : name.endsWith("16") ? 2 : 1;
  if (source === "memory") e.find(operation, from, false);
  e.operand(source, src, operation, from);
  if (name.startsWith("movsx")) {
    extend(e.code, from);
    mask(e.code, size);
  }
  e.write(dst, size);
}

function moveIf(e: Emitter, operation: Operation): void {
  const { source, src, dst, size, condition } = operation;
  if (source === "memory") e.find(operation, size, false);
  e.operand(source, src, operation, size);
  e.code.set(e.b);
  e.flags.condition(condition);
  e.code.set(e.holds).get(e.b);
  e.read(dst, size);
  e.code.get(e.holds).op(I.select);
  e.write(dst, size);
}

function setIf(e: Emitter, operation: Operation): void {
  const memory = operation.destination === "memory";
  if (memory) e.find(operation, 1, true);
  e.flags.condition(operation.condition);
  e.code.op(I.i64ExtendI32U);
  if (!memory) return e.write(operation.dst, 1);
  e.code.set(e.r);
  e.store(e.r, 1);
}

/** ADD and its like: two operands, and a result unless it is CMP or TEST. */
function arithmetic(e: Emitter, operation: Operation, flags: boolean): void {
  const { name, size, destination, source, dst, src } = operation;
  const code = e.code, discards = name === "cmp" || name === "test";
  if (destination === "memory" || source === "memory") {
    e.find(operation, size, destination === "memory" && !discards);
  }
  e.operand(destination, dst, operation, size);
  code.set(e.a);
  e.operand(source, src, operation, size);
  code.set(e.b);
  if (name === "adc" || name === "sbb") withCarry(e, name === "sbb", size, flags);
  else if (name in LOGIC) {
    code.get(e.a).get(e.b).op(LOGIC[name]).set(e.r);
    if (flags) {
      code.get(e.r).set(e.flags.result);
      e.flags.set(Kind.LOGIC, size);
    }
  } else sumOrDifference(e, name === "add", size, flags);
  if (!discards) e.result(destination, dst, size);
}

function sumOrDifference(e: Emitter, add: boolean, size: number, flags: boolean): void {
  const code = e.code;
  code.get(e.a).get(e.b).op(add ? I.i64Add : I.i64Sub);
  mask(code, size);
  code.set(e.r);
  if (!flags) return;
  code.get(e.a).set(e.flags.destination).get(e.b).set(e.flags.source);
  code.get(e.r).set(e.flags.result);
  e.flags.set(add ? Kind.ADD : Kind.SUB, size);
}

function withCarry(e: Emitter, subtract: boolean, size: number, flags: boolean): void {
  const code = e.code, [a, b, r, t] = [e.a, e.b, e.r, e.t];
  const opcode = subtract ? I.i64Sub : I.i64Add;
  e.flags.carry();
  code.set(t).get(a).get(b).op(opcode).get(t).op(opcode);
  mask(code, size);
  code.set(r);
  if (!flags) return;
  // CF, AF and OF by the operands' and the result's signs, as the CPU has them.
  const top = BigInt(size * 8 - 1);
  const signBit = (to: number) =>
    code.i64(top).op(I.i64ShrU).i64(1n).op(I.i64And).i64(BigInt(to)).op(I.i64Mul);
  code.get(a).get(b).op(I.i64Xor).get(r).op(I.i64Xor).i64(BigInt(AF)).op(I.i64And);
  if (subtract) {
    code.get(a).i64(-1n).op(I.i64Xor).get(b).op(I.i64And);
    code.get(a).get(b).op(I.i64Xor).i64(-1n).op(I.i64Xor).get(r).op(I.i64And, I.i64Or);
  } else {
    code.get(a).get(b).op(I.i64And);
    code.get(a).get(b).op(I.i64Or).get(r).i64(-1n).op(I.i64Xor, I.i64And, I.i64Or);
  }
  signBit(CF);
  code.op(I.i64Or);
  code.get(subtract ? a : r).get(subtract ? b : a).op(I.i64Xor);
  code.get(subtract ? a : r).get(subtract ? r : b).op(I.i64Xor, I.i64And);
  signBit(OF);
  code.op(I.i64Or).set(e.flags.source);
  code.get(r).set(e.flags.result);
  e.flags.set(Kind.PARTS, size);
}

function unary(e: Emitter, operation: Operation, flags: boolean): void {
  const { name, size, destination, dst } = operation;
  const code = e.code;
  if (destination === "memory") e.find(operation, size, true);
  e.operand(destination, dst, operation, size);
  code.set(e.a);
  if (name === "neg") {
    code.get(e.a).set(e.b).i64(0n).set(e.a);
    sumOrDifference(e, false, size, flags);
  } else {
    code.get(e.a).i64(name === "dec" ? -1n : name === "inc" ? 1n : -1n);
    code.op(name === "not" ? I.i64Xor : I.i64Add);
    mask(code, size);
    code.set(e.r);
    if (name !== "not" && flags) {
      code.get(e.r);
      e.flags.step(name === "inc" ? Kind.INC : Kind.DEC, size);
    }
  }
  e.result(destination, dst, size);
}

/** Finds the place of a quadword to be pushed, which is put on the stack. */
function pushPlace(e: Emitter, operation: Operation): void {
  e.code.get(e.register(RSP)).i64(-8n).op(I.i64Add);
  e.findLinear(operation, 8, true);
  e.code.get(e.place);
}

function push(e: Emitter, operation: Operation): void {
  pushPlace(e, operation);
  const { source, dst } = operation;
  if (source === "immediate") e.code.i64(operation.immediate);
  else e.read(dst, 8);
  e.code.memory(I.i64Store, 0);
  e.code.get(e.linear).set(e.target(RSP));
}

function pop(e: Emitter, operation: Operation): void {
  e.code.get(e.register(RSP));
  e.findLinear(operation, 8, false);
  e.code.get(e.linear).i64(8n).op(I.i64Add).set(e.target(RSP));
  e.load(8);
  e.write(operation.dst, 8);
}

function leaveFrame(e: Emitter, operation: Operation): void {
  e.code.get(e.register(RBP));
  e.findLinear(operation, 8, false);
  e.code.get(e.linear).i64(8n).op(I.i64Add).set(e.target(RSP));
  e.load(8);
  e.code.set(e.target(RBP));
}

function extendAccumulator(e: Emitter, { name, size }: Operation): void {
  const code = e.code;
  code.get(e.register(RAX));
  extend(code, name === "cbw" ? size / 2 : size);
  if (name === "cwd") code.i64(63n).op(I.i64ShrS);
  mask(code, size);
  code.set(e.target(name === "cbw" ? RAX : RDX));
}
