/**
 * Somebody who tries all the while to get a disk image that a VMM has.
 *
 * @module
 */
import assert from "node:assert/strict";
import { until } from "./program.ts";

/** The one who tries, in a process of their own: see `image_thief.ts`. */
export class Thief implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  #text = "";
  readonly #reading: Promise<void>;

  constructor(path: string) {
    const script = new URL("image_thief.ts", import.meta.url).pathname;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", script, path],
      ...{ stdin: "piped", stdout: "piped" },
    }).spawn();
    this.#reading = this.#read();
  }

  /** Its process. */
  get pid(): number {
    return this.#child.pid;
  }

  /** Waits until it tries. */
  async tries(): Promise<void> {
    await until(() => this.#text.startsWith("trying\n"), () => "somebody who tries");
  }

  /** Fails if it ever got the image. */
  assertEmptyHanded(): void {
    assert.doesNotMatch(this.#text, /STOLEN/);
  }

  /** Ends it; fails if it ever got the image. */
  async finish(): Promise<void> {
    await this.#child.stdin.close();
    await this.#reading;
    this.assertEmptyHanded();
    assert.match(this.#text, /^trying\n\d{2,} tries\n$/);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await this.#reading;
    await this.#child.status;
  }

  async #read(): Promise<void> {
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      this.#text += text;
    }
  }
}
