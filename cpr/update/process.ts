/**
 * The process behind a QMP connection: which one it is, and how it was started.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import { hasEnded, openPidfd, readStrings } from "../../ffi/process.ts";
import { peerCredentials } from "../../ffi/socket.ts";
import { localAddress, peerAddress } from "../../ffi/socket_address.ts";

/** The states that /proc/net/unix and /proc/net/tcp give connected sockets (linux/net.h, tcp.h). */
const UNIX_CONNECTED = "03";
const TCP_ESTABLISHED = "01";

/** A running VMM's process. */
export class VmmProcess implements Disposable {
  readonly #pidfd: OwnedFd;

  private constructor(
    /** Its id. */
    readonly pid: number,
    /** What it was started with; element 0 is the program. */
    readonly argv: readonly string[],
    /** Its working directory. */
    readonly cwd: string,
    /** Its environment, without what Denovo's processes tell each other. */
    readonly env: Readonly<Record<string, string>>,
    pidfd: OwnedFd,
  ) {
    this.#pidfd = pidfd;
  }

  /**
   * Finds the process that answers on a connection.
   *
   * @throws {Error} if it is not on this host, or belongs to another user
   */
  static behind(socket: OwnedFd, name: string): VmmProcess {
    const pid = peerPid(socket.fd);
    if (pid === undefined) {
      throw new Error(`Cannot find the process behind '${name}', is it on another host?`);
    }
    const pidfd = openPidfd(pid);
    try {
      const { uid } = Deno.statSync(`/proc/${pid}`);
      if (uid !== Deno.uid()) {
        throw new Error(`VMM ${pid} runs as user ${uid}, run the update as that user`);
      }
      const argv = readStrings(`/proc/${pid}/cmdline`);
      const env = readStrings(`/proc/${pid}/environ`)
        .map((entry) => [entry.split("=", 1)[0], entry.slice(entry.indexOf("=") + 1)] as const)
        .filter(([key]) => key !== "" && !key.startsWith("DENOVO_"));
      const cwd = Deno.readLinkSync(`/proc/${pid}/cwd`);
      return new VmmProcess(pid, argv, cwd, Object.fromEntries(env), pidfd);
    } catch (error) {
      pidfd.close();
      throw error;
    }
  }

  /** Whether it has ended. */
  get ended(): boolean {
    return hasEnded(this.#pidfd.fd);
  }

  /** A path as the process means it. */
  resolve(path: string): string {
    return path.startsWith("/") ? path : `${this.cwd}/${path}`;
  }

  /** What a descriptor of the process refers to; undefined if that cannot be seen. */
  targetOf(fd: number): string | undefined {
    try {
      return Deno.readLinkSync(`/proc/${this.pid}/fd/${fd}`);
    } catch {
      return undefined;
    }
  }

  /** Closes what holds on to the process; the process is not touched. */
  [Symbol.dispose](): void {
    this.#pidfd.close();
  }
}

/** The process at the other end of a connection. */
export function peerPid(fd: number): number | undefined {
  const peer = peerAddress(fd);
  if (peer?.type === "inet") return tcpPeer(peer.port, localPort(fd));
  const { pid } = peerCredentials(fd);
  // Whoever called listen(2) may have passed the socket on, and may be gone.
  if (pid > 0 && exists(pid)) return pid;
  return peer && holderOf(connectionsOf(peer.path));
}

/**
 * The process that serves a connection now, whoever called listen(2); undefined if it cannot be told,
 * because several processes have such connections.
 */
export function servingPid(fd: number): number | undefined {
  const peer = peerAddress(fd);
  if (peer?.type !== "unix") return peerPid(fd);
  return holderOf(connectionsOf(peer.path));
}

/** The sockets that were made for a path's clients. */
function connectionsOf(path: string): string[] {
  return table("unix").filter((row) => row[5] === UNIX_CONNECTED && row[7] === path)
    .map((row) => row[6]);
}

function localPort(fd: number): number | undefined {
  const own = localAddress(fd);
  return own?.type === "inet" ? own.port : undefined;
}

/** The process that has the other end of a TCP connection, if that is on this host. */
function tcpPeer(port: number, own: number | undefined): number | undefined {
  const portOf = (address: string) => parseInt(address.slice(address.lastIndexOf(":") + 1), 16);
  const rows = [...table("tcp"), ...table("tcp6")].filter((row) =>
    row[3] === TCP_ESTABLISHED && portOf(row[1]) === port && portOf(row[2]) === own
  );
  return holderOf(rows.map((row) => row[9]));
}

/** proc(5): the rows of a table of sockets, as words. */
function table(protocol: "unix" | "tcp" | "tcp6"): string[][] {
  const lines = Deno.readTextFileSync(`/proc/net/${protocol}`).trim().split("\n").slice(1);
  return lines.map((line) => line.trim().split(/\s+/));
}

/** The one process that has a socket among its descriptors; undefined if there are several. */
function holderOf(inodes: readonly string[]): number | undefined {
  const names = inodes.map((inode) => `socket:[${inode}]`);
  const holders = [...Deno.readDirSync("/proc")].map(({ name }) => Number(name))
    .filter((pid) => pid > 0 && socketsOf(pid).some((socket) => names.includes(socket)));
  return holders.length === 1 ? holders[0] : undefined;
}

function socketsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    return Array.from(Deno.readDirSync(folder), ({ name }) => linkOf(`${folder}/${name}`));
  } catch {
    // Another user's, or gone.
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}

function exists(pid: number): boolean {
  return linkOf(`/proc/${pid}/exe`) !== "";
}

/** Whether somebody listens on a UNIX socket's path: proc(5), flag __SO_ACCEPTCON. */
export function listens(path: string): boolean {
  return table("unix").some((row) => row[3] === "00010000" && row[7] === path);
}
