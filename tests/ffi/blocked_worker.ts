/** Blocks in a read of a pipe until a signal interrupts it; says who it is first. */
import { Errno, errno } from "../../ffi/errno.ts";
import { libc } from "../../ffi/libc.ts";
import { nameThread, threadId } from "../../ffi/process.ts";

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<{ fd: number; words: SharedArrayBuffer }>) => void) | null;
};

/** `words`: thread id, then 1 once the read was interrupted or 2 if it returned otherwise. */
scope.onmessage = ({ data: { fd, words } }) => {
  const shared = new Int32Array(words);
  const buffer = new Uint8Array(1);
  nameThread("a name that is far too long");
  Atomics.store(shared, 0, threadId());
  const result = libc.read(fd, buffer, 1n);
  Atomics.store(shared, 1, result === -1 && errno() === Errno.EINTR ? 1 : 2);
};
