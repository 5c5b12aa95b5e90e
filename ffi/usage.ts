/**
 * What a thread has used of the host (getrusage(2)).
 *
 * @module
 */
import { libc } from "./libc.ts";

const RUSAGE_THREAD = 1;
// struct rusage in words of 64 bits (linux/resource.h).
const RUSAGE_WORDS = 18;
const MINFLT = 8;
const MAJFLT = 9;
const NIVCSW = 17;

/** What the calling thread uses between two moments. Making one is slow, looking is not. */
export class ThreadUsage {
  readonly #from = new BigInt64Array(RUSAGE_WORDS);
  readonly #to = new BigInt64Array(RUSAGE_WORDS);
  readonly #fromBytes = new Uint8Array(this.#from.buffer);
  readonly #toBytes = new Uint8Array(this.#to.buffer);

  /** The first moment. */
  begin(): void {
    libc.getrusage(RUSAGE_THREAD, this.#fromBytes);
  }

  /** The second moment. */
  end(): void {
    libc.getrusage(RUSAGE_THREAD, this.#toBytes);
  }

  /** Accesses to memory that the kernel had to map first, whether or not it had to be read. */
  get pageFaults(): number {
    return this.#since(MINFLT) + this.#since(MAJFLT);
  }

  /** How often the host gave the thread's processor to somebody else. */
  get preemptions(): number {
    return this.#since(NIVCSW);
  }

  #since(word: number): number {
    return Number(this.#to[word] - this.#from[word]);
  }
}
