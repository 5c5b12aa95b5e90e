import assert from "node:assert/strict";

import { practiceImage } from "../../vmm/accel/software/practice_image.ts";
import { assembleImage, haveBinutils, imageRecipes, practiceRecipe } from "./build.ts";
import { type CProgramName, cPrograms, hashSources } from "./build_c.ts";
import { images } from "./images.ts";
import { CHECK_EXCEPTION, checkErrors, describeCheck, layout, programs } from "./programs.ts";

const PT_LOAD = 1;
const PT_NOTE = 4;
const XEN_ELFNOTE_PHYS32_ENTRY = 18;

/** The `.equ NAME, NUMBER` lines of layout.inc. */
async function readLayoutInc(): Promise<Map<string, number>> {
  const text = await Deno.readTextFile(new URL("layout.inc", import.meta.url));
  const lines = text.matchAll(/^\.equ (\w+),\s+(0x[0-9a-f]+|\d+)\s*(?:#|$)/gm);
  return new Map([...lines].map(([, name, value]) => [name, Number(value)]));
}

function upperSnake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

const binutils = await haveBinutils();
if (!binutils) console.warn("SKIPPED: the guest programs are not rebuilt: no `as` or `ld` here");

Deno.test({
  name: "assembleImage() gives the bytes that are committed when built from the sources",
  ignore: !binutils,
  async fn() {
    assert.deepEqual(imageRecipes.map(({ name }) => name).sort(), Object.keys(images).sort());
    const outDir = await Deno.makeTempDir({ prefix: "denovo-guests-" });
    try {
      for (const recipe of imageRecipes) {
        const built = await assembleImage(recipe, outDir);
        const committed = images[recipe.name as keyof typeof images];
        assert.equal(built.toBase64(), committed, `${recipe.name} is out of date: run build.ts`);
      }
      const practice = await assembleImage(practiceRecipe, outDir);
      assert.equal(practice.toBase64(), practiceImage, "practice is out of date: run build.ts");
    } finally {
      await Deno.remove(outDir, { recursive: true });
    }
  },
});

for (const name of Object.keys(cPrograms) as CProgramName[]) {
  Deno.test(`${name} was compiled from the sources that are there`, async () => {
    const { sources } = await import(`./c/${name}_image.ts`);
    assert.equal(sources, await hashSources(name), `${name} is out of date: run build_c.ts`);
  });
}

Deno.test("assembleImage() reports what the assembler said when the source is missing", {
  ignore: !binutils,
}, async () => {
  const outDir = await Deno.makeTempDir({ prefix: "denovo-guests-" });
  const recipe = { name: "none", source: "none.s", defines: [], address: 0 };
  await assert.rejects(assembleImage(recipe, outDir), /^Error: as .*none\.s failed:\n.*none\.s/s);
  await Deno.remove(outDir, { recursive: true });
});

Deno.test("layout and checkErrors agree with layout.inc", async () => {
  const constants = await readLayoutInc();
  for (const [name, value] of Object.entries(layout)) {
    assert.equal(value, constants.get(upperSnake(name)), name);
  }
  const errors = [...constants].filter(([name]) => name.startsWith("ERROR_"));
  const codes = [...Object.keys(checkErrors).map(Number), CHECK_EXCEPTION];
  assert.deepEqual(errors.map(([, code]) => code), codes);
});

Deno.test("describeCheck() names the error when the word is 0, a code, an exception, unknown", () => {
  assert.equal(describeCheck(0), "no error");
  assert.equal(describeCheck(2), "the pattern in memory changed");
  assert.equal(describeCheck(0x10d), "exception 13");
  assert.equal(describeCheck(99), "unknown code 99");
});

Deno.test("programs are small ELF64 files with a PVH note when their entry is pvh", () => {
  for (const { name, bytes, entry, loadAddress } of Object.values(programs)) {
    if (entry !== "pvh") continue;
    assert.ok(bytes.length < 12_288, `${name} has ${bytes.length} bytes`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    assert.equal(view.getUint32(0), 0x7f454c46, name);
    assert.equal(view.getUint8(4), 2, "64-bit");
    const start = Number(view.getBigUint64(24, true));
    const headers = Number(view.getBigUint64(32, true));
    const [load, note] = [0, 1].map((index) => headers + index * view.getUint16(54, true));
    assert.equal(view.getUint32(load, true), PT_LOAD);
    assert.equal(Number(view.getBigUint64(load + 24, true)), loadAddress);
    assert.equal(Number(view.getBigUint64(load + 32, true)), bytes.length, `${name}: p_filesz`);
    assert.equal(view.getUint32(note, true), PT_NOTE);
    const noteOffset = Number(view.getBigUint64(note + 8, true));
    assert.equal(view.getUint32(noteOffset + 8, true), XEN_ELFNOTE_PHYS32_ENTRY);
    assert.equal(Number(view.getBigUint64(noteOffset + 16, true)), start, `${name}: entry`);
    assert.ok(start > loadAddress && start < loadAddress + bytes.length);
  }
});

Deno.test("modes is a 64 KiB ROM that ends at 4 GiB with a jump at the reset vector", () => {
  const { bytes, entry, loadAddress } = programs.modes;
  assert.equal(entry, "rom");
  assert.equal(bytes.length, 0x10000);
  assert.equal(loadAddress + bytes.length, 0x1_0000_0000);
  assert.equal(bytes[0xfff0], 0xe9);
  const displacement = bytes[0xfff1] | (bytes[0xfff2] << 8);
  const target = (0xfff3 + displacement) & 0xffff;
  assert.equal(bytes[target], 0xfa, "CLI");
});
