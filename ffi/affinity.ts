/**
 * On which of the host's processors threads run (sched_setaffinity(2), proc(5)).
 *
 * @module
 */
import { check, errno, OsError } from "./errno.ts";
import { libc } from "./libc.ts";

/** Bytes of a set of processors: 8192 of them, the most that Linux knows on x86. */
const SET_SIZE = 1024;
const ESRCH = 3;
/** Fields of /proc/PID/stat from the one after the name in parentheses, which may hold anything. */
const PROCESSOR_FIELD = 39 - 3;

/** The processors that a thread may run on. @throws {OsError} ESRCH if there is no such thread */
export function affinityOf(tid: number): number[] {
  const set = new Uint8Array(SET_SIZE);
  check(libc.sched_getaffinity(tid, set.length, set), "sched_getaffinity", `${tid}`);
  const cpus: number[] = [];
  set.forEach((byte, i) => {
    for (let bit = 0; byte >> bit; bit++) if (byte >> bit & 1) cpus.push(i * 8 + bit);
  });
  return cpus;
}

/**
 * Lets a thread run on these processors only; one that has ended does not matter.
 *
 * @throws {OsError} EINVAL if the host has none of them for this process
 */
export function setAffinity(tid: number, cpus: readonly number[]): void {
  const set = new Uint8Array(SET_SIZE);
  for (const cpu of cpus) if (cpu < SET_SIZE * 8) set[cpu >> 3] |= 1 << (cpu & 7);
  if (libc.sched_setaffinity(tid, set.length, set) === 0 || errno() === ESRCH) return;
  throw new OsError("sched_setaffinity", errno(), `${tid}`);
}

/** The ids of this process's threads. */
export function threadIds(): number[] {
  return Array.from(Deno.readDirSync("/proc/self/task"), ({ name }) => Number(name));
}

/** The processor on which a thread of this process ran last. */
export function processorOf(tid: number): number {
  const stat = Deno.readTextFileSync(`/proc/self/task/${tid}/stat`);
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[PROCESSOR_FIELD]);
}
