/** A multiboot kernel on KVM: what it is entered with, and its modules. */
import assert from "node:assert/strict";
import { kvmTest } from "../needs_kvm.ts";
import { Probe } from "./probe.ts";

const word = async (probe: Probe, address: number): Promise<number> => {
  const bytes = Uint8Array.from(await probe.load(address, 4));
  return new DataView(bytes.buffer).getUint32(0, true);
};

const text = async (probe: Probe, address: number, length: number): Promise<string> =>
  String.fromCharCode(...await probe.load(address, length));

kvmTest("a multiboot kernel finds its command line and its modules", async () => {
  const folder = await Deno.makeTempDir();
  const files = [`${folder}/one`, `${folder}/two`];
  await Deno.writeTextFile(files[0], "module one");
  await Deno.writeTextFile(files[1], "second");
  await using probe = await Probe.start({
    program: "probe_multiboot",
    append: "hello",
    initrd: `${files[0]} with words,${files[1]}`,
  });
  const [eax, info] = probe.entered;
  assert.equal(eax, 0x2bad_b002);
  assert.equal(await word(probe, info) & 0x248, 0x248);
  assert.match(await text(probe, await word(probe, info + 16), 60), / hello\0/);
  assert.equal(await word(probe, info + 20), 2);
  const list = await word(probe, info + 24);
  const [start, end, words] = [await word(probe, list), await word(probe, list + 4), list + 8];
  assert.equal(await text(probe, start, end - start), "module one");
  const told = `${files[0]} with words\0`;
  assert.equal(await text(probe, await word(probe, words), told.length), told);
  assert.equal(await text(probe, await word(probe, list + 16), 6), "second");
  assert.equal(await probe.leave(), 1);
  await Deno.remove(folder, { recursive: true });
});

kvmTest("a multiboot kernel starts again after a reset", async () => {
  await using probe = await Probe.start({ program: "probe_multiboot" });
  probe.test.vm.reset();
  await probe.test.printed("probe 2badb002 9500\n", 2);
});
