import assert from "node:assert/strict";
import { addRun, type Sums } from "../sums.ts";
import { nameFilter, slice } from "./slice.ts";

function sumsOf(text: string, success: boolean): Sums {
  const sums = { passed: 1, failed: 1, skipped: 1 };
  addRun(sums, text, success);
  return sums;
}

Deno.test("addRun() adds the numbers of the last summary", () => {
  const text = "x: 9 passed | 9 failed\nok | 3 passed | 0 failed | 2 ignored (1s)\n";
  assert.deepEqual(sumsOf(text, true), { passed: 4, failed: 1, skipped: 3 });
  assert.deepEqual(sumsOf("FAILED | 3 passed (2 steps) | 2 failed (1s)", false), {
    ...{ passed: 4, failed: 3, skipped: 1 },
  });
});

Deno.test("addRun() counts a failure outside of any test, and a run that says nothing", () => {
  const failed = { passed: 1, failed: 2, skipped: 1 };
  assert.deepEqual(sumsOf("ok | 0 passed | 0 failed (1s)", false), failed);
  assert.deepEqual(sumsOf("Segmentation fault", false), failed);
  assert.deepEqual(sumsOf("", true), failed);
});

Deno.test("nameFilter() matches these names, whole, whatever is in them", () => {
  const names = ["`a()` is (not) x.y|z", "plain"];
  const filter = new RegExp(/^\/(.*)\/$/.exec(nameFilter(names))![1]);
  for (const name of names) assert.ok(filter.test(name), name);
  for (const name of ["plain too", "not plain", "`a()` is (not) x,y|z"]) {
    assert.ok(!filter.test(name), name);
  }
});

Deno.test("the lab slice names each test once, in files that are there", () => {
  for (const { file, names } of slice) {
    assert.ok(Deno.statSync(new URL(`../../${file}`, import.meta.url)).isFile, file);
    assert.equal(new Set(names).size, names.length, file);
  }
  assert.equal(new Set(slice.map(({ file }) => file)).size, slice.length);
});

Deno.test("the lab slice's tests are in their files", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "tests/lab/test_names.ts", ...slice.map(({ file }) => file)],
    cwd: new URL("../..", import.meta.url),
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  assert.equal(code, 0, decoder.decode(stderr));
  const found: Record<string, string[]> = JSON.parse(decoder.decode(stdout));
  for (const { file, names } of slice) {
    assert.deepEqual(names.filter((name) => !found[file].includes(name)), [], file);
  }
});
