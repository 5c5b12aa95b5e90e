import assert from "node:assert/strict";
import { makeMemfd } from "../../ffi/memory.ts";
import { Owner, Ownership } from "../../cpr/handover/ownership.ts";
import type { RaceOrder } from "./ownership_worker.ts";

const ROUNDS = 10_000;

/** Runs one side of the race; resolves with 1 for each round that it won. */
function race(order: RaceOrder): Promise<Uint8Array> {
  const worker = new Worker(import.meta.resolve("./ownership_worker.ts"), { type: "module" });
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      worker.terminate();
      resolve(data);
    };
    worker.onerror = reject;
    worker.postMessage(order);
  });
}

Deno.test("`swap()` has exactly one winner when both sides try at once", async () => {
  const ownership = Ownership.create();
  assert.ok(ownership.swap(Owner.OLD, Owner.HANDED_OVER));
  const common = { fd: ownership.fd, rounds: ROUNDS, arrivals: new SharedArrayBuffer(4) };
  const [old, successor] = await Promise.all([
    race({ ...common, owner: Owner.OLD }),
    race({ ...common, owner: Owner.NEW }),
  ]);
  for (let i = 0; i < ROUNDS; i++) assert.equal(old[i] + successor[i], 1, `round ${i}`);
  assert.equal(ownership.owner, Owner.HANDED_OVER);
  ownership.close();
});

Deno.test("`swap()` does nothing when the word is not what was expected", () => {
  const ownership = Ownership.create();
  assert.equal(ownership.swap(Owner.HANDED_OVER, Owner.NEW), false);
  assert.equal(ownership.owner, Owner.OLD);
  ownership.close();
});

Deno.test("an ownership page that is too small is refused", () => {
  using small = makeMemfd("small", 4);
  assert.throws(() => new Ownership(small, "new"), { message: "Ownership page is too small" });
});
