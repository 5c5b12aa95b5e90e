/** Runs a program that reads from a pipe; says who it is first. */
import { CallProgram } from "../../ffi/call_program.ts";
import { threadId } from "../../ffi/process.ts";

const SYS_READ = 0;

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<{ fd: number; words: SharedArrayBuffer }>) => void) | null;
};

/** `words`: thread id; 1 once the program has been left; how many calls went well; the result. */
scope.onmessage = ({ data: { fd, words } }) => {
  const shared = new Int32Array(words);
  const args = [fd, new Uint8Array(1), 1];
  const program = new CallProgram([{ number: SYS_READ, args, expected: 1 }]);
  Atomics.store(shared, 0, threadId());
  Atomics.store(shared, 2, program.run());
  Atomics.store(shared, 3, program.result);
  Atomics.store(shared, 1, 1);
};
