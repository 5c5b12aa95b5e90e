/**
 * Assembles the guest programs with binutils and writes `images.ts`, and the software CPU's practice:
 *
 *     deno run --allow-run --allow-read --allow-write tests/guests/build.ts
 *
 * The linker writes each program as a flat binary. `elf.inc` puts an ELF header at the front of
 * it, so that the flat binary is the ELF file (the ROM has no header).
 *
 * @module
 */

/** How one image is made from a source file. */
export interface ImageRecipe {
  /** The image's name in `images.ts`. */
  name: string;
  /** The source file, in this directory. */
  source: string;
  /** Symbols defined for the assembler. */
  defines: string[];
  /** The address of the first byte. */
  address: number;
}

const MIB = 0x100000;

/** Every image of `images.ts`. */
export const imageRecipes: ImageRecipe[] = [
  { name: "hello", source: "hello.s", defines: [], address: MIB },
  { name: "demo", source: "demo.s", defines: [], address: MIB },
  { name: "counter_cpl0", source: "counter.s", defines: [], address: MIB },
  { name: "counter_cpl3", source: "counter.s", defines: ["CPL3"], address: MIB },
  { name: "dirty", source: "dirty.s", defines: [], address: MIB },
  { name: "smp", source: "smp.s", defines: [], address: MIB },
  { name: "exits", source: "exits.s", defines: [], address: MIB },
  { name: "compute", source: "compute.s", defines: [], address: MIB },
  { name: "steady_cpl0", source: "steady.s", defines: [], address: MIB },
  { name: "steady_cpl3", source: "steady.s", defines: ["CPL3"], address: MIB },
  { name: "pending", source: "pending.s", defines: [], address: MIB },
  { name: "access", source: "access.s", defines: [], address: MIB },
  { name: "bring_up", source: "bring_up.s", defines: [], address: MIB },
  { name: "uart", source: "uart.s", defines: [], address: MIB },
  { name: "memory", source: "memory.s", defines: [], address: MIB },
  { name: "rtc", source: "rtc.s", defines: [], address: MIB },
  { name: "triple", source: "triple.s", defines: [], address: MIB },
  { name: "reset_vector", source: "reset_vector.s", defines: [], address: MIB },
  { name: "badop", source: "badop.s", defines: [], address: MIB },
  { name: "reset", source: "reset.s", defines: [], address: MIB },
  { name: "acpi", source: "acpi.s", defines: [], address: MIB },
  { name: "probe", source: "probe.s", defines: [], address: MIB },
  { name: "probe_multiboot", source: "probe.s", defines: ["MULTIBOOT"], address: MIB },
  {
    name: "native",
    source: "../accel/software/native.s",
    defines: [],
    address: 0x400000,
  },
  { name: "modes", source: "modes.s", defines: [], address: 0xfffff000 },
];

/** What software CPUs run before they have a guest; it is not a test's. */
export const practiceRecipe: ImageRecipe = {
  name: "practice",
  source: "../../vmm/accel/software/practice.s",
  defines: [],
  address: 0x400000,
};

/**
 * Assembles and links one image.
 *
 * @param recipe what to build
 * @param outDir an existing directory for the intermediate files
 * @returns the image's bytes
 * @throws {Error} with what `as` or `ld` printed, when one of them fails
 */
export async function assembleImage(recipe: ImageRecipe, outDir: string): Promise<Uint8Array> {
  const object = `${outDir}/${recipe.name}.o`;
  const flat = `${outDir}/${recipe.name}.bin`;
  const defines = recipe.defines.flatMap((name) => ["--defsym", `${name}=1`]);
  // Without -mx86-used-note=no some assemblers add a section that would go into the flat binary.
  await run("as", ["--64", "-mx86-used-note=no", ...defines, "-o", object, recipe.source]);
  const address = `0x${recipe.address.toString(16)}`;
  await run("ld", [
    "-m",
    "elf_x86_64",
    `-Ttext=${address}`,
    "--oformat=binary",
    "-o",
    flat,
    object,
  ]);
  return await Deno.readFile(flat);
}

/**
 * Finds out whether the assembler and the linker are installed.
 *
 * @returns true when both `as` and `ld` can be started
 */
export async function haveBinutils(): Promise<boolean> {
  try {
    await run("as", ["--version"]);
    await run("ld", ["--version"]);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function run(program: string, args: string[]): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args,
    cwd: import.meta.dirname,
  }).output();
  if (success) return;
  const decoder = new TextDecoder();
  throw new Error(
    `${program} ${args.join(" ")} failed:\n${decoder.decode(stderr)}` + decoder.decode(stdout),
  );
}

async function writeImages(): Promise<void> {
  const outDir = await Deno.makeTempDir({ prefix: "denovo-guests-" });
  const lines = [
    "/**",
    " * The guest programs' bytes, base64. Written by `build.ts` from the assembly sources: do not",
    " * edit. Use `programs.ts`, which decodes and describes them.",
    " *",
    " * @module",
    " */",
    "",
    "/** Each image, base64. */",
    "export const images = {",
  ];
  for (const recipe of imageRecipes) {
    const bytes = await assembleImage(recipe, outDir);
    lines.push(`  ${recipe.name}:`, `    "${bytes.toBase64()}",`);
    console.log(`${recipe.name}: ${bytes.length} bytes`);
  }
  lines.push("} as const;", "");
  await Deno.writeTextFile(`${import.meta.dirname}/images.ts`, lines.join("\n"));
  await Deno.remove(outDir, { recursive: true });
}

async function writePractice(): Promise<void> {
  const outDir = await Deno.makeTempDir({ prefix: "denovo-guests-" });
  const bytes = await assembleImage(practiceRecipe, outDir);
  const lines = [
    "/**",
    " * The bytes of `practice.s`. Written by `tests/guests/build.ts`: do not edit.",
    " *",
    " * @module",
    " */",
    "",
    "/** The program, base64. */",
    "export const practiceImage =",
    `  "${bytes.toBase64()}";`,
    "",
  ];
  const file = new URL("../../vmm/accel/software/practice_image.ts", import.meta.url);
  await Deno.writeTextFile(file, lines.join("\n"));
  await Deno.remove(outDir, { recursive: true });
}

if (import.meta.main) {
  await writeImages();
  await writePractice();
}
