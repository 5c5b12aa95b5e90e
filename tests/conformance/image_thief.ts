/**
 * A process that tries all the while to get a disk image for itself, as a second VMM would: it says
 * `trying` once, how often it has tried when its standard input ends, and `STOLEN` if it ever got it.
 *
 * @module
 */
import { openNode } from "../../devices/block/open_node.ts";
import { diskPermissions } from "../../devices/block/permissions.ts";

const node = openNode({
  ...{ driver: "file", nodeName: "thief", filename: Deno.args[0], locking: "on", aio: "threads" },
  ...{ readOnly: false, autoReadOnly: false, cache: { direct: false, noFlush: false } },
  ...{ discard: "ignore", detectZeroes: "off" },
});
let tries = 0;
let ended = false;
void Deno.stdin.readable.pipeTo(new WritableStream()).finally(() => ended = true);
console.log("trying");
while (!ended) {
  tries++;
  try {
    node.base.setUser("thief", diskPermissions(true, true));
    console.log("STOLEN");
    break;
  } catch {
    // As it should be.
  }
  if (tries % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
console.log(`${tries} tries`);
Deno.exit();
