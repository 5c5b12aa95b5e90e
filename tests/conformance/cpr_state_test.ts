/** `denovo state FILE` on what a real VM has saved. */
import assert from "node:assert/strict";
import type { StateDump } from "../../cpr/state/state_dump.ts";
import { kvmTest, Laboratory, type Qmp } from "./program.ts";
import { run } from "./session.ts";

/** Saves a guest into the file `state`, which begins at an offset. */
async function save(lab: Laboratory, qmp: Qmp, offset = 0): Promise<void> {
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", { uri: `file:${lab.path("state")},offset=${offset}` });
  await qmp.logged("MIGRATION completed");
}

kvmTest("`state` prints what is in a saved VM, as its monitor says it", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm", { options: ["-smp", "2", "-machine", "rtc=on"] });
  await qmp.assertGuestRuns();
  await save(lab, qmp);
  const { code, stdout, stderr } = await run("state", lab.path("state"));
  assert.deepEqual([code, stderr], [0, ""]);
  const dump: StateDump = JSON.parse(stdout);
  assert.equal(dump.length, Deno.statSync(lab.path("state")).size);
  assert.equal(dump.rest, 0);
  assert.deepEqual(dump.sections.filter((section) => "undecoded" in section), []);
  const fields = (name: string, id: string) => {
    const found = dump.sections.find((section) => section.name === name && section.id === id);
    assert.ok(found && "fields" in found, `${name} ${id} in ${stdout}`);
    return found.fields as Record<string, string | number>;
  };
  assert.equal(fields("globalstate", "").was_running, 1);
  assert.equal(fields("machine", "").cpus, "2");
  assert.ok(BigInt(fields("cpu/msrs", "1")["0x10"]) > 0n);
  assert.equal(fields("mc146818rtc", "rtc").cmos.toString().length, 256);
  const registers = await qmp.hmp("info registers");
  const rip = /RIP=([0-9a-f]{16})/.exec(registers)?.[1];
  assert.equal(BigInt(fields("cpu/regs", "0").rip), BigInt(`0x${rip}`));
  const ram = dump.sections.filter((section) => "ranges" in section);
  assert.equal(ram.length, 1);
  assert.equal(ram[0].bytes, 64 << 20);
  assert.ok(ram[0].zeroPages > 0 && ram[0].zeroPages < ram[0].pages);
  assert.deepEqual(ram[0].ranges, [{ offset: "0x0", length: "0x4000000" }]);
});

kvmTest("`state` says in one line why it prints nothing, and exits with 1", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  await save(lab, qmp, 4096);
  const path = lab.path("state");
  const state = Deno.readFileSync(path);
  assert.equal((await run("state", `file:${path},offset=4096`)).code, 0);
  const damaged = state.slice();
  // A byte of the last section's version.
  damaged[damaged.length - 24] ^= 1;
  Deno.writeFileSync(lab.path("damaged"), damaged);
  Deno.writeFileSync(lab.path("cut"), state.subarray(0, state.length - 13));
  const cases: [string, RegExp][] = [
    [lab.path("none"), /^denovo: Could not open '.*\/none': No such file or directory\n$/],
    [lab.folder, /^denovo: Unable to read from '.*': Is a directory\n$/],
    [path, /^denovo: .*\/state: Not a migration stream\n$/],
    [`file:${path},offset=x`, /^denovo: file URI has bad offset x\n$/],
    [
      `file:${lab.path("damaged")},offset=4096`,
      /^denovo: file:.*: Checksum of section \d+ \('isa-debug-exit' isa-debug-exit.0\) is wrong\n$/,
    ],
    [
      `file:${lab.path("cut")},offset=4096`,
      /^denovo: file:.*: Stream ends within section \d+ \(.*\): 3 of 4 bytes\n$/,
    ],
    ["-x", /^denovo: usage: /],
  ];
  for (const [argument, message] of cases) {
    const { code, stdout, stderr } = await run("state", argument);
    assert.deepEqual([code, stdout], [1, ""], argument);
    assert.match(stderr, message);
  }
});
