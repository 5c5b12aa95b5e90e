/**
 * One side of the race in `ownership_test.ts`: it maps the page and tries to win every round.
 *
 * @module
 */
import { duplicate } from "../../ffi/fd.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";

/** What a side is told. */
export interface RaceOrder {
  readonly fd: number;
  /** The owner that it wants to make. */
  readonly owner: number;
  readonly rounds: number;
  /** Counts arrivals at the end of rounds: nobody begins a round before both ended the last. */
  readonly arrivals: SharedArrayBuffer;
}

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<RaceOrder>) => void) | null;
  postMessage(wins: Uint8Array): void;
};

scope.onmessage = ({ data }) => {
  const { fd, owner, rounds } = data;
  const ownership = new Ownership(duplicate(fd), "new");
  const arrivals = new Int32Array(data.arrivals);
  const meet = (count: number) => {
    const now = Atomics.add(arrivals, 0, 1) + 1;
    if (now === count) Atomics.notify(arrivals, 0);
    for (let seen = now; seen < count; seen = Atomics.load(arrivals, 0)) {
      Atomics.wait(arrivals, 0, seen, 10);
    }
  };
  const wins = new Uint8Array(rounds);
  for (let i = 0; i < rounds; i++) {
    meet(i * 4 + 2);
    if (ownership.swap(Owner.HANDED_OVER, owner)) wins[i] = 1;
    meet(i * 4 + 4);
    // The winner puts the word back for the next round; that is no step that a VMM makes.
    if (wins[i]) ownership.swap(owner, Owner.HANDED_OVER);
  }
  ownership.close();
  scope.postMessage(wins);
};
