/**
 * The layout of an anchor's mailbox, which `anchor.ts` describes and `anchor.s` knows as well.
 *
 * @module
 */

/** "DnvAnchr" */
export const MAGIC = 0x7268_636e_4176_6e44n;
/** The version of the mailbox. */
export const ANCHOR_VERSION = 1;

export const PAGE = 4096;
/** Bytes of an arena: a vCPU has some 20 KiB of state. */
export const ARENA = 64 << 10;
/** Bytes of a stack, for a signal frame with all registers. */
const STACK = 32 << 10;
const LINE = 64;
const LEADER = 128;
/** As many as have lines in 16 pages. */
export const MAX_VCPUS = 1000;

/** The head: its fields of 4 or 8 bytes as multiples of that. */
export const Head = {
  magic: 0,
  version: 2,
  vcpus: 3,
  base: 2,
  pid: 6,
  expired: 7,
  deadline: 4,
  maskAll: 6,
  maskVcpu: 7,
} as const;

/** A line, in the same way. */
export const Line = {
  order: 0,
  phase: 1,
  done: 2,
  tid: 3,
  program: 3,
  fd: 4,
  runPage: 5,
  stack: 6,
} as const;

/** Where a line is; 0 is the leader's. */
export function lineAt(line: number): number {
  return LEADER + line * LINE;
}

/** Where a line's arena is. */
export function arenaAt(vcpus: number, line: number): number {
  return Math.ceil(lineAt(vcpus + 1) / PAGE) * PAGE + line * ARENA;
}

/** Where the stack of a line's thread ends. */
export function stackTop(vcpus: number, line: number): number {
  return arenaAt(vcpus, vcpus + 1) + (line + 1) * STACK;
}

/** The size of a mailbox. */
export function mailboxSize(vcpus: number): number {
  return stackTop(vcpus, vcpus);
}
