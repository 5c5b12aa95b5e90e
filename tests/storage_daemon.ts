/**
 * qemu-storage-daemon, where it is installed: a disk behind a vhost-user socket.
 *
 * @module
 */
import { findProgram } from "../ffi/process.ts";
import { connectUnix } from "../ffi/socket.ts";
import { patience } from "./patience.ts";

const NAME = "qemu-storage-daemon";
const program = findProgram(NAME);

/** Whether there is none; tests with it are skipped then. */
export const noStorageDaemon: boolean = program === NAME;
if (noStorageDaemon) {
  console.warn("SKIPPED: tests with qemu-storage-daemon, which is not installed");
}

/** A daemon with one image. */
export class StorageDaemon implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
  }

  /**
   * Starts one, and waits until it listens.
   *
   * @param image the disk
   * @param socket where it listens
   */
  static async start(image: string, socket: string, queues = 1): Promise<StorageDaemon> {
    await Deno.remove(socket).catch(() => {});
    const child = new Deno.Command(program, {
      args: [
        ...["--blockdev", `driver=file,node-name=disk,filename=${image}`],
        "--export",
        `type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path=${socket},` +
        `writable=on,num-queues=${queues}`,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const daemon = new StorageDaemon(child);
    const limit = performance.now() + patience(60_000);
    for (;;) {
      try {
        // It serves whoever comes next when this is closed.
        connectUnix(socket, { nonblocking: true }).close();
        return daemon;
      } catch (error) {
        if (performance.now() > limit) throw error;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }
  }

  /** Ends it as a crash does. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
  }
}
