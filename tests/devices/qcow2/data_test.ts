/** What is written to a qcow2 image is there, for us and for Debian's qemu-img. */
import assert from "node:assert/strict";
import { create, hasQemuImg, Model, OpenImage, qemuImg, qemuImgOk, withFolder } from "./testing.ts";

const MIB = 1 << 20;
const kinds = [
  { version: 3, clusterBits: 16, refcountOrder: 4 },
  { version: 2, clusterBits: 16, refcountOrder: 4 },
  { version: 3, clusterBits: 9, refcountOrder: 6 },
  { version: 3, clusterBits: 9, refcountOrder: 4 },
  { version: 3, clusterBits: 12, refcountOrder: 0 },
  { version: 3, clusterBits: 21, refcountOrder: 3 },
  { version: 3, clusterBits: 10, refcountOrder: 1 },
] as const;
const discards = { discard: "unmap" };

for (const kind of kinds) {
  const name = JSON.stringify(kind).replaceAll('"', "");
  Deno.test(`random requests to ${name} are kept, and qemu-img finds no error`, async () => {
    await withFolder(async (folder) => {
      const path = `${folder}/disk.qcow2`;
      create(path, { size: 8 * MIB, ...kind });
      const model = new Model(8 * MIB, kind.clusterBits);
      for (let round = 0; round < 3; round++) {
        using image = new OpenImage(path, discards);
        model.assertHeld(image, `round ${round}`);
        for (let i = 0; i < 60; i++) model.step(image);
      }
      if (!hasQemuImg) return;
      const { code, text } = await qemuImg("check", path);
      assert.equal(code, 0, text);
      Deno.writeFileSync(`${folder}/raw`, model.bytes);
      await qemuImgOk("compare", "-f", "qcow2", "-F", "raw", path, `${folder}/raw`);
    });
  });
}
