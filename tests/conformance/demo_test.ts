/** The demo, as the README says to run it. */
import assert from "node:assert/strict";
import { spawn } from "../../ffi/process.ts";
import { isAlive, kvmTest, Laboratory, processesOf, until } from "./program.ts";
import { commandLine } from "../processes.ts";

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

kvmTest("a demo that fails leaves no process behind that has its options", async () => {
  await using lab = await Laboratory.open();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", demo, "-D", lab.path("log")],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  const kernels = () =>
    processesOf(lab).map((pid) => {
      const kernel = commandLine(pid).split("\0").find((word) => word.endsWith("/guest.elf"));
      return { pid, kernel };
    }).filter(({ kernel }) => kernel !== undefined);
  await until(() => kernels().length > 0, () => "the demo's VMM");
  const [{ pid, kernel }] = kernels();
  // As a helper of cpr-exec does, which nobody knows of when an update fails too early.
  using left = spawn(["tail", "-n", "0", "-f", kernel!]);
  Deno.kill(pid, "SIGKILL");
  const { code, stderr } = await output;
  const said = new TextDecoder().decode(stderr);
  assert.equal(code, 1, said);
  assert.match(said, /^demo: /m);
  assert.deepEqual(left.wait(), { signal: 9 });
  await until(() => !processesOf(lab).some(isAlive), () => `the end of ${processesOf(lab)}`);
});
