/** The demo, as the README says to run it. */
import assert from "node:assert/strict";
import { kvmTest } from "./program.ts";

const demo = new URL("../../examples/demo.ts", import.meta.url).pathname;

kvmTest(
  "the demo updates its guest in all three modes, and its guest answers throughout",
  async () => {
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      // Should a guest start anew, its VMM says when, and why.
      args: [
        ...["run", "-A", "--no-check", demo],
        ...["-d", "guest_errors,cpu_reset", "-msg", "timestamp=on"],
      ],
      stdin: "null",
    }).output();
    const text = new TextDecoder().decode(stdout);
    const told = `${text}\n${new TextDecoder().decode(stderr)}`;
    assert.equal(code, 0, told);
    for (const mode of ["transfer", "exec", "reboot"]) {
      assert.match(text, new RegExp(`^--- ${mode}: `, "m"), told);
      for (const word of ["BEFORE", "AFTER"]) {
        const answer = new RegExp(`^guest:   you said: ${word} ${mode.toUpperCase()}$`, "mg");
        assert.equal([...text.matchAll(answer)].length, 1, told);
      }
    }
    assert.equal([...text.matchAll(/^update: {2}VMM \d+ -> \d+, pause /mg)].length, 3, told);
    // The guest's own count of its ticks goes on: it was never restarted. What it prints while no
    // terminal is connected, before the first one and over a reboot, nobody sees.
    const ticks = [...text.matchAll(/tick (\d+)$/mg)].map(([, number]) => Number(number));
    assert.ok(ticks.length > 1, told);
    assert.ok(ticks.every((tick, i) => i === 0 || tick > ticks[i - 1]), told);
  },
);
