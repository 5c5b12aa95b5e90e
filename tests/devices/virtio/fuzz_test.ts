import assert from "node:assert/strict";
import { fuzzRing } from "./fuzz.ts";

Deno.test("a driver that breaks every rule of a ring gets a malformed ring and no more", () => {
  let malformed = 0, taken = 0;
  for (let seed = 0; seed < 500; seed++) {
    const count = fuzzRing(seed);
    malformed += count.malformed;
    taken += count.taken;
  }
  assert(malformed > 1000, `only ${malformed} rings were malformed`);
  assert(taken > 1000, `only ${taken} requests were taken`);
});
