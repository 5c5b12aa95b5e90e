/**
 * Processes of this host, for tests.
 *
 * @module
 */

/** How Deno words ESRCH, for which it has no class. */
const NO_SUCH_PROCESS = /\(os error 3\)/;

/** What a look at a process, or at one of its threads, finds; undefined if it has ended meanwhile. */
function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    // It may end after the file is opened, too, before it is read.
    const { message } = error as Error;
    if (error instanceof Deno.errors.NotFound || NO_SUCH_PROCESS.test(message)) return undefined;
    throw error;
  }
}

/** A file of a process in proc(5); undefined if the process has ended. */
function procFile(pid: number, name: string): string | undefined {
  return ifThere(() => Deno.readTextFileSync(`/proc/${pid}/${name}`));
}

/** Whether a process is there, other than as a zombie: proc(5). */
export function isAlive(pid: number): boolean {
  const status = procFile(pid, "status");
  return status !== undefined && !/^State:\s+[ZX]/m.test(status);
}

/** The words of a process's command line, each ended by NUL; nothing if it has ended. */
export function commandLine(pid: number): string {
  try {
    return procFile(pid, "cmdline") ?? "";
  } catch (error) {
    // Other users' may be hidden: proc(5), `hidepid`.
    if (error instanceof Deno.errors.PermissionDenied) return "";
    throw error;
  }
}

/** The other processes whose command lines name a folder, in ascending order. */
export function processesNaming(folder: string): number[] {
  const all = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name));
  return all.filter((pid) => pid > 0 && pid !== Deno.pid && commandLine(pid).includes(folder))
    .sort((a, b) => a - b);
}

/** The children of a process, those that nobody has waited for among them; any thread may have them. */
export function childrenOf(pid: number): number[] {
  const tasks = ifThere(() => [...Deno.readDirSync(`/proc/${pid}/task`)]) ?? [];
  return tasks.flatMap(({ name }) => procFile(pid, `task/${name}/children`)?.split(" ") ?? [])
    .filter((child) => child !== "").map(Number);
}

/** What a process has open, by what its links in `/proc/PID/fd` say. */
export function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  const files = ifThere(() => [...Deno.readDirSync(folder)]) ?? [];
  // One may be closed since.
  return files.flatMap(({ name }) => ifThere(() => Deno.readLinkSync(`${folder}/${name}`)) ?? []);
}

/** What of a list is not in another one, each as often as it is too much. */
export function beyond(list: readonly string[], other: readonly string[]): string[] {
  const rest = [...other];
  return list.filter((one) => {
    const at = rest.indexOf(one);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}

/**
 * What this process has open beyond what it had before, by {@linkcode openFiles}. Event loops are left
 * out: threads of the runtime come and go, and have some.
 */
export function newlyOpen(before: readonly string[]): string[] {
  return beyond(openFiles(Deno.pid), before).filter((file) => !/^anon_inode:\[event/.test(file));
}

/** Whether a process has been stopped by a signal: proc(5). */
export function isStopped(pid: number): boolean {
  return /^State:\s+T/m.test(procFile(pid, "status") ?? "");
}

/** Whether a process has ended and nobody has waited for it. */
export function isZombie(pid: number): boolean {
  return /^State:\s+Z/m.test(procFile(pid, "status") ?? "");
}

/** Ends a process, if it is there. */
export function kill(pid: number): void {
  ifThere(() => Deno.kill(pid, "SIGKILL"));
}

/** Ends a process and all that it has started, and what these have. */
export function killTree(pid: number): void {
  const tree = [pid];
  // Whoever has lost its parent is not found any more: all are found before the first is ended. Who is
  // stopped starts nothing more.
  for (const parent of tree) {
    ifThere(() => Deno.kill(parent, "SIGSTOP"));
    tree.push(...childrenOf(parent));
  }
  tree.forEach(kill);
}
