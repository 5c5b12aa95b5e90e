/**
 * Compiles the guest programs in C with gcc and binutils, each into a file of its own in `c/`:
 *
 *     deno run --allow-run --allow-read --allow-write tests/guests/build_c.ts [NAME...]
 *
 * What a compiler makes depends on its version. So a program's file holds, beside its bytes, the hash of
 * the sources that they were made from.
 *
 * @module
 */

/** The programs, and the sources that each has beside those that all have. */
export const cPrograms = {
  virtio_net: ["virtio_net.c", "virtio.c", "virtio_pci.c"],
  virtio_blk: ["virtio_blk.c", "virtio.c", "virtio_pci.c"],
  virtio_balloon: ["virtio_balloon.c", "virtio.c", "virtio_pci.c"],
  virtio_rng: ["virtio_rng.c", "virtio.c", "virtio_pci.c"],
  virtio_serial: ["virtio_serial.c", "virtio.c", "virtio_pci.c"],
  virtio_vsock: ["virtio_vsock.c", "virtio.c", "virtio_pci.c"],
  virtio_bench: ["virtio_bench.c", "virtio.c", "virtio_pci.c"],
} as const satisfies Record<string, readonly string[]>;

/** A program's name. */
export type CProgramName = keyof typeof cPrograms;

const folder = new URL("c/", import.meta.url);
/** What every program is linked with, the start first. */
const common = ["start.s", "guest.c"];

/** What the hash covers: all sources, headers and includes. */
function inputs(name: CProgramName): URL[] {
  const includes = [...Deno.readDirSync(new URL(".", import.meta.url))]
    .filter((entry) => entry.name.endsWith(".inc"))
    .map((entry) => new URL(entry.name, import.meta.url));
  const own = [...common, ...cPrograms[name], "guest.h", "virtio.h", "guest.ld"];
  return [...own.map((file) => new URL(file, folder)), ...includes]
    .sort((a, b) => a.pathname < b.pathname ? -1 : 1);
}

/** The hash of a program's sources. */
export async function hashSources(name: CProgramName): Promise<string> {
  const parts = inputs(name).map((url) => Deno.readFileSync(url));
  const all = await new Blob(parts).arrayBuffer();
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all)).toHex();
}

const FLAGS = [
  ...["-Os", "-ffreestanding", "-fno-pic", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only"],
  ...["-fno-stack-protector", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"],
  ...["-Wall", "-Wextra", "-Werror", "-std=gnu11"],
];

async function compile(name: CProgramName, outDir: string): Promise<Uint8Array> {
  const objects: string[] = [];
  for (const source of [...common, ...cPrograms[name]]) {
    const object = `${outDir}/${source}.o`;
    objects.push(object);
    if (source.endsWith(".s")) {
      await run("as", ["--64", "-mx86-used-note=no", "-I..", "-o", object, source]);
    } else await run("gcc", [...FLAGS, "-c", "-o", object, source]);
  }
  const flat = `${outDir}/${name}.bin`;
  await run("ld", [
    "-m",
    "elf_x86_64",
    "-T",
    "guest.ld",
    "--oformat=binary",
    "-o",
    flat,
    ...objects,
  ]);
  return await Deno.readFile(flat);
}

async function run(program: string, args: string[]): Promise<void> {
  const command = new Deno.Command(program, { args, cwd: folder.pathname });
  const { success, stderr } = await command.output();
  if (success) return;
  throw new Error(`${program} ${args.join(" ")} failed:\n${new TextDecoder().decode(stderr)}`);
}

async function build(name: CProgramName): Promise<void> {
  const outDir = await Deno.makeTempDir({ prefix: "denovo-guests-" });
  try {
    const bytes = await compile(name, outDir);
    const lines = [
      "// Written by `build_c.ts`: do not edit.",
      "",
      "/** The hash of the sources. */",
      `export const sources = "${await hashSources(name)}";`,
      "/** The program, base64. */",
      "export const image =",
      `  "${bytes.toBase64()}";`,
      "",
    ];
    await Deno.writeTextFile(new URL(`${name}_image.ts`, folder), lines.join("\n"));
    console.log(`${name}: ${bytes.length} bytes`);
  } finally {
    await Deno.remove(outDir, { recursive: true });
  }
}

if (import.meta.main) {
  const names = (Deno.args.length > 0 ? Deno.args : Object.keys(cPrograms)) as CProgramName[];
  for (const name of names) await build(name);
}
