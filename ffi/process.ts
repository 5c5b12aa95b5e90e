/**
 * Processes and threads: kicking a vCPU thread, execve, spawning with chosen descriptors, pidfds.
 *
 * @module
 */
import { check, errno, OsError, retry } from "./errno.ts";
import { OwnedFd, pollFd, POLLIN } from "./fd.ts";
import { cstring, libc } from "./libc.ts";
import { addressOf, mapCode } from "./memory.ts";
import { decodeText } from "./text.ts";

/**
 * The signal that kicks a thread out of KVM_RUN or a blocking call: a real-time signal that neither
 * glibc (32, 33) nor Deno uses.
 */
export const KICK_SIGNAL = 40;
const SA_SIZE = 152;
/** glibc's sigset_t. */
const SIGSET_SIZE = 128;
const SIG_BLOCK = 0;
const SIG_UNBLOCK = 1;
const SYS_PIDFD_OPEN = 434;
const P_PID = 1;
const P_PIDFD = 3;
const WEXITED = 4;
const WNOHANG = 1;
/** The signal that nobody can put off. */
export const SIGKILL = 9;
const SIGINFO_WORDS = 32;
const POSIX_SPAWN_SETSID = 0x80;
const PR_SET_NAME = 15;

const pid = Deno.pid;
let installed = false;

/**
 * Installs the kick signal's handler, once per process. It is one native `ret` instruction:
 * the signal only has to interrupt, and JavaScript must never run in a signal handler.
 */
export function installKick(): void {
  if (installed) return;
  installed = true;
  // The page lives as long as the process: a handler may run at any time.
  const code = mapCode(new Uint8Array([0xc3]));
  // struct sigaction of glibc: handler, mask of 128 bytes, flags (none: no SA_RESTART), restorer.
  const action = new Uint8Array(SA_SIZE);
  new BigUint64Array(action.buffer, 0, 1)[0] = BigInt(code.address);
  check(libc.sigaction(KICK_SIGNAL, action, 0), "sigaction", `${KICK_SIGNAL}`);
}

/** Interrupts the system call that a thread of this process is in. */
export function kickThread(tid: number): void {
  libc.tgkill(pid, tid, KICK_SIGNAL);
}

/**
 * Runs `action` while the kick signal is pending for the calling thread, but does not interrupt it:
 * only a call that lets the signal in for itself, as KVM_RUN does with a signal mask, sees it.
 */
export function withPendingKick(action: () => void): void {
  const set = new Uint8Array(SIGSET_SIZE);
  new DataView(set.buffer).setBigUint64(0, 1n << BigInt(KICK_SIGNAL - 1), true);
  libc.pthread_sigmask(SIG_BLOCK, set, 0);
  try {
    kickThread(libc.gettid());
    action();
  } finally {
    libc.pthread_sigmask(SIG_UNBLOCK, set, 0);
  }
}

/** The calling thread's id. */
export function threadId(): number {
  return libc.gettid();
}

/** Names the calling thread, as `ps -T` and `top -H` show it (15 bytes). */
export function nameThread(name: string): void {
  const text = cstring(name.slice(0, 15));
  libc.prctl(PR_SET_NAME, addressOf(text), 0, 0, 0);
}

/** A NULL-terminated array of C strings, with the buffers it points to. */
class StringArray {
  readonly #strings: Uint8Array<ArrayBuffer>[];
  /** The pointers. */
  readonly pointers: BigUint64Array<ArrayBuffer>;

