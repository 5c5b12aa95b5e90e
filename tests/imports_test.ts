/** What the tree promises of its imports: they point down, in no circle, and ioctls stay where they are. */
import assert from "node:assert/strict";

/** The layers, lowest first; the program itself is above all. */
const LAYERS = ["ffi", "devices", "vmm", "cpr", "mod.ts"];
const root = new URL("..", import.meta.url).pathname;
/** AssemblyScript, which has imports of its own. */
const FOREIGN = "vmm/accel/software/core/";

/** Every module of the product with what it imports, by paths from the root; types count too. */
function modules(): Map<string, string[]> {
  const found = new Map<string, string[]>([["mod.ts", importsOf("mod.ts")]]);
  const visit = (folder: string) => {
    for (const { name, isDirectory } of Deno.readDirSync(root + folder)) {
      const path = `${folder}/${name}`;
      if (isDirectory) visit(path);
      else if (name.endsWith(".ts") && !path.startsWith(FOREIGN)) found.set(path, importsOf(path));
    }
  };
  for (const layer of LAYERS.slice(0, -1)) visit(layer);
  return found;
}

function importsOf(path: string): string[] {
  // Examples in comments import for whoever reads them.
  const text = Deno.readTextFileSync(root + path).replaceAll(/^\s*\*.*$/gm, "");
  const named = text.matchAll(/^(?:import|export)\b[^;]*?from "(\.[^"]+)"/gm);
  const dynamic = text.matchAll(/\bimport\("(\.[^"]+)"\)/g);
  const base = new URL(path, "file:///");
  return [...named, ...dynamic].map(([, to]) => new URL(to, base).pathname.slice(1));
}

const layerOf = (path: string) => LAYERS.indexOf(path.split("/")[0]);

Deno.test("imports point down", () => {
  for (const [path, imports] of modules()) {
    for (const to of imports) assert.ok(layerOf(to) <= layerOf(path), `${path} imports ${to}`);
  }
});

Deno.test("no import leads back to where it came from", () => {
  const all = modules();
  const done = new Set<string>();
  const visit = (path: string, above: readonly string[]): void => {
    assert.ok(!above.includes(path), [...above.slice(above.indexOf(path)), path].join(" -> "));
    if (done.has(path)) return;
    for (const to of all.get(path) ?? []) visit(to, [...above, path]);
    done.add(path);
  };
  for (const path of all.keys()) visit(path, []);
});

Deno.test("only ffi/kvm and vmm/accel/kvm know ioctls", () => {
  for (const [path, imports] of modules()) {
    if (path.startsWith("ffi/") || path.startsWith("vmm/accel/kvm/")) continue;
    for (const to of imports) {
      assert.doesNotMatch(to, /^ffi\/kvm\/(ioctl|system|vm|vcpu)\.ts$/, `${path} imports ${to}`);
    }
  }
});

Deno.test("every module that is looked for is there", () => {
  const all = modules();
  for (const [path, imports] of all) {
    for (const to of imports) assert.ok(all.has(to), `${path} imports ${to}`);
  }
});
