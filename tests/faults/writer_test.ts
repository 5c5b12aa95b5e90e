/** A guest that writes to its disk while its VMM is replaced, and those who shall replace it die. */
import assert from "node:assert/strict";
import { kvmTest } from "../conformance/program.ts";
import { writeThrough } from "./writer.ts";

/** `deno task writer` makes 200. */
const UPDATES = 12;

kvmTest("no record is lost or there twice, whatever becomes of a VMM's successors", async () => {
  const tally = await writeThrough(UPDATES, 0);
  assert.equal(tally.moved + tally.killed, UPDATES);
  assert.equal(tally.killed, 4);
  assert.equal(tally.execs, 3);
});
