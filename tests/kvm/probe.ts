/**
 * A guest that does what a test tells it, to try the machine's hardware from inside.
 *
 * @module
 */
import { TestVm, type VmOptions } from "./harness.ts";

/** A VM that runs the guest program `probe`. */
export class Probe implements AsyncDisposable {
  /** The registers EAX and EBX with which the guest was entered. */
  readonly entered: readonly number[];
  /** What of the console's text is read. */
  #taken: number;

  private constructor(readonly test: TestVm) {
    const [line, eax, ebx] = /^probe (\w+) (\w+)\n/.exec(test.text)!;
    this.entered = [parseInt(eax, 16), parseInt(ebx, 16)];
    this.#taken = line.length;
  }

  /** Starts the guest. */
  static async start(options: VmOptions = {}): Promise<Probe> {
    const test = await TestVm.start({ program: "probe", ...options });
    await test.printed("\n");
    return new Probe(test);
  }

  /** Writes to a port. */
  out(port: number, value: number, size: 1 | 2 | 4 = 1): void {
    this.test.type(`${{ 1: "o", 2: "w", 4: "l" }[size]} ${hex(port)} ${hex(value)}\n`);
  }

  /** Reads bytes from a port. */
  async in(port: number, length: number): Promise<number[]> {
    return await this.#ask(`i ${hex(port)}\n`, length);
  }

  /** Reads bytes of memory. */
  async load(address: number, length: number): Promise<number[]> {
    const bytes: number[] = [];
    for (let i = 0; i < length; i++) bytes.push(...await this.#ask(`g ${hex(address + i)}\n`, 1));
    return bytes;
  }

  /** Writes a word of 4 bytes to memory. */
  store(address: number, value: number): void {
    this.test.type(`p ${hex(address)} ${hex(value)}\n`);
  }

  /** Ends the guest; returns the exit status. */
  async leave(): Promise<number> {
    this.test.type("e\n");
    return await this.test.ended();
  }

  /** Closes the VM. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.test[Symbol.asyncDispose]();
  }

  async #ask(question: string, count: number): Promise<number[]> {
    const answers: number[] = [];
    for (let i = 0; i < count; i++) {
      this.test.type(question);
      await this.test.printed("\n", this.test.text.slice(0, this.#taken).split("\n").length);
      const end = this.test.text.indexOf("\n", this.#taken);
      answers.push(parseInt(this.test.text.slice(this.#taken, end), 16));
      this.#taken = end + 1;
    }
    return answers;
  }
}

function hex(value: number): string {
  return (value >>> 0).toString(16);
}
