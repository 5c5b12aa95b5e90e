/**
 * What V8 makes of the calls that are hot.
 *
 * @module
 */
import assert from "node:assert/strict";

const program = new URL("optimized_program.ts", import.meta.url).pathname;

Deno.test("calls that are hot are compiled once, not again and again", async () => {
  const args = ["run", "-A", "--no-check", "--v8-flags=--trace-deopt", program];
  const command = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await command.output();
  assert(success, new TextDecoder().decode(stderr));
  // A number where the optimized call takes 64 bits: V8 does not learn from it.
  const wrong = new TextDecoder().decode(stdout).split("\n").filter((line) =>
    line.includes("not a BigInt")
  );
  assert.deepEqual(wrong, []);
});
