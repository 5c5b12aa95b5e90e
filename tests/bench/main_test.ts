/** What `deno task bench` says about its arguments; nothing is measured. */
import assert from "node:assert/strict";
import { qemuVersion } from "./pause/probe.ts";

const program = new URL("main.ts", import.meta.url).pathname;

async function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const output = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", program, ...args],
  }).output();
  const [stdout, stderr] = [output.stdout, output.stderr].map((b) => new TextDecoder().decode(b));
  return { code: output.code, stdout, stderr };
}

const parts = "startup, exits, stop, memory, lifecycle, linux, cpu, devices, busy, pause";

Deno.test("bench --help lists every part and option, with a part and without", async () => {
  const { code, stdout, stderr } = await run("--", "--help");
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  for (const word of [...parts.split(", "), "--quick"]) {
    assert.match(stdout, new RegExp(`^${word} +\\S`, "m"));
  }
  assert.deepEqual(await run("cpu", "--help"), { code, stdout, stderr });
  const pause = await run("pause", "--help");
  assert.equal(pause.code, 0);
  assert.match(pause.stdout, /^usage: deno task bench -- pause /);
});

Deno.test("bench refuses what it does not know with a sentence", async () => {
  const cases: [args: string[], stderr: string][] = [
    [["toString"], `Unknown part 'toString': give any of ${parts}\n`],
    [
      ["--qemu", "/nonexistent"],
      "Unknown option '--qemu': --help lists those there are, 'pause --help' those of pause\n",
    ],
  ];
  for (const [args, stderr] of cases) {
    assert.deepEqual(await run(...args), { code: 1, stdout: "", stderr });
  }
});

Deno.test("bench pause --qemu names the option and the program that is not there", async () => {
  await assert.rejects(qemuVersion("/nonexistent"), {
    message: /^--qemu '\/nonexistent' cannot be started: .*No such file or directory/,
  });
});
