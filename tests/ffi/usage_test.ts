/** What a thread has used of the host. */
import assert from "node:assert/strict";
import { mapAnonymous } from "../../ffi/memory.ts";
import { ThreadUsage } from "../../ffi/usage.ts";

const PAGE = 4096;
const PAGES = 64;

Deno.test("`ThreadUsage` counts pages that are mapped as they are touched", () => {
  const usage = new ThreadUsage();
  const memory = mapAnonymous(PAGES * PAGE);
  usage.begin();
  for (let page = 0; page < PAGES; page++) memory.bytes[page * PAGE] = 1;
  usage.end();
  // Fewer where the kernel maps several at once.
  assert.ok(usage.pageFaults >= 1, `${usage.pageFaults}`);
  assert.ok(usage.preemptions >= 0);
  memory.close();
});
