import assert from "node:assert/strict";
import { decodeText, encodeText } from "../../ffi/text.ts";

const latin1 = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));

const cases: [what: string, bytes: Uint8Array, text: string][] = [
  ["nothing", latin1(""), ""],
  ["ASCII", latin1("a=b"), "a=b"],
  ["a byte order mark", new TextEncoder().encode("\ufeffa"), "\ufeffa"],
  ["every length of sequence", new TextEncoder().encode("é€\u{1f600}"), "é€\u{1f600}"],
  ["the replacement character", new TextEncoder().encode("\ufffd"), "\ufffd"],
  ["a byte of Latin-1", latin1("a=\xe9"), "a=\udce9"],
  ["a byte before and behind text", latin1("\xff\xc3\xa9\x80"), "\udcffé\udc80"],
  ["sequences that are cut", latin1("\xe2\x82\xf0\x9f\x98"), "\udce2\udc82\udcf0\udc9f\udc98"],
  ["an overlong sequence", latin1("\xc0\xaf"), "\udcc0\udcaf"],
  ["a surrogate in UTF-8", latin1("\xed\xb3\xa9"), "\udced\udcb3\udca9"],
  ["what is above U+10FFFF", latin1("\xf4\x90\x80\x80"), "\udcf4\udc90\udc80\udc80"],
];

for (const [what, bytes, text] of cases) {
  Deno.test(`\`decodeText()\` and \`encodeText()\` keep ${what}`, () => {
    assert.equal(decodeText(bytes), text);
    assert.deepEqual(encodeText(text), Uint8Array.from(bytes));
  });
}

Deno.test("`decodeText()` and `encodeText()` keep any two bytes", () => {
  for (let first = 0; first < 256; first++) {
    for (let second = 0; second < 256; second++) {
      const bytes = Uint8Array.of(first, second);
      assert.deepEqual(encodeText(decodeText(bytes)), bytes);
    }
  }
});

Deno.test("`encodeText()` refuses surrogates that stand for no byte", () => {
  for (const text of ["\ud800", "a\udc7f", "\udd00", "\udce9\ud83d"]) {
    assert.throws(() => encodeText(text), TypeError);
  }
});
