/**
 * Which blocks are compiled together, and how much of each.
 *
 * @module
 */
import { Block } from "./layout.ts";
import type { Blocks, DecodedBlock, Operation } from "./records.ts";
import { isCalled, isCompiled } from "./supported.ts";

/** So many blocks at most: the rest is another region. */
const MOST_BLOCKS = 24;

/** What a flag is read from, and whether it must be right after an operation. */
const KILLS = new Set(["add", "sub", "and", "or", "xor", "cmp", "test", "neg", "imul", "imul3"]);
const SHIFTS = new Set(["shl", "shr", "sar"]);
const IGNORES = new Set([
  ...[
    "mov",
    "lea",
    "not",
    "movzx8",
    "movzx16",
    "movsx8",
    "movsx16",
    "movsxd",
    "xchg",
    "cbw",
    "cwd",
  ],
  ...["nop", "push", "pop", "leave"],
]);
const STACK = new Set(["push", "pop", "leave", "call"]);

/** An operation that is compiled. */
export interface Step {
  readonly operation: Operation;
  /** Whether the flags that it leaves may be looked at. */
  readonly flags: boolean;
  /** Whether the core executes it; its own code does otherwise. */
  readonly called: boolean;
}

/** A block of a region. */
export interface Member {
  readonly block: DecodedBlock;
  /** Its operations that are compiled. */
  readonly compiled: readonly Step[];
  /** The operation after them, at which the dispatch loop goes on unless an edge leads on. */
  readonly last: Operation;
  /** The members that it leads to where it branches, and where it does not; -1 if to none. */
  taken: number;
  next: number;
}

/** The number of bits of a shift by an immediate. */
export function shiftCount({ immediate, size }: Operation): number {
  return Number(immediate & (size === 8 ? 63n : 31n));
}

function killsFlags(operation: Operation): boolean {
  const { name } = operation;
  return KILLS.has(name) || (SHIFTS.has(name) && shiftCount(operation) !== 0);
}

function usesMemory({ name, destination, source }: Operation): boolean {
  if (STACK.has(name)) return true;
  return name !== "lea" && name !== "nop" && (destination === "memory" || source === "memory");
}

/** Splits a block into what is compiled and the operation after. */
function member(block: DecodedBlock): Member {
  const { operations, count } = block;
  const body = operations.slice(0, count);
  // Whether the flags that an operation leaves are seen: by another, or where the function is left.
  let seen = true;
  const flags = new Array<boolean>(count);
  for (let i = count - 1; i >= 0; i--) {
    const operation = body[i];
    flags[i] = seen;
    const compiles = isCompiled(operation, seen);
    if (killsFlags(operation)) seen = false;
    if (
      !compiles || usesMemory(operation) || !(killsFlags(operation) || IGNORES.has(operation.name))
    ) {
      seen = true;
    }
  }
  // The first that does not compile ends it; what comes after it is the dispatch loop's.
  const steps = body.map((operation, i): Step => ({
    operation,
    flags: flags[i],
    called: !isCompiled(operation, flags[i]),
  }));
  const first = steps.findIndex(({ operation, called }) => called && !isCalled(operation));
  const end = first < 0 ? count : first;
  return {
    block,
    compiled: steps.slice(0, end),
    last: operations[end],
    taken: -1,
    next: -1,
  };
}

/** The links of a block's end, and what they lead to if they are still right. */
function links({ last }: Member): { taken?: bigint; next?: bigint } {
  switch (last.name) {
    case "jcc":
      return { taken: last.immediate, next: last.next };
    case "jmp":
      return { taken: last.immediate };
    case "call":
      return last.size === 8 ? { taken: last.immediate } : {};
    case "fallThrough":
      return { next: last.next };
    default:
      return {};
  }
}

/** The region around a block, in an order in which few edges lead back. */
export function chooseRegion(blocks: Blocks, start: number): Member[] {
  const found = new Map<number, Member>();
  const edges = new Map<number, { taken?: number; next?: number }>();
  const queue = [start];
  for (let at = queue.shift(); at !== undefined; at = queue.shift()) {
    if (found.has(at) || found.size === MOST_BLOCKS) continue;
    const one = member(blocks.read(at));
    found.set(at, one);
    const rips = links(one), to: { taken?: number; next?: number } = {};
    const follow = (link: number, rip: bigint | undefined) => {
      if (rip === undefined) return undefined;
      const target = blocks.follow(at + link);
      if (target === 0 || !blocks.isBeside(target, start)) return undefined;
      if (blocks.read(target).rip !== rip) return undefined;
      queue.push(target);
      return target;
    };
    to.taken = follow(Block.TAKEN, rips.taken);
    to.next = follow(Block.LINK, rips.next);
    edges.set(at, to);
  }
  const order = reversePostorder(start, found, edges);
  const index = new Map(order.map((at, i) => [at, i]));
  return order.map((at) => {
    const one = found.get(at)!, { taken, next } = edges.get(at)!;
    one.taken = taken === undefined ? -1 : index.get(taken) ?? -1;
    one.next = next === undefined ? -1 : index.get(next) ?? -1;
    return one;
  });
}

/** Blocks before those that they lead to, loops aside. */
function reversePostorder(
  start: number,
  found: ReadonlyMap<number, Member>,
  edges: ReadonlyMap<number, { taken?: number; next?: number }>,
): number[] {
  const order: number[] = [], seen = new Set<number>();
  const visit = (at: number) => {
    if (seen.has(at) || !found.has(at)) return;
    seen.add(at);
    const { taken, next } = edges.get(at)!;
    if (taken !== undefined) visit(taken);
    if (next !== undefined) visit(next);
    order.push(at);
  };
  visit(start);
  return order.reverse();
}
