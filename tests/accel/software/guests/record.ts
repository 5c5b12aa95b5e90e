/**
 * Assembles the guests, and records their logs:
 *
 *     deno run -A tests/accel/software/guests/record.ts
 *
 * Needs binutils, and QEMU for the guests whose logs are QEMU's.
 *
 * @module
 */
import { guests, ownGuests, readLog, runGuest } from "./guests.ts";

const folder = import.meta.dirname!;
const QEMU = "qemu-system-x86_64";

async function run(program: string, args: string[]): Promise<number> {
  const { code, stderr } = await new Deno.Command(program, { args, cwd: folder }).output();
  const text = new TextDecoder().decode(stderr);
  if (code !== 0 && program !== QEMU) throw new Error(`${program} ${args.join(" ")}: ${text}`);
  return code;
}

/** Whether a program can be started. */
export async function has(program: string): Promise<boolean> {
  try {
    await new Deno.Command(program, { args: ["--version"] }).output();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Assembles a guest into a folder; gives its ROM. */
export async function assemble(name: string, out: string): Promise<Uint8Array<ArrayBuffer>> {
  const [object, flat] = [`${out}/${name}.o`, `${out}/${name}.bin`];
  const [width, format] = /long|64/.test(name) ? ["--64", "elf_x86_64"] : ["--32", "elf_i386"];
  await run("as", [width, "-mx86-used-note=no", "-o", object, `${name}.s`]);
  await run("ld", ["-m", format, "-Ttext=0x10000", "--oformat=binary", "-o", flat, object]);
  return await Deno.readFile(flat);
}

/** Runs a guest's ROM in QEMU's TCG, with a new folder for its RAM; gives its log. */
export async function runInQemu(rom: Uint8Array): Promise<string[]> {
  const folder = await Deno.makeTempDir();
  try {
    return await logOfQemu(rom, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function logOfQemu(rom: Uint8Array, folder: string): Promise<string[]> {
  const [bios, ram] = [`${folder}/bios.bin`, `${folder}/ram`];
  await Deno.writeFile(bios, rom);
  const memory = `memory-backend-file,id=m,size=16M,mem-path=${ram},share=on`;
  const code = await run("timeout", [
    ...["60", QEMU, "-accel", "tcg", "-cpu", "qemu64,+smep,+smap,+umip,+fsgsbase,+rdtscp"],
    ...["-M", "pc,memory-backend=m", "-m", "16", "-object", memory, "-nodefaults"],
    ...["-display", "none", "-bios", bios, "-device", "isa-debug-exit,iobase=0xf4,iosize=1"],
  ]).catch((error: Error) => error);
  const log = readLog(await Deno.readFile(ram));
  if (log.at(-1) !== "e0d") throw new Error(`The guest did not end in QEMU: ${code}`);
  return log;
}

/** Packs a ROM. */
async function pack(rom: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const zipped = new Blob([rom]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(zipped).arrayBuffer());
}

async function record(name: string, out: string, log: (rom: Uint8Array) => Promise<string[]>) {
  const rom = await assemble(name, out);
  await Deno.writeFile(`${folder}/${name}.gz`, await pack(rom));
  await Deno.writeTextFile(`${folder}/${name}.log`, (await log(rom)).join("\n") + "\n");
}

if (import.meta.main) {
  const out = await Deno.makeTempDir();
  try {
    for (const name of guests) await record(name, out, runInQemu);
    for (const name of ownGuests) await record(name, out, (rom) => Promise.resolve(runGuest(rom)));
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}
