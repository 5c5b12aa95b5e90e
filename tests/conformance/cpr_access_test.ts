/** A guest in the middle of device accesses: a live update loses none and repeats none. */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { kvmTest, Laboratory } from "./program.ts";
import { assertCounts, assertUnharmed, Chain, FifoConsole, modes } from "./updates.ts";

/** What `access` cycles through on the debug console. */
const PERIOD = 251;

/** Fails unless the debug console has received every byte once, as the guest has counted them. */
function assertSequence(bytes: Uint8Array, counted: number, unit: number): void {
  const wrong = bytes.findIndex((byte, i) => byte !== i % PERIOD);
  assert.equal(wrong, -1, `byte ${wrong} is ${bytes[wrong]}, after ${bytes[wrong - 1]}`);
  // The guest was stopped after an access and before it was counted, or within one.
  const rest = bytes.length - counted * unit;
  assert.ok(rest >= 0 && rest <= unit, `${bytes.length} bytes for ${counted} times ${unit}`);
}

const kinds: Record<string, string> = {
  p: "OUT",
  s: "REP OUTSB",
  r: "IN and OUT",
  i: "REP INSB",
  m: "MMIO",
  c: "REP MOVSD of MMIO",
};

for (const [letter, kind] of Object.entries(kinds)) {
  for (const [level, mode] of [["CPL0", letter], ["CPL3", letter.toUpperCase()]]) {
    kvmTest(`${kind} in ${level} comes once each through each mode`, async () => {
      await using lab = await Laboratory.open();
      using console = await FifoConsole.open(lab.path("console"));
      const debug = lab.path("debug");
      const options = [
        ...["-append", `mode=${mode}`, "-debugcon", "chardev:debug"],
        ...["-chardev", `file,id=debug,path=${debug},append=on`],
      ];
      const chain = await Chain.start(lab, { guest: "access", options, serial: console.serial });
      await console.printed("access\n");
      for (const update of modes) {
        await assertCounts(chain.qmp, layout.counter);
        await chain.update(update);
      }
      await assertCounts(chain.qmp, layout.counter);
      await chain.qmp.execute("stop");
      await assertUnharmed(chain.qmp);
      assert.equal(console.text, "access\n");
      const unit = letter === "p" ? 1 : letter === "s" ? PERIOD : 0;
      const counted = await chain.qmp.word(layout.counter);
      if (unit > 0) assertSequence(Deno.readFileSync(debug), counted, unit);
    });
  }
}
