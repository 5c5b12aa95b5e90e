/**
 * Processes of this host, for tests.
 *
 * @module
 */

/** How Deno words ESRCH, for which it has no class. */
const NO_SUCH_PROCESS = /\(os error 3\)$/;

/** Whether a process is there, other than as a zombie: proc(5). */
export function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch (error) {
    // It may end after the file is opened, too, before it is read.
    const { message } = error as Error;
    if (error instanceof Deno.errors.NotFound || NO_SUCH_PROCESS.test(message)) return false;
    throw error;
  }
}

/** The other processes whose command lines name a folder, in ascending order. */
export function processesNaming(folder: string): number[] {
  const names = (pid: number) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(folder);
    } catch {
      return false;
    }
  };
  const all = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name));
  return all.filter((pid) => pid > 0 && pid !== Deno.pid && names(pid)).sort((a, b) => a - b);
}
