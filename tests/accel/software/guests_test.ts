import assert from "node:assert/strict";
import { guests, ownGuests, readRom, runGuest } from "./guests/guests.ts";
import { assemble, has, runInQemu } from "./guests/record.ts";

const tools = await has("as") && await has("ld");
const qemu = await has("qemu-system-x86_64");

async function recorded(name: string): Promise<string[]> {
  const text = await Deno.readTextFile(new URL(`guests/${name}.log`, import.meta.url));
  return text.trimEnd().split("\n");
}

for (const name of [...guests, ...ownGuests]) {
  Deno.test(`the guest '${name}' finds what its log says`, async () => {
    assert.deepEqual(runGuest(await readRom(name)), await recorded(name));
  });

  Deno.test({
    name: `the guest '${name}' is what its source assembles to`,
    ignore: !tools,
    async fn() {
      const out = await Deno.makeTempDir();
      try {
        assert.deepEqual(await assemble(name, out), await readRom(name));
      } finally {
        await Deno.remove(out, { recursive: true });
      }
    },
  });
}

for (const name of guests) {
  Deno.test({
    name: `QEMU's TCG finds the same as the log of '${name}'`,
    ignore: !qemu,
    async fn() {
      assert.deepEqual(await runInQemu(await readRom(name)), await recorded(name));
    },
  });
}
