/**
 * The file backend: output into a file.
 *
 * @module
 */
import { O, setNonblocking } from "../../ffi/fd.ts";
import type { KeptChardev } from "./backend.ts";
import type { FileConfig } from "./config.ts";
import { openOrExplain, StreamBackend } from "./stream_backend.ts";

/** Writes output to a file and gives no input. */
export class FileBackend extends StreamBackend {
  /** What `query-chardev` prints. */
  readonly filename = "file";

  /**
   * Opens the file, or goes on in the one that was kept.
   *
   * @throws {Error} in QEMU's words
   */
  constructor(config: FileConfig, kept?: KeptChardev) {
    super(config, kept, { file: { writable: true } });
    this.setUp(() => {
      const mode = config.append ? O.APPEND : O.TRUNC;
      const fd = this.fds.open(
        "file",
        () => openOrExplain(config.path, O.WRONLY | O.CREAT | O.NOCTTY | mode),
      );
      // The path may be that of a FIFO or a terminal.
      setNonblocking(fd, true);
      this.connect(-1, fd);
    });
  }

  /** There is no input. */
  protected inputEnded(): void {}
}
