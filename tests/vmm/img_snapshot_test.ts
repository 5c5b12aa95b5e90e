/** `denovo img snapshot` beside Debian's qemu-img: each applies and deletes what the other has made. */
import assert from "node:assert/strict";
import { qemuImg, qemuImgOk, withFolder } from "../devices/qcow2/testing.ts";
import { Model, OpenImage } from "../devices/qcow2/testing.ts";
import { img, MIB, ok, oracleTest, same, writeRaw } from "./img_testing.ts";

const theirs = async (...args: string[]) => void await qemuImgOk(...args);
const ours = (...args: string[]) => Promise.resolve(assert.equal(ok(...args), ""));

/** Changes some of a disk. */
function change(path: string, model: Model): void {
  using image = new OpenImage(path);
  for (let i = 0; i < 20; i++) model.step(image);
}

/** Fails unless an image holds what it must, and both find nothing wrong with it. */
async function assertHeld(path: string, model: Model, folder: string): Promise<void> {
  await same("check", path);
  Deno.writeFileSync(`${folder}/raw`, model.bytes);
  await qemuImgOk("compare", "-f", "raw", "-F", "qcow2", `${folder}/raw`, path);
  using image = new OpenImage(path, { "read-only": true });
  model.assertHeld(image);
}

for (const options of ["cluster_size=64k", "cluster_size=4k,refcount_bits=8", "compat=0.10"]) {
  oracleTest(
    `snapshots of ours are qemu-img's, and the other way round: ${options}`,
    async (folder) => {
      const path = `${folder}/disk`;
      ok("create", "-q", "-f", "qcow2", "-o", options, path, "4M");
      const model = new Model(4 * MIB, 7);
      const kept = new Map<string, Uint8Array<ArrayBuffer>>();
      for (const [i, make] of [ours, theirs, ours, theirs].entries()) {
        change(path, model);
        await make("snapshot", "-c", `s${i}`, path);
        kept.set(`s${i}`, model.bytes.slice());
        await same("snapshot", "-l", path);
        await same("info", path);
      }
      change(path, model);
      await assertHeld(path, model, folder);
      // By its name, and by its number.
      for (
        const [apply, name, of] of [[theirs, "s0", 0], [ours, "s1", 1], [theirs, "s2", 2], [
          ours,
          "4",
          3,
        ]] as const
      ) {
        await apply("snapshot", "-a", name, path);
        model.bytes.set(kept.get(`s${of}`)!);
        await assertHeld(path, model, folder);
        change(path, model);
      }
      for (
        const [remove, name] of [[theirs, "s0"], [ours, "s1"], [ours, "s3"], [
          theirs,
          "s2",
        ]] as const
      ) {
        await remove("snapshot", "-d", name, path);
        await same("snapshot", "-l", path);
        await assertHeld(path, model, folder);
      }
      change(path, model);
      await assertHeld(path, model, folder);
    },
  );
}

oracleTest(
  "a snapshot brings the size back that the disk had, compressed clusters as well",
  async (folder) => {
    const [raw, path] = [`${folder}/base`, `${folder}/disk`];
    const model = writeRaw(raw);
    await qemuImgOk(
      "convert",
      "-c",
      "-f",
      "raw",
      "-O",
      "qcow2",
      "-o",
      "cluster_size=4k",
      raw,
      path,
    );
    ok("snapshot", "-c", "small", path);
    ok("resize", "-q", path, "1G");
    {
      using image = new OpenImage(path);
      assert.equal(image.write(900 * MIB, new Uint8Array(MIB).fill(3)), 0);
      assert.equal(image.write(0, new Uint8Array(MIB).fill(4)), 0);
    }
    ok("snapshot", "-c", "large", path);
    await same("check", path);
    ok("snapshot", "-a", "small", path);
    await same("info", path);
    await assertHeld(path, model, folder);
    await theirs("snapshot", "-a", "large", path);
    await same("info", path);
    using image = new OpenImage(path);
    assert.deepEqual(image.read(900 * MIB, 512), new Uint8Array(512).fill(3));
  },
);

oracleTest("snapshots are refused in qemu-img's words", async (folder) => {
  const [path, raw, small] = ["disk", "raw", "small"].map((name) => `${folder}/${name}`);
  await qemuImgOk("create", "-q", "-f", "qcow2", path, "1M");
  await qemuImgOk("create", "-q", "-f", "raw", raw, "1M");
  for (const flag of ["-a", "-d"]) await same("snapshot", flag, "nope", path);
  for (const flag of ["-a", "-c", "-d"]) {
    // Theirs warns of guessing as well.
    const reason = img("snapshot", flag, "x", raw).text.replace("denovo img", "qemu-img");
    assert.ok((await qemuImg("snapshot", flag, "x", raw)).text.includes(reason), reason);
  }
  await same("snapshot", "-U", "-c", "x", path);
  const mixed = img("snapshot", "-c", "a", "-d", "b", path);
  assert.match(
    (await qemuImg("snapshot", "-c", "a", "-d", "b", path)).text,
    /Cannot mix '-l', '-a', '-c', '-d'/,
  );
  assert.match(mixed.text, /Cannot mix '-l', '-a', '-c', '-d': see 'denovo img snapshot --help'/);
  assert.equal(mixed.code, 1);
  // One bit counts no second use.
  await qemuImgOk("create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", small, "1M");
  {
    using image = new OpenImage(small);
    assert.equal(image.write(0, new Uint8Array(512).fill(1)), 0);
  }
  const reason = "Could not create snapshot 'x': -22 (Invalid argument)";
  const { code, text } = img("snapshot", "-c", "x", small);
  assert.equal(code, 1);
  assert.ok(text.includes(reason), text);
  // Nothing is left of it; of theirs a cluster is.
  await same("check", small);
  const { text: refused } = await qemuImg("snapshot", "-c", "x", small);
  assert.ok(refused.includes(reason), refused);
});

Deno.test("img snapshot without qemu-img: a snapshot is made, applied, listed and deleted", () =>
  withFolder((folder) => {
    const path = `${folder}/disk`;
    ok("create", "-q", "-f", "qcow2", path, "4M");
    const model = new Model(4 * MIB, 3);
    change(path, model);
    ok("snapshot", "-c", "before", path);
    const before = model.bytes.slice();
    change(path, model);
    assert.match(ok("snapshot", path), /^1 +before +0 B \d{4}-/m);
    ok("snapshot", "-a", "before", path);
    model.bytes.set(before);
    {
      using image = new OpenImage(path);
      model.assertHeld(image);
      assert.match(
        img("snapshot", "-d", "before", path).text,
        /Is another process using the image/,
      );
    }
    ok("snapshot", "-d", "before", path);
    assert.equal(ok("snapshot", "-l", path), "");
    assert.match(ok("check", path), /^No errors were found/);
  }));
