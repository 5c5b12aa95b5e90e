/**
 * The pipe backend: FIFOs that exist in the file system.
 *
 * @module
 */
import { O } from "../../ffi/fd.ts";
import type { KeptChardev } from "./backend.ts";
import type { PipeConfig } from "./config.ts";
import { openOrExplain, StreamBackend } from "./stream_backend.ts";

// Opened for both directions, a FIFO has a reader and a writer from the start: opening does not
// wait for the other side, and the other side may come and go.
const FLAGS = O.RDWR | O.NONBLOCK;

/** Reads from `PATH.in` and writes to `PATH.out`, or uses `PATH` for both. */
export class PipeBackend extends StreamBackend {
  /** What `query-chardev` prints. */
  readonly filename = "pipe";

  /**
   * Opens the FIFOs, or goes on with those that were kept.
   *
   * @throws {Error} in QEMU's words
   */
  constructor(config: PipeConfig, kept?: KeptChardev) {
    super(config, kept, { in: {}, out: { writable: true } });
    this.setUp(() => {
      if (!kept?.fds.has("in")) this.#open(config.path);
      const input = this.fds.get("in")!;
      this.connect(input, this.fds.get("out") ?? input);
    });
  }

  /** Reading failed. */
  protected inputEnded(): void {
    this.endInput();
  }

  #open(path: string): void {
    try {
      this.fds.set("in", openOrExplain(`${path}.in`, FLAGS));
      this.fds.set("out", openOrExplain(`${path}.out`, FLAGS));
    } catch {
      this.fds.close("in");
      this.fds.set("in", openOrExplain(path, FLAGS));
    }
  }
}
