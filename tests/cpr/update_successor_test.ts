/** What a new VMM's last words are taken for. */
import assert from "node:assert/strict";
import { lastWords } from "../../cpr/update/successor.ts";

const warnings = Array.from(
  { length: 9 },
  (_, i) => `warning: host doesn't support requested feature: CPUID[eax=07h].EBX.x${i} [bit ${i}]`,
);

const cases: [what: string, said: string[], words: string][] = [
  ["nothing", [], ""],
  ["a message", ["denovo: -m: too much"], "-m: too much"],
  ["warnings before a message", [...warnings, "denovo: no disk"], "no disk"],
  ["warnings after it", ["denovo: no disk", ...warnings], "no disk"],
  ["warnings alone", warnings, ""],
  ["messages", ["denovo: no KVM; falling back", "a line", "denovo: no disk"], "no disk"],
  [
    "a message of two lines",
    ["denovo: no lock", "Is another process there?"],
    "no lock; Is another process there?",
  ],
  ["a time and a name", ["2026-11-29T17:00:00.000001Z vm denovo: no disk"], "no disk"],
  ["a time before a warning", ["2026-11-29T17:00:00.000001Z warning: x", "denovo: y"], "y"],
  ["a crash", ["1", "2", "3", "4", "5", "6"], "2; 3; 4; 5; 6"],
  ["a message and a crash", ["denovo: CPU 0: E", "1", "2", "3", "4", "5"], "1; 2; 3; 4; 5"],
];

for (const [what, said, words] of cases) {
  Deno.test(`of ${what} the last words are '${words}'`, () => {
    assert.equal(lastWords(said.map((line) => `${line}\n`).join("")), words);
  });
}
