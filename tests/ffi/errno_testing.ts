/** Errors provoked in a loop, with enough garbage around them that it is collected meanwhile. */
import { OsError } from "../../ffi/errno.ts";
import { O, openFile, setCloexec } from "../../ffi/fd.ts";
import { mapShared } from "../../ffi/memory.ts";

/** Calls that fail in the same way each time. */
const calls: [() => unknown, string][] = [
  [() => openFile("/nonexistent", O.RDONLY), "ENOENT"],
  [() => setCloexec(1_000_000, true), "EBADF"],
  [() => openFile("/proc/self", O.WRONLY), "EISDIR"],
  [() => mapShared(-1, 4096), "EBADF"],
  [() => openFile("/dev/null/x", O.RDONLY), "ENOTDIR"],
];

/** Returns what was not as it should have been, in `rounds` rounds. */
export function checkErrnos(rounds: number): string[] {
  const wrong: string[] = [];
  const garbage: unknown[] = [];
  for (let round = 0; round < rounds; round++) {
    garbage[round % 100] = Array.from(
      { length: 100 },
      (_, i) => ({ round, text: `${round}.${i}` }),
    );
    const [call, expected] = calls[round % calls.length];
    try {
      call();
      wrong.push(`${expected} did not come`);
    } catch (error) {
      const code = error instanceof OsError ? error.code : String(error);
      if (code !== expected) wrong.push(`${code} instead of ${expected} in round ${round}`);
    }
  }
  return wrong;
}
