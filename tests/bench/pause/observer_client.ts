/**
 * Starts the observer and asks it.
 *
 * @module
 */
import type { OwnedFd } from "../../../ffi/fd.ts";
import { makeMemfd, type MappedRegion, mapShared } from "../../../ffi/memory.ts";
import { sleep } from "../program.ts";
import type { Interval } from "./gaps.ts";
import { Control, CONTROL_SIZE, LISTED_GAPS, Request } from "./observer.ts";

const program = new URL("observer.ts", import.meta.url).pathname;
const PATIENCE_MS = 10_000;

/** What the observer saw. */
export interface Observation {
  /** The longest time for which a counter stood still, microseconds. */
  readonly gapUs: number;
  /** The longest time for which the observer did not look, microseconds. */
  readonly blindUs: number;
  /** The gaps that it could tell from the time between two looks, the last ones if there were many. */
  readonly gaps: readonly Interval[];
}

/** The observer's process. */
export class Observer implements AsyncDisposable {
  readonly #memfd: OwnedFd;
  readonly #region: MappedRegion;
  readonly #control: BigInt64Array;
  readonly #child: Deno.ChildProcess;

  /** @param ram the path of the guest's RAM @param addresses of its counters */
  constructor(ram: string, addresses: readonly number[]) {
    this.#memfd = makeMemfd("observer-control", CONTROL_SIZE);
    this.#region = mapShared(this.#memfd.fd, CONTROL_SIZE);
    this.#control = new BigInt64Array(this.#region.bytes.buffer);
    const control = `/proc/${Deno.pid}/fd/${this.#memfd.fd}`;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", program, control, ram, ...addresses.map(String)],
      stdin: "piped",
    }).spawn();
  }

  /** Done when it watches. @throws {Error} if it does not begin */
  async begin(): Promise<void> {
    this.#control[Control.REQUEST] = Request.WATCH;
    await this.#reaches(Request.WATCH);
  }

  /** Done when it has stopped. @throws {Error} if it does not */
  async end(): Promise<Observation> {
    this.#control[Control.REQUEST] = Request.REST;
    await this.#reaches(Request.REST);
    const us = (word: number) => Number(this.#control[word]) / 1000;
    return { gapUs: us(Control.GAP), blindUs: us(Control.BLIND), gaps: this.#gaps() };
  }

  /** Ends the process. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stdin.close();
    await this.#child.status;
    this.#region.close();
    this.#memfd.close();
  }

  #gaps(): Interval[] {
    const length = Math.min(Number(this.#control[Control.LISTED]), LISTED_GAPS);
    return Array.from({ length }, (_, i) => {
      const [startNs, endNs] = [0, 1].map((j) => Number(this.#control[Control.GAPS + 2 * i + j]));
      return { startNs, endNs };
    });
  }

  async #reaches(state: bigint): Promise<void> {
    const start = performance.now();
    while (this.#control[Control.STATE] !== state) {
      if (performance.now() - start > PATIENCE_MS) throw new Error("The observer does not answer");
      await sleep(1);
    }
  }
}