  constructor(strings: readonly string[]) {
    this.#strings = strings.map(cstring);
    this.pointers = new BigUint64Array([...this.#strings.map(addressOf), 0n]);
  }
}

/** This process's environment. Deno leaves out variables that are not UTF-8 throughout. */
export function ownEnvironment(): Record<string, string> {
  const others = readStrings("/proc/self/environ").filter((entry) => !entry.isWellFormed());
  const named = others.map((entry): [string, string] => {
    const end = entry.indexOf("=");
    return [entry.slice(0, end), entry.slice(end + 1)];
  });
  return { ...Object.fromEntries(named), ...Deno.env.toObject() };
}

/**
 * Reads strings that end in NUL each, as proc(5) has command lines and environments.
 *
 * @throws {Error} one of Deno's, if the file cannot be read
 */
export function readStrings(path: string): string[] {
  return decodeText(Deno.readFileSync(path)).split("\0").slice(0, -1);
}

/** Environment variables as `NAME=value` strings. */
function environment(changes: Readonly<Record<string, string | undefined>>): string[] {
  const all: Record<string, string | undefined> = { ...ownEnvironment(), ...changes };
  return Object.entries(all).flatMap(([k, v]) => v === undefined ? [] : [`${k}=${v}`]);
}

/**
 * Finds a program as execvp does: a name without a slash is looked up in PATH.
 *
 * @returns the path, or the name itself if PATH does not have it
 */
export function findProgram(name: string): string {
  if (name.includes("/")) return name;
  for (const folder of (Deno.env.get("PATH") ?? "/usr/local/bin:/usr/bin:/bin").split(":")) {
    const path = `${folder || "."}/${name}`;
    try {
      const info = Deno.statSync(path);
      if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not in this folder: look on.
    }
  }
  return name;
}

/**
 * An execve that is ready to go: everything that can fail or allocate was done before.
 */
export class PreparedExec {
  readonly #path: Uint8Array<ArrayBuffer>;
  readonly #argv: StringArray;
  readonly #envp: StringArray;

  /**
   * @param argv the command; element 0 is looked up as execvp does
   * @param env changes to the environment; undefined removes a variable
   */
  constructor(
    readonly argv: readonly string[],
    env: Readonly<Record<string, string | undefined>> = {},
  ) {
    this.#path = cstring(findProgram(argv[0]));
    this.#argv = new StringArray(argv);
    this.#envp = new StringArray(environment(env));
  }

  /** Replaces this process. Returns only by throwing. @throws {OsError} */
  exec(): never {
    libc.execve(this.#path, this.#argv.pointers, this.#envp.pointers);
    throw new OsError("execve", errno(), this.argv[0]);
  }
}

/** How a child is started. */
export interface SpawnOptions {
  /** Changes to the environment; undefined removes a variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Descriptors that the child gets: [number in this process, number in the child]. */
  readonly fds?: readonly (readonly [number, number])[];
  /** Start the child in a session of its own. */
  readonly newSession?: boolean;
  /** The child's working directory; this process's unless given. */
  readonly cwd?: string;
}

/**
 * Starts a child that inherits only stdin, stdout, stderr and the descriptors named.
 *
 * @returns the child
 * @throws {OsError} if the program cannot be started
 */
export function spawn(argv: readonly string[], options: SpawnOptions = {}): ChildProcess {
  const path = cstring(findProgram(argv[0]));
  const args = new StringArray(argv);
  const env = new StringArray(environment(options.env ?? {}));
  // posix_spawn_file_actions_t is 80 bytes and posix_spawnattr_t 336 in glibc.
  const actions = new Uint8Array(80);
  const attributes = new Uint8Array(336);
  libc.posix_spawn_file_actions_init(actions);
  libc.posix_spawnattr_init(attributes);
  try {
    // A dup2 onto itself clears CLOEXEC in the child alone (POSIX, posix_spawn).
    for (const [from, to] of options.fds ?? []) {
      const error = libc.posix_spawn_file_actions_adddup2(actions, from, to);
      if (error !== 0) throw new OsError("posix_spawn_file_actions_adddup2", error, `${from}`);
    }
    if (options.cwd !== undefined) {
      const folder = cstring(options.cwd);
      const error = libc.posix_spawn_file_actions_addchdir_np(actions, folder);
      if (error !== 0) throw new OsError("posix_spawn_file_actions_addchdir", error, options.cwd);
    }
    if (options.newSession) libc.posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSID);
    const pid = new Int32Array(1);
    const error = libc.posix_spawn(pid, path, actions, attributes, args.pointers, env.pointers);
    if (error !== 0) throw new OsError("posix_spawn", error, argv[0]);
    return new ChildProcess(pid[0]);
  } finally {
    libc.posix_spawn_file_actions_destroy(actions);
    libc.posix_spawnattr_destroy(attributes);
  }
}

/** Opens a pidfd, which becomes readable when the process ends. @throws {OsError} */
export function openPidfd(pid: number): OwnedFd {
  return new OwnedFd(check(libc.syscall2(SYS_PIDFD_OPEN, pid, 0), "pidfd_open", `${pid}`));
}

/** Whether the process behind a pidfd has ended. */
export function hasEnded(pidfd: number): boolean {
  return (pollFd(pidfd, POLLIN, 0) & POLLIN) !== 0;
}

/** Kills a child for which there is no pidfd to be had, and waits until it has ended. @throws {OsError} */
export function endChild(pid: number): void {
  libc.kill(pid, SIGKILL);
  const info = new Int32Array(SIGINFO_WORDS);
  check(retry(() => libc.waitid(P_PID, pid, info, WEXITED)), "waitid", `${pid}`);
}

/** A child of this process. */
export class ChildProcess implements Disposable {
  /** Readable once the child has ended. */
  readonly pidfd: OwnedFd;
  #status: ExitStatus | undefined;

  /** @param pid the child's process id */
  constructor(readonly pid: number) {
    this.pidfd = openPidfd(pid);
  }

  /** Sends a signal, unless the child was already waited for. */
  kill(signal: number): void {
    if (!this.#status) libc.kill(this.pid, signal);
  }

  /** The exit status, or undefined while the child runs. Reaps the child. */
  poll(): ExitStatus | undefined {
    return this.#status ??= this.#wait(WEXITED | WNOHANG);
  }

  /** Waits on this thread until the child has ended. */
  wait(): ExitStatus {
    return this.#status ??= this.#wait(WEXITED)!;
  }

  /** Closes the pidfd; the child is not touched. */
  [Symbol.dispose](): void {
    this.pidfd.close();
  }

  #wait(options: number): ExitStatus | undefined {
    // siginfo_t: si_signo, si_errno, si_code, pad, si_pid, si_uid, si_status
    const info = new Int32Array(SIGINFO_WORDS);
    check(retry(() => libc.waitid(P_PIDFD, this.pidfd.fd, info, options)), "waitid", `${this.pid}`);
    if (info[0] === 0) return undefined;
    return info[2] === 1 ? { code: info[6] } : { signal: info[6] };
  }
}

/** How a child ended: by exit code or by signal. */
export type ExitStatus = { readonly code: number } | { readonly signal: number };
