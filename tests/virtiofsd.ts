/**
 * virtiofsd, where it is installed and may run: a folder behind a vhost-user socket.
 *
 * @module
 */
import { patience } from "./patience.ts";

/** Where Debian has it: that of QEMU 7, and the one in Rust that has come in its place. */
const paths = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

const program = paths.find((path) => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
});

/** Why there is none, or undefined. */
export const noVirtiofsd: string | undefined = program === undefined
  ? "virtiofsd is not installed"
  : Deno.uid() !== 0
  ? "virtiofsd is root's"
  : undefined;

/** A daemon with one folder. */
export class Virtiofsd implements AsyncDisposable {
  private constructor(readonly child: Deno.ChildProcess) {}

  /**
   * Starts one, and waits until it listens. It serves one connection, and ends with it.
   *
   * @param folder what is shared
   * @param socket where it listens
   */
  static async start(folder: string, socket: string): Promise<Virtiofsd> {
    const isOld = program === paths[0];
    const child = new Deno.Command(program!, {
      args: isOld
        ? [`--socket-path=${socket}`, "-o", `source=${folder}`, "-o", "sandbox=chroot", "-f"]
        : [`--socket-path=${socket}`, `--shared-dir=${folder}`, "--sandbox=chroot"],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const daemon = new Virtiofsd(child);
    const limit = performance.now() + patience(60_000);
    // Its file is there when it listens: to connect would be to be served.
    for (;;) {
      if (isListening(socket)) return daemon;
      if (performance.now() > limit) throw new Error("virtiofsd does not listen");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.child.status;
  }
}

/** Whether a UNIX socket listens, by the flag __SO_ACCEPTCON in /proc/net/unix. */
function isListening(path: string): boolean {
  return Deno.readTextFileSync("/proc/net/unix").split("\n").some((line) => {
    const [, , , flags, , , , name] = line.trim().split(/\s+/);
    return name === path && (parseInt(flags, 16) & 0x1_0000) !== 0;
  });
}
