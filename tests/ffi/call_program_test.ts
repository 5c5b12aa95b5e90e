import assert from "node:assert/strict";
import { CallProgram, callProgramCode, type SystemCall } from "../../ffi/call_program.ts";
import { makePipe, type OwnedFd, writeFd } from "../../ffi/fd.ts";
import { addressOf, makeMemfd, mapShared } from "../../ffi/memory.ts";
import { installKick, kickThread } from "../../ffi/process.ts";
import { assembleImage, haveBinutils } from "../guests/build.ts";
import { patience } from "../patience.ts";

const SYS_FSTAT = 5;
const SYS_LSEEK = 8;
const SYS_PREAD64 = 17;
const SYS_GETPID = 39;
const EBADF = 9;
const FILE_SIZE = 256;

const binutils = await haveBinutils();
if (!binutils) console.warn("SKIPPED: call_program.s is not assembled: no `as` or `ld` here");

Deno.test("call_program.ts has the bytes of call_program.s", { ignore: !binutils }, async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-program-" });
  const source = "../../ffi/call_program.s";
  const recipe = { name: "program", source, defines: [], address: 0 };
  const built = await assembleImage(recipe, folder);
  await Deno.remove(folder, { recursive: true });
  assert.equal(callProgramCode().toBase64(), built.toBase64());
});

const { syscall, __errno_location } = Deno.dlopen("libc.so.6", {
  // long syscall(long number, ...)
  syscall: { parameters: ["i64", "i64", "i64", "i64", "i64", "i64", "i64"], result: "i64" },
  __errno_location: { parameters: [], result: "pointer" },
}).symbols;
const errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(__errno_location()!, 4));

/** What a program does, in TypeScript. */
function interpret(calls: readonly SystemCall[]): { done: number; result: number } {
  let result = 0;
  for (const [done, { number, args, expected }] of calls.entries()) {
    const all = Array.from({ length: 6 }, (_, i) => args[i] ?? 0);
    const [a, b, c, d, e, f] = all.map((arg) =>
      typeof arg === "number" ? BigInt(arg) : addressOf(arg)
    );
    result = Number(syscall(BigInt(number), a, b, c, d, e, f));
    if (result === -1) result = -errno[0];
    if (result !== expected) return { done, result };
  }
  return { done: calls.length, result };
}

/** Random numbers, the same ones each time: a linear congruential generator's upper bits. */
class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** From 0 to below `limit`. */
  roll(limit: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }
}

/** A harmless call; what it returns is right, or as a rule so. */
function randomCall(dice: Dice, memory: Uint8Array<ArrayBuffer>, file: OwnedFd): SystemCall {
  const wrong = dice.roll(12) === 0 ? 1 : 0;
  const [length, offset] = [dice.roll(100), dice.roll(FILE_SIZE)];
  const at = dice.roll(memory.length - length + 1);
  switch (dice.roll(4)) {
    case 0:
      return { number: SYS_GETPID, args: [], expected: Deno.pid + wrong };
    case 1:
      return { number: SYS_FSTAT, args: [-1, memory], expected: -EBADF + wrong };
    case 2:
      return { number: SYS_LSEEK, args: [file.fd, offset, 0], expected: offset + wrong };
    default: {
      const args = [file.fd, memory.subarray(at, at + length), length, offset];
      const expected = Math.min(length, FILE_SIZE - offset) + wrong;
      return { number: SYS_PREAD64, args, expected };
    }
  }
}

Deno.test("`run()` does what an interpreter does, with random programs", () => {
  using file = makeMemfd("denovo-program", FILE_SIZE);
  using mapping = mapShared(file.fd, FILE_SIZE);
  mapping.bytes.forEach((_, i) => mapping.bytes[i] = i * 89);
  const left = { early: 0, done: 0 };
  for (let seed = 1; seed <= 1000; seed++) {
    const make = (memory: Uint8Array<ArrayBuffer>) => {
      const dice = new Dice(seed * 7919);
      return Array.from({ length: 1 + dice.roll(12) }, () => randomCall(dice, memory, file));
    };
    const [one, other] = [new Uint8Array(1024), new Uint8Array(1024)];
    const program = new CallProgram(make(one));
    for (let round = 0; round < 2; round++) {
      const done = program.run();
      assert.deepEqual({ done, result: program.result }, interpret(make(other)), `seed ${seed}`);
      assert.deepEqual(one, other, `seed ${seed}`);
      left[done === program.calls.length ? "done" : "early"]++;
    }
  }
  assert.ok(left.early > 200 && left.done > 200, JSON.stringify(left));
});

Deno.test("a program without calls does nothing", () => {
  assert.equal(new CallProgram([]).run(), 0);
});

Deno.test("a program passes six arguments", () => {
  // copy_file_range(2): in, its offset, out, its offset, length, flags
  const SYS_COPY_FILE_RANGE = 326;
  using from = makeMemfd("denovo-from", 8);
  using to = makeMemfd("denovo-to", 8);
  writeFd(from.fd, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  const offsets = [2n, 1n].map((offset) => new Uint8Array(new BigUint64Array([offset]).buffer));
  const args = [from.fd, offsets[0], to.fd, offsets[1], 3, 0];
  const number = SYS_COPY_FILE_RANGE;
  assert.equal(new CallProgram([{ number, args, expected: 3 }]).run(), 1);
  using mapping = mapShared(to.fd, 8);
  assert.deepEqual([...mapping.bytes], [0, 3, 4, 5, 0, 0, 0, 0]);
  const flags = { number, args: [...args.slice(0, 5), 1], expected: -22 };
  assert.equal(new CallProgram([flags]).run(), 1, "flags are refused");
});

Deno.test("a system call that a signal interrupts is made again", async () => {
  installKick();
  const [input, output] = makePipe();
  const words = new SharedArrayBuffer(16);
  const shared = new Int32Array(words);
  const url = new URL("call_program_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module" });
  worker.postMessage({ fd: input.fd, words });
  const limit = performance.now() + patience(60_000);
  const until = async (done: () => boolean) => {
    while (!done()) {
      assert.ok(performance.now() < limit, `waited in vain for ${done}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  await until(() => Atomics.load(shared, 0) !== 0);
  const tid = Atomics.load(shared, 0);
  const left = () => Atomics.load(shared, 1) === 1;
  const sleeps = () => {
    const status = Deno.readTextFileSync(`/proc/self/task/${tid}/status`);
    return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)![1]);
  };
  const before = sleeps();
  // Each time that it falls asleep again it has been in the kernel once more.
  await until(() => {
    kickThread(tid);
    return left() || sleeps() >= before + 10;
  });
  assert.ok(!left());
  writeFd(output.fd, Uint8Array.of(1));
  await until(left);
  assert.deepEqual([...shared.subarray(2)], [1, 1]);
  worker.terminate();
  input.close();
  output.close();
});
