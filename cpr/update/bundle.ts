/**
 * The bundle: the program as a few JavaScript files in `dist/`, which start in a fraction of the
 * time that the source tree takes. A successor is started from it:
 *
 *     deno run -A --no-config dist/denovo.js OPTIONS
 *
 * `denovo.js` is all that runs before the guest does; what is imported later (monitors, schemas)
 * lies beside it in files of its own, which the start does not have to read. `vcpu_worker.js` is a
 * vCPU thread's code, `io_worker.js` the I/O thread's. Run as a program, this module makes the bundle: `deno task bundle`.
 *
 * @module
 */
import type { BuildOptions } from "esbuild";

const root = new URL("../../", import.meta.url);
const dist = new URL("dist/", root);
const program = new URL("denovo.js", dist);
/** Holds the hash of the sources that the bundle was made from. */
const hashFile = new URL(".hash", dist);

/** What the hash covers: every file that ends up in the bundle, and what decides on versions. */
const sources = ["mod.ts", "deno.json", "deno.lock", "ffi", "devices", "vmm", "cpr"];

/** The programs: what each file of `dist/` is made from. */
const entryPoints = {
  vcpu_worker: "vmm/threads/vcpu_worker.ts",
  io_worker: "vmm/threads/io_worker.ts",
  denovo: "mod.ts",
};

/** What the program reads beside itself. */
const assets = ["vmm/accel/software/core.wasm"];

/**
 * Finds the bundle, and makes it first where the sources have changed since it was made.
 *
 * @returns the path of `denovo.js`
 * @throws {Error} if there is an error in the sources, or `dist/` cannot be written
 */
export async function bundlePath(): Promise<string> {
  // In the bundle itself there are no sources to look at.
  if (import.meta.url.endsWith(".js")) return new URL("denovo.js", import.meta.url).pathname;
  const hash = await hashSources();
  if (await readText(hashFile) !== hash) await makeBundle(hash);
  return program.pathname;
}

/**
 * The command that starts the bundle, options left out; see {@linkcode bundlePath}.
 *
 * @param compiles whether V8 is to compile all of the software CPU when it is loaded, which takes some
 *   100 ms of processor time. Else it does so a function at a time, as they are called: it is what a
 *   guest that has just come waits for
 */
export async function bundleCommand(compiles = false): Promise<string[]> {
  const flags = compiles ? ["--v8-flags=--no-wasm-lazy-compilation"] : [];
  return [Deno.execPath(), "run", "-A", "--no-config", ...flags, await bundlePath()];
}

async function makeBundle(hash: string): Promise<void> {
  const esbuild = await import("esbuild");
  await Deno.mkdir(dist, { recursive: true });
  for (const asset of assets) {
    const name = asset.split("/").at(-1)!;
    await replaceFile(new URL(name, dist).pathname, await Deno.readFile(new URL(asset, root)));
  }
  try {
    for (const [name, path] of Object.entries(entryPoints)) {
      const { outputFiles } = await esbuild.build(options(name, path));
      // The entry point comes last: whoever starts it meanwhile finds all that it imports.
      const last = outputFiles.findIndex((file) => file.path.endsWith(`/${name}.js`));
      outputFiles.push(...outputFiles.splice(last, 1));
      for (const { path, text } of outputFiles) {
        await replaceFile(path, new TextEncoder().encode(hideLateImports(text)));
      }
    }
  } finally {
    await esbuild.stop();
  }
  await replaceFile(hashFile.pathname, new TextEncoder().encode(hash));
}

function options(name: string, path: string) {
  return {
    entryPoints: { [name]: new URL(path, root).pathname },
    outdir: dist.pathname,
    bundle: true,
    // A dynamic import becomes a file of its own: what is loaded late is not even read before.
    splitting: true,
    // Named by content: a VMM that still runs from an older bundle finds its own files unchanged,
    // which is why old ones are never deleted either.
    chunkNames: "[name]-[hash]",
    format: "esm",
    platform: "neutral",
    target: "esnext",
    // Names stay, for stack traces.
    minifyWhitespace: true,
    minifySyntax: true,
    external: ["node:*", "esbuild"],
    // Packages are in Deno's cache, which esbuild does not know; Deno says where.
    alias: { zod: new URL(import.meta.resolve("zod")).pathname },
    absWorkingDir: root.pathname,
    logLevel: "silent",
    write: false,
  } as const satisfies BuildOptions;
}

/**
 * Deno reads and parses, before it runs anything, all files that it can see being imported, also
 * those that are imported late: so that it must not see them.
 */
function hideLateImports(script: string): string {
  const late = /\bimport\("(\.\/[\w-]+\.js)"\)/g;
  return script.replaceAll(late, 'import(new URL("$1",import.meta.url).href)');
}

/** Never a half-written file: two processes may make the bundle at once, and others start it. */
async function replaceFile(path: string, contents: Uint8Array): Promise<void> {
  const temporary = `${path}.${Deno.pid}`;
  await Deno.writeFile(temporary, contents);
  await Deno.rename(temporary, path);
}

async function hashSources(): Promise<string> {
  const files: URL[] = [];
  for (const source of sources) await collect(new URL(source, root), files);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (const file of files) {
    parts.push(new TextEncoder().encode(`${file.pathname.slice(root.pathname.length)}\n`));
    parts.push(await Deno.readFile(file));
  }
  const all = await new Blob(parts).arrayBuffer();
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all)).toHex();
}

/** Adds a file, or all files below a folder in the order of their names. */
async function collect(path: URL, files: URL[]): Promise<void> {
  if ((await Deno.stat(path)).isFile) {
    files.push(path);
    return;
  }
  const names: string[] = [];
  for await (const { name } of Deno.readDir(path)) names.push(name);
  for (const name of names.sort()) await collect(new URL(`${path.href}/${name}`), files);
}

async function readText(path: URL): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

if (import.meta.main) console.log(await bundlePath());
