/**
 * The null backend: nobody is ever there.
 *
 * @module
 */
import type { KeptChardev } from "./backend.ts";
import type { NullConfig } from "./config.ts";
import { StreamBackend } from "./stream_backend.ts";

/** Drops output (into the log file, if there is one) and gives no input. */
export class NullBackend extends StreamBackend {
  /** What `query-chardev` prints. */
  readonly filename = "null";

  /** Makes the backend. */
  constructor(config: NullConfig, kept?: KeptChardev) {
    super(config, kept, {});
  }

  /** There is no input. */
  protected inputEnded(): void {}
}
