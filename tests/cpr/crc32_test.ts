import assert from "node:assert/strict";
import { crc32 as zlib } from "node:zlib";
import { crc32 } from "../../cpr/stream/crc32.ts";

Deno.test("crc32() is zlib's for every length and start", () => {
  const bytes = Uint8Array.from({ length: 300 }, (_, i) => (i * 167 + (i >> 3)) & 0xff);
  for (let length = 0; length <= bytes.length; length++) {
    const part = bytes.subarray(0, length);
    assert.equal(crc32(part), zlib(part), `length ${length}`);
    assert.equal(crc32(bytes.subarray(length), crc32(part)), zlib(bytes), `split at ${length}`);
  }
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});
