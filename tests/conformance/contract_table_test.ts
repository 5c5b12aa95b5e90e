/**
 * cpr/CONTRACT.md is true in this: every test that it names exists, and every row names one or says
 * that it is open.
 */
import assert from "node:assert/strict";

const root = new URL("../../", import.meta.url);
const document = new URL("cpr/CONTRACT.md", root);

/** A row of a table: what is told first, and the last cell. */
interface Row {
  readonly title: string;
  readonly proof: string;
}

/** The rows of all tables, without their heads. */
function rows(text: string): Row[] {
  return text.split("\n")
    .filter((line) => line.startsWith("|"))
    .map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()))
    .filter((cells) => !/^-+$/.test(cells[0]) && !["Row", "Step", "Case"].includes(cells[0]))
    .map((cells) => ({ title: cells[0], proof: cells.at(-1)! }));
}

/** The tests that a cell names: the file of each, and its name. */
function namedTests(proof: string): [file: string, name: string][] {
  const tests: [string, string][] = [];
  let file: string | undefined;
  for (const [, link, name] of proof.matchAll(/\]\(([^)]+)\)|"([^"]+)"/g)) {
    if (link !== undefined) file = link;
    else {
      assert.ok(file, `No file before "${name}"`);
      tests.push([file, name]);
    }
  }
  return tests;
}

const sources = new Map<string, RegExp[]>();

/** The names of a file's tests; what is filled in when it runs may be anything. */
function testNames(file: string): RegExp[] {
  const known = sources.get(file);
  if (known) return known;
  const source = Deno.readTextFileSync(new URL(file, document));
  const calls =
    /(?:kvmTest|onlyKvmTest|Deno\.test)\(\s*(?:\{\s*name:\s*)?("(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)/g;
  const names = [...source.matchAll(calls)].map(([, literal]) => {
    const parts = literal.slice(1, -1).split(literal.startsWith("`") ? /\$\{[^}]*\}/ : /(?!)/);
    const fixed = parts.map((part) => RegExp.escape(part.replaceAll(/\\(.)/g, "$1")));
    return new RegExp(`^${fixed.join(".+")}$`);
  });
  sources.set(file, names);
  return names;
}

Deno.test("every row of the contract names its tests, or is open", () => {
  const all = rows(Deno.readTextFileSync(document));
  assert.ok(all.length > 80, `Only ${all.length} rows were found`);
  for (const { title, proof } of all) {
    if (proof.startsWith("open: ")) continue;
    assert.notEqual(namedTests(proof).length, 0, `Row '${title}' names no test`);
  }
});

Deno.test("every test that the contract names exists", () => {
  const missing = rows(Deno.readTextFileSync(document))
    .flatMap(({ proof }) => namedTests(proof))
    .filter(([file, name]) => !testNames(file).some((pattern) => pattern.test(name)));
  assert.deepEqual(missing, []);
});

Deno.test("a test that does not exist would be noticed", () => {
  const [[file, name]] = namedTests('[x](../tests/conformance/contract_table_test.ts) "nonsense"');
  assert.ok(!testNames(file).some((pattern) => pattern.test(name)));
  assert.ok(
    testNames(file).some((pattern) => pattern.test("a test that does not exist would be noticed")),
  );
});
