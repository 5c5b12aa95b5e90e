/** Images that Debian's qemu-img has made are read as it reads them, and nodes are what QEMU's are. */
import assert from "node:assert/strict";
import { create, hasQemuImg, Model, OpenImage, qemuImg, qemuImgOk, withFolder } from "./testing.ts";

const MIB = 1 << 20;

/** A raw image with data, zeros and holes. */
function writeRaw(path: string, size: number, seed: number): Model {
  const model = new Model(size, seed);
  for (let i = 0; i < 12; i++) {
    const { offset, length } = model.range(size / 8);
    model.bytes.set(model.data(length), offset);
  }
  Deno.writeFileSync(path, model.bytes);
  return model;
}

const options = [
  [],
  ["-o", "compat=0.10"],
  ["-o", "cluster_size=512"],
  ["-o", "cluster_size=2M"],
  ["-o", "refcount_bits=1"],
  ["-o", "refcount_bits=64,lazy_refcounts=on"],
  ["-c"],
  ["-c", "-o", "cluster_size=4k"],
  ["-c", "-o", "compression_type=zstd"],
  ["-c", "-o", "compression_type=zstd,cluster_size=2M"],
];
for (const option of options) {
  Deno.test({
    name: `an image by qemu-img convert ${option.join(" ")} is read, and then written`,
    ignore: !hasQemuImg,
    fn: () =>
      withFolder(async (folder) => {
        const [raw, path] = [`${folder}/raw`, `${folder}/disk.qcow2`];
        const model = writeRaw(raw, 4 * MIB, option.join().length);
        await qemuImgOk("convert", "-f", "raw", "-O", "qcow2", ...option, raw, path);
        {
          using image = new OpenImage(path, { discard: "unmap" });
          model.assertHeld(image);
          for (let i = 0; i < 60; i++) model.step(image);
        }
        const { code, text } = await qemuImg("check", path);
        assert.equal(code, 0, text);
        Deno.writeFileSync(raw, model.bytes);
        await qemuImgOk("compare", "-f", "qcow2", "-F", "raw", path, raw);
      }),
  });
}

Deno.test({
  name: "an image with snapshots keeps them, whatever is written to it",
  ignore: !hasQemuImg,
  fn: () =>
    withFolder(async (folder) => {
      const [raw, path] = [`${folder}/raw`, `${folder}/disk.qcow2`];
      const model = writeRaw(raw, 4 * MIB, 3);
      const options = ["-o", "cluster_size=4k"];
      await qemuImgOk("convert", "-f", "raw", "-O", "qcow2", ...options, raw, path);
      await qemuImgOk("snapshot", "-c", "one", path);
      for (let round = 0; round < 2; round++) {
        using image = new OpenImage(path, { discard: "unmap" });
        for (let i = 0; i < 40; i++) model.step(image);
      }
      const { code, text } = await qemuImg("check", path);
      assert.equal(code, 0, text);
      const kept = `${folder}/kept`;
      await qemuImgOk("convert", "-l", "one", "-O", "raw", path, kept);
      await qemuImgOk("compare", "-f", "raw", "-F", "raw", raw, kept);
      await qemuImgOk("snapshot", "-d", "one", path);
      assert.equal((await qemuImg("check", path)).code, 0);
      Deno.writeFileSync(raw, model.bytes);
      await qemuImgOk("compare", "-f", "qcow2", "-F", "raw", path, raw);
    }),
});

for (const format of ["raw", "qcow2"] as const) {
  Deno.test(`what an image has not shows the ${format} image behind it, which stays`, () =>
    withFolder((folder) => {
      const [base, path] = [`${folder}/base`, `${folder}/disk.qcow2`];
      const model = new Model(3 * MIB, 5);
      model.bytes.set(model.data(3 * MIB));
      if (format === "raw") Deno.writeFileSync(base, model.bytes);
      else {
        create(base, { size: 3 * MIB });
        using image = new OpenImage(base);
        assert.equal(image.write(0, model.bytes), 0);
      }
      const before = Deno.readFileSync(base);
      // By a relative name, and with an end that the base does not have.
      create(path, { size: 4 * MIB, clusterBits: 14, backing: { filename: "base", format } });
      const grown = new Model(4 * MIB, 6);
      grown.bytes.set(model.bytes);
      for (let round = 0; round < 2; round++) {
        using image = new OpenImage(path, { discard: "unmap" });
        grown.assertHeld(image);
        for (let i = 0; i < 40; i++) grown.step(image, 1 << 16);
        grown.assertHeld(image);
      }
      assert.deepEqual(Deno.readFileSync(base), before);
    }));
}

Deno.test("what is discarded gives its clusters back, and reads as zeros", () =>
  withFolder((folder) => {
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 4 * MIB });
    using image = new OpenImage(path, { discard: "unmap" });
    const data = new Uint8Array(MIB).fill(7);
    for (let i = 0; i < 4; i++) assert.equal(image.write(i * MIB, data), 0);
    assert.equal(image.disk.flush(), 0);
    const full = Deno.statSync(path).blocks!;
    assert.equal(image.disk.discard(0, 4 * MIB), 0);
    assert.equal(image.disk.flush(), 0);
    assert.ok(Deno.statSync(path).blocks! < full / 4);
    assert.deepEqual(image.read(MIB, MIB), new Uint8Array(MIB));
    // The clusters are used again.
    const { size } = Deno.statSync(path);
    for (let i = 0; i < 4; i++) assert.equal(image.write(i * MIB, data), 0);
    assert.equal(Deno.statSync(path).size, size);
  }));

Deno.test("images without the host's page cache are as others are", () =>
  withFolder(async (folder) => {
    const path = `${folder}/disk.qcow2`;
    create(path, { size: 4 * MIB, clusterBits: 12 });
    const model = new Model(4 * MIB, 77);
    {
      using image = new OpenImage(path, { cache: { direct: true }, discard: "unmap" });
      for (let i = 0; i < 40; i++) model.step(image);
      model.assertHeld(image);
    }
    using image = new OpenImage(path);
    model.assertHeld(image);
    if (hasQemuImg) assert.equal((await qemuImg("check", "-U", path)).code, 0);
  }));
