import assert from "node:assert/strict";
import { runWithin } from "../limited.ts";
import { isAlive } from "../processes.ts";

/** Longer than anything takes that ends. */
const LONG_MS = 600_000;

Deno.test("runWithin() gives what a command printed, and how it ended", async () => {
  const say = "echo one; echo two >&2; echo three";
  assert.deepEqual(await runWithin(["sh", "-c", say], LONG_MS), {
    success: true,
    text: "one\nthree\ntwo\n",
  });
  assert.equal((await runWithin(["sh", "-c", "exit 3"], LONG_MS)).success, false);
});

Deno.test("runWithin() ends what does not end, with all that it has started, and tells so", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-limited-" });
  // The last to come up says so: by then there are three generations, in sessions of their own.
  const script =
    `setsid sh -c 'setsid sh -c "echo \\$\\$ > ${folder}/pid; echo up; exec sleep 1000"'`;
  let limitMs = 100;
  let text = "";
  // However long they take to come up here.
  for (; !text.includes("up\n"); limitMs *= 2) {
    const ended = await runWithin(["sh", "-c", `echo begun; ${script}; true`], limitMs);
    assert.equal(ended.success, false);
    ({ text } = ended);
  }
  assert.match(text, /^begun\nup\n\nKILLED: it did not end within \d+ s: sh -c echo begun; /);
  const pid = Number(await Deno.readTextFile(`${folder}/pid`));
  while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 1));
  await Deno.remove(folder, { recursive: true });
});
