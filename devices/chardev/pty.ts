/**
 * The pty backend: a pseudo-terminal for a terminal program to open.
 *
 * @module
 */
import { pollFd, POLLHUP, unlinkFile } from "../../ffi/fd.ts";
import { linkPty, openPty, ptyPath } from "../../ffi/terminal.ts";
import type { KeptChardev } from "./backend.ts";
import type { PtyConfig } from "./config.ts";
import { StreamBackend } from "./stream_backend.ts";

/** How often is looked whether somebody has opened the slave: no event tells (as in QEMU). */
const PROBE_MS = 1000;

/** The master of a pseudo-terminal. Output is dropped while nobody has the slave open. */
export class PtyBackend extends StreamBackend {
  /** The slave's path, for example `/dev/pts/3`. */
  readonly path: string;
  readonly #link: string | undefined;
  readonly #master: number;
  #probe: ReturnType<typeof setInterval> | undefined;

  /**
   * Makes a pseudo-terminal, or goes on with the one that was kept.
   *
   * @throws {Error} when there are none left, or the symbolic link cannot be made
   */
  constructor(config: PtyConfig, kept?: KeptChardev) {
    super(config, kept, { master: { kind: "character", writable: true } });
    let link: string | undefined;
    let path = "";
    let master = -1;
    this.setUp(() => {
      master = this.fds.open("master", () => openPty().master);
      path = ptyPath(master);
      if (config.path === undefined) return;
      if (!kept?.fds.has("master")) linkPty(path, config.path);
      link = config.path;
    });
    this.path = path;
    this.#link = link;
    this.#master = master;
  }

  /** What `query-chardev` prints. */
  get filename(): string {
    return `pty:${this.path}`;
  }

  /** Looks whether somebody has opened the slave. */
  protected override started(): void {
    this.#awaitOpening();
  }

  /** The slave was closed. */
  protected inputEnded(): void {
    this.disconnect();
    this.#awaitOpening();
  }

  /** The slave was closed, but not all that was typed is read. */
  protected override peerGone(): void {
    this.#awaitOpening();
  }

  /** Stops looking at the slave. */
  protected override stopped(): void {
    clearInterval(this.#probe);
  }

  /** Removes the symbolic link. */
  protected override restoreHost(): void {
    if (this.#link !== undefined) unlinkFile(this.#link);
  }

  #awaitOpening(): void {
    if (this.#checkOpened() || this.#probe !== undefined) return;
    this.#probe = setInterval(() => {
      if (this.#checkOpened()) {
        clearInterval(this.#probe);
        this.#probe = undefined;
      }
    }, PROBE_MS);
  }

  #checkOpened(): boolean {
    if (this.connected) return true;
    if (pollFd(this.#master, 0, 0) & POLLHUP) return false;
    this.connect(this.#master, this.#master);
    return true;
  }
}
