/**
 * Reads decoded blocks out of a CPU's memory.
 *
 * @module
 */
import { conditionals, operations } from "../opcodes.ts";
import { Block, Flag, Op, Operand } from "./layout.ts";

/** The names of operations by number: those of the dispatch loop's own are without their operands. */
const names = nameOperations();

function nameOperations(): readonly string[] {
  const list: string[] = [];
  for (const [name, number] of operations().numbers) {
    const width = conditionals.includes(name) ? 16 : 1;
    for (let i = 0; i < width; i++) list[number + i] = name.replace(/_[rmi]+\d$/, "");
  }
  return list;
}

const plainNumbers = operations().numbers;
const firstConditional = new Map(
  conditionals.map((name) => [name, plainNumbers.get(name)!]),
);

/** Where a value is: a register by its address in the state, memory, or in the instruction. */
export type Place = "register" | "memory" | "immediate";

/** A decoded operation. */
export interface Operation {
  readonly address: number;
  /** Its number outside of the dispatch loop's own operations. */
  readonly plain: number;
  /** As in `opcodes.ts`. */
  readonly name: string;
  /** Of a conditional one: the low four bits of its opcode. */
  readonly condition: number;
  /** Operand size in bytes. */
  readonly size: number;
  readonly locked: boolean;
  readonly destination: Place;
  readonly source: Place;
  /** Addresses of registers in the state. */
  readonly dst: number;
  readonly src: number;
  readonly base: number;
  readonly index: number;
  readonly scale: number;
  readonly ea: number;
  readonly segment: number;
  readonly displacement: bigint;
  readonly immediate: bigint;
  /** The address of the instruction after it, an offset in CS. */
  readonly next: bigint;
}

/** A decoded block. */
export interface DecodedBlock {
  readonly address: number;
  readonly rip: bigint;
  readonly count: number;
  /** With what comes after them: an operation that falls through, for want of another. */
  readonly operations: readonly Operation[];
}

/** A CPU's blocks. */
export class Blocks {
  readonly #view: DataView;

  constructor(memory: ArrayBuffer) {
    this.#view = new DataView(memory);
  }

  read(address: number): DecodedBlock {
    const view = this.#view;
    const rip = view.getBigUint64(address + Block.RIP, true);
    const count = view.getUint16(address + Block.COUNT, true);
    const decoded: Operation[] = [];
    for (let i = 0; i <= count; i++) {
      const operation = this.#operation(address + Block.SIZE + i * Op.SIZE, rip);
      decoded.push(operation);
    }
    return { address, rip, count, operations: decoded };
  }

  #operation(at: number, rip: bigint): Operation {
    const view = this.#view;
    const code = view.getUint16(at + Op.CODE, true);
    const name = names[code];
    const kinds = view.getUint8(at + Op.SEGMENT);
    const memory = (kinds & Operand.MEMORY) !== 0,
      fromMemory = (kinds & Operand.MEMORY_SOURCE) !== 0;
    const flags = view.getUint8(at + Op.FLAGS);
    return {
      address: at,
      plain: plainNumbers.get(name)!,
      name,
      condition: code - (firstConditional.get(name) ?? code),
      size: flags & 15,
      locked: (flags & Flag.LOCK) !== 0,
      destination: memory && !fromMemory ? "memory" : "register",
      source: kinds & Operand.IMMEDIATE ? "immediate" : fromMemory ? "memory" : "register",
      dst: view.getUint16(at + Op.DST, true),
      src: view.getUint16(at + Op.SRC, true),
      base: view.getUint16(at + Op.BASE, true),
      index: view.getUint16(at + Op.INDEX, true),
      scale: view.getUint8(at + Op.SCALE),
      ea: view.getUint8(at + Op.EA),
      segment: kinds & 7,
      displacement: view.getBigUint64(at + Op.DISPLACEMENT, true),
      immediate: view.getBigUint64(at + Op.IMMEDIATE, true),
      next: BigInt.asUintN(
        64,
        rip + BigInt(view.getUint8(at + Op.OFFSET) + view.getUint8(at + Op.LENGTH)),
      ),
    };
  }

  /** The block that a link leads to, its original where it is compiled; 0 if there is none. */
  follow(link: number): number {
    const target = this.#view.getUint32(link, true);
    if (target === 0) return 0;
    const first = target + Block.SIZE;
    const compiled = names[this.#view.getUint16(first + Op.CODE, true)] === "compiled";
    return compiled ? this.#view.getUint32(first + Op.DISPLACEMENT + 4, true) : target;
  }

  /** Whether a block was decoded in the same page and for the same mode as another, and is not dropped. */
  isBeside(address: number, other: number): boolean {
    const view = this.#view;
    const delta = (at: number) =>
      view.getBigUint64(at + Block.RIP, true) - BigInt(view.getUint32(at + Block.CODE, true));
    const same = (offset: number) =>
      view.getUint32(address + offset, true) === view.getUint32(other + offset, true);
    return view.getUint16(address + Block.LENGTH, true) !== 0 && same(Block.MODE) &&
      same(Block.CS_BASE) && same(Block.CS_BASE + 4) && same(Block.CS_LIMIT) &&
      delta(address) === delta(other) &&
      view.getUint32(address + Block.CODE, true) >>> 12 ===
        view.getUint32(other + Block.CODE, true) >>> 12;
  }
}
