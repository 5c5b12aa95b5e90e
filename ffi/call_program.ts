/**
 * Programs of system calls: what is to be done while the guest stands still, prepared before and run by
 * a piece of machine code.
 *
 * In the pause everything is cold: what lies between two system calls in JavaScript takes as long there
 * as the shorter ones of them. A program has their arguments and what they must return; it ends with
 * the first one that returns something else, and JavaScript finds out why.
 *
 * ```text
 * head  u64 number of calls   u64 calls that went well   i64 what the last one returned
 * call  u64 number   six u64 arguments   i64 expected result
 * ```
 *
 * A call that a signal has interrupted (EINTR) is made again.
 *
 * @module
 */
import { libc } from "./libc.ts";
import { addressOf, mapCode } from "./memory.ts";

/** `call_program.s`, base64: `as --64`, then `ld -Ttext=0 --oformat=binary`; a test does the same. */
const CODE: string =
  "U1VBVEiJ+0iNbxhFMeTrNUiLRQBIi30ISIt1EEiLVRhMi1UgTItFKEyLTTAPBUiD+Px03EiJQxBIO0U4dQxIg8VASf/E" +
  "TDsjcsZMiWMIQVxdWzHAww==";

/** Words of 8 bytes. */
const HEAD = 3;
const CALL = 8;
const COUNT = 0;
const DONE = 1;
const RESULT = 2;
const FIRST_ARGUMENT = 1;
const EXPECTED = 7;

/** A system call. */
export interface SystemCall {
  /** Its number (asm/unistd_64.h). */
  readonly number: number;
  /** At most six: numbers, or buffers, whose addresses are passed. */
  readonly args: readonly (number | Uint8Array<ArrayBuffer>)[];
  /** What it returns if all is well; an errno would be below 0. */
  readonly expected: number;
}

/** asm/unistd_64.h */
export const SYS_IOCTL = 16;

/** A system call as a program has it. */
export interface EncodedCall {
  readonly number: number;
  /** At most six. */
  readonly args: readonly (number | bigint)[];
  readonly expected: number;
}

/** Bytes of a program of so many calls. */
export function programSize(calls: number): number {
  return (HEAD + calls * CALL) * 8;
}

/** Writes a program into memory of its size, aligned to 8 bytes. */
export function encodeCalls(into: Uint8Array<ArrayBuffer>, calls: readonly EncodedCall[]): void {
  const words = new BigInt64Array(into.buffer, into.byteOffset, HEAD + calls.length * CALL);
  words[COUNT] = BigInt(calls.length);
  calls.forEach(({ number, args, expected }, i) => {
    const call = words.subarray(HEAD + i * CALL, HEAD + (i + 1) * CALL);
    call[0] = BigInt(number);
    args.forEach((arg, j) => call[FIRST_ARGUMENT + j] = BigInt(arg));
    call[EXPECTED] = BigInt(expected);
  });
}

/** A constant, so that the compiler can call it directly. */
const { bsearch } = libc;

let code: bigint | undefined;

/** The machine code. */
export function callProgramCode(): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromBase64(CODE);
}

/** System calls to be made one after the other, again and again. */
export class CallProgram {
  /** What buffers hold may change; where they are may not, and they live as long as the program. */
  readonly calls: readonly SystemCall[];
  readonly #words: BigInt64Array<ArrayBuffer>;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #halves: Int32Array<ArrayBuffer>;

  /** @param calls what to do */
  constructor(calls: readonly SystemCall[]) {
    this.calls = calls;
    const bytes = new Uint8Array(programSize(calls.length));
    encodeCalls(bytes, calls.map((call) => ({ ...call, args: call.args.map(valueOf) })));
    const words = new BigInt64Array(bytes.buffer);
    this.#words = words;
    this.#bytes = bytes;
    this.#halves = new Int32Array(words.buffer);
    code ??= BigInt(mapCode(callProgramCode()).address);
  }

  /**
   * Makes the calls on the calling thread, up to the first that returns what it should not.
   *
   * @returns how many went well
   */
  run(): number {
    // void *bsearch(const void *key, const void *base, size_t count, size_t size, int (*)(…)): one
    // element, anywhere, is compared once, with the program.
    bsearch(this.#bytes, code!, 1n, 1n, code!);
    return this.#halves[2 * DONE];
  }

  /** What the last call that was made has returned: below 0 an errno. */
  get result(): number {
    return Number(this.#words[RESULT]);
  }
}

function valueOf(argument: number | Uint8Array<ArrayBuffer>): bigint {
  return typeof argument === "number" ? BigInt(argument) : addressOf(argument);
}
