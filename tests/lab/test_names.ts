/**
 * Prints the names of the tests in files, without running any, as a JSON object.
 *
 *     deno run -A --no-check tests/lab/test_names.ts FILE…
 *
 * @module
 */
import { pathToFileURL } from "node:url";

const found: Record<string, string[]> = {};
let names: string[] = [];

/** Stands for `Deno.test`, whose first argument is a name, or an object that has it. */
function register(test: string | { readonly name: string }): void {
  names.push(typeof test === "string" ? test : test.name);
}

Object.defineProperty(Deno, "test", { value: register });
for (const file of Deno.args) {
  names = found[file] = [];
  await import(pathToFileURL(file).href);
}
console.log(JSON.stringify(found));
Deno.exit();
