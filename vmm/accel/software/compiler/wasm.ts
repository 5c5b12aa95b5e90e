/**
 * Writes a WebAssembly module of one function (WebAssembly Core Specification 2.0, chapter 5).
 *
 * @module
 */

/** Opcodes that compiled code is made of. */
export const I = {
  block: 0x02,
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  br: 0x0c,
  brIf: 0x0d,
  brTable: 0x0e,
  call: 0x10,
  select: 0x1b,
  localGet: 0x20,
  localSet: 0x21,
  localTee: 0x22,
  i32Load: 0x28,
  i64Load: 0x29,
  i64Load8U: 0x31,
  i64Load16U: 0x33,
  i64Load32U: 0x35,
  i32Store: 0x36,
  i64Store: 0x37,
  i64Store8: 0x3c,
  i64Store16: 0x3d,
  i64Store32: 0x3e,
  i32Const: 0x41,
  i64Const: 0x42,
  i32Eqz: 0x45,
  i32Ne: 0x47,
  i32LtS: 0x48,
  i32GtS: 0x4a,
  i32LeS: 0x4c,
  i64Eqz: 0x50,
  i64Eq: 0x51,
  i64Ne: 0x52,
  i64LtS: 0x53,
  i64LtU: 0x54,
  i64GtS: 0x55,
  i64LeS: 0x57,
  i64LeU: 0x58,
  i32LtU: 0x49,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32And: 0x71,
  i32Or: 0x72,
  i32Shl: 0x74,
  i32ShrU: 0x76,
  i64Add: 0x7c,
  i64Sub: 0x7d,
  i64Mul: 0x7e,
  i64And: 0x83,
  i64Or: 0x84,
  i64Xor: 0x85,
  i64Shl: 0x86,
  i64ShrS: 0x87,
  i64ShrU: 0x88,
  i64Rotl: 0x89,
  i64Rotr: 0x8a,
  i32WrapI64: 0xa7,
  i64ExtendI32U: 0xad,
  i32Rotl: 0x77,
  i32Rotr: 0x78,
  i64Extend8S: 0xc2,
  i64Extend16S: 0xc3,
  i64Extend32S: 0xc4,
} as const;

/** Value types, and that of a block without a result. */
export const Type = { i32: 0x7f, i64: 0x7e, none: 0x40 } as const;

function pushUnsigned(bytes: number[], value: number): void {
  let rest = value >>> 0;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
}

/** The body of the function. */
export class Code {
  readonly bytes: number[] = [];
  /** How many blocks, loops and ifs are open. */
  depth = 0;
  readonly #locals: number[] = [];

  /** @param parameters how many there are: the first locals */
  constructor(readonly parameters: number) {}

  /** Takes a new local. */
  local(type: number): number {
    this.#locals.push(type);
    return this.parameters + this.#locals.length - 1;
  }

  /** Instructions without immediates. */
  op(...opcodes: readonly number[]): this {
    for (const opcode of opcodes) this.bytes.push(opcode);
    return this;
  }

  /** An instruction with an index: of a local, a label, a function. */
  at(opcode: number, index: number): this {
    this.bytes.push(opcode);
    pushUnsigned(this.bytes, index);
    return this;
  }

  get(local: number): this {
    return this.at(I.localGet, local);
  }

  set(local: number): this {
    return this.at(I.localSet, local);
  }

  tee(local: number): this {
    return this.at(I.localTee, local);
  }

  i32(value: number): this {
    this.bytes.push(I.i32Const);
    return this.#signed(BigInt(value | 0));
  }

  i64(value: bigint): this {
    this.bytes.push(I.i64Const);
    return this.#signed(BigInt.asIntN(64, value));
  }

  /** A load or a store at an offset, whatever its alignment. */
  memory(opcode: number, offset: number): this {
    this.bytes.push(opcode, 0);
    pushUnsigned(this.bytes, offset);
    return this;
  }

  /** Opens a block, a loop or an if; returns its depth, which {@linkcode branch} takes. */
  open(opcode: number): number {
    this.bytes.push(opcode, Type.none);
    return ++this.depth;
  }

  end(): this {
    this.depth--;
    return this.op(I.end);
  }

  /** Branches to what {@linkcode open} has opened. */
  branch(label: number, opcode: number = I.br): this {
    return this.at(opcode, this.depth - label);
  }

  /** Branches by the number on the stack. */
  table(labels: readonly number[]): this {
    this.bytes.push(I.brTable);
    pushUnsigned(this.bytes, labels.length - 1);
    for (const label of labels) pushUnsigned(this.bytes, this.depth - label);
    return this;
  }

  #signed(value: bigint): this {
    let rest = value;
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && !(low & 0x40)) || (rest === -1n && low & 0x40)) {
        this.bytes.push(low);
        return this;
      }
      this.bytes.push(low | 0x80);
    }
  }

  /** Puts code before what there is. */
  prepend(code: Code): void {
    this.bytes.unshift(...code.bytes);
  }

  /** The function's code with its locals. */
  finish(): number[] {
    const head: number[] = [];
    pushUnsigned(head, this.#locals.length);
    for (const type of this.#locals) head.push(1, type);
    return [...head, ...this.bytes, I.end];
  }
}

function section(id: number, content: readonly number[]): number[] {
  const bytes = [id];
  pushUnsigned(bytes, content.length);
  return bytes.concat(content);
}

const text = (value: string) => [value.length, ...new TextEncoder().encode(value)];

/**
 * A module that exports `run`, of type (i32) -> i32. It imports the memory, as function 0 `condition` of
 * the same type, and as function 1 `plainly` of type (i32, i32) -> ().
 */
export function moduleOf(code: Code): Uint8Array<ArrayBuffer> {
  const body = code.finish();
  const sized: number[] = [];
  pushUnsigned(sized, body.length);
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [2, 0x60, 1, Type.i32, 1, Type.i32, 0x60, 2, Type.i32, Type.i32, 0]),
    ...section(2, [
      3,
      ...[...text("e"), ...text("condition"), 0, 0],
      ...[...text("e"), ...text("plainly"), 0, 1],
      // At most 65536 pages.
      ...[...text("e"), ...text("memory"), 2, 1, 1, 0x80, 0x80, 0x04],
    ]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...text("run"), 0, 2]),
    ...section(10, [1, ...sized, ...body]),
  ]);
}
