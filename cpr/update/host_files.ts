/**
 * Files of the running VMM that its successor replaces as it starts: sockets that listen, and the
 * pidfile. If the update fails they are put back, so that the running VMM can be reached again.
 *
 * @module
 */
import type { MachineConfig } from "../../vmm/config.ts";
import { serversOf } from "./command_line.ts";
import type { VmmProcess } from "./process.ts";

/** The files of one VMM, as they were before the update. */
export class HostFiles implements Disposable {
  /** A second name of each socket's file: it leads to the same listener, whoever takes the path. */
  readonly #links = new Map<string, string>();
  readonly #pidfile: { readonly path: string; readonly text: string } | undefined;

  /**
   * Remembers the files.
   *
   * @throws {Error} if there is no room for second names beside the sockets
   */
  constructor(config: MachineConfig, vmm: VmmProcess) {
    try {
      for (const server of serversOf(config)) {
        if (server.family === "unix") this.#remember(vmm.resolve(server.path));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    const path = config.pidfile && vmm.resolve(config.pidfile);
    const text = path && ifThere(() => Deno.readTextFileSync(path));
    this.#pidfile = path && text ? { path, text } : undefined;
  }

  /** Puts everything back. To be called when the successor is gone. */
  restore(): void {
    for (const [path, link] of this.#links) {
      // Renaming one name of a file onto another of the same file leaves both.
      if (inode(path) !== inode(link)) Deno.renameSync(link, path);
    }
    if (this.#pidfile) {
      const { path, text } = this.#pidfile;
      if (ifThere(() => Deno.readTextFileSync(path)) !== text) {
        Deno.writeTextFileSync(path, text, { mode: 0o600 });
      }
    }
  }

  /** Removes the second names. */
  [Symbol.dispose](): void {
    for (const link of this.#links.values()) ifThere(() => Deno.removeSync(link));
    this.#links.clear();
  }

  #remember(path: string): void {
    const info = ifThere(() => Deno.lstatSync(path));
    if (!info?.isSocket) return;
    const link = `${path}.update-${Deno.pid}`;
    ifThere(() => Deno.removeSync(link));
    Deno.linkSync(path, link);
    this.#links.set(path, link);
  }
}

function inode(path: string): number | null | undefined {
  return ifThere(() => Deno.lstatSync(path))?.ino;
}

function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
