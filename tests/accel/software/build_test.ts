import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { compile, generated } from "../../../vmm/accel/software/build.ts";

const software = new URL("../../../vmm/accel/software/", import.meta.url);

Deno.test("the generated sources are what cpu_state.ts and opcodes.ts say", async () => {
  for (const [name, text] of Object.entries(generated())) {
    assert.equal(await Deno.readTextFile(new URL(`core/${name}`, software)), text, name);
  }
});

Deno.test("core.wasm is what its sources compile to, byte for byte", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await compile(`${folder}/core.wasm`);
    const committed = await Deno.readFile(new URL("core.wasm", software));
    assert.ok(
      Buffer.from(await Deno.readFile(`${folder}/core.wasm`)).equals(committed),
      "core.wasm is older than its sources, run deno task core",
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
