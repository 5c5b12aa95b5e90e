import assert from "node:assert/strict";
import { JsonStream } from "../../vmm/monitor/json.ts";
import { maxTokenBytes } from "../../vmm/monitor/json_lexer.ts";
import { type JsonValue, stringify } from "../../vmm/monitor/json_value.ts";
import { latin1 } from "./monitor_fake_machine.ts";

/** Values and errors in a text whose characters are bytes. */
function parse(text: string): (JsonValue | { error: string })[] {
  return [...new JsonStream().feed(latin1(text))]
    .map((item) => "value" in item ? item.value : { error: item.error });
}

/** The messages of a text that must be wrong, without the common part. */
function errors(text: string): string[] {
  return parse(text).map((item) => {
    assert.ok(item && typeof item === "object" && "error" in item, `no error: ${text}`);
    return String(item.error).replace("JSON parse error, ", "");
  });
}

Deno.test("JsonStream reads every kind of value", () => {
  assert.deepEqual(
    parse(`{"a": [1, -2, 1.5, 1e3, true, false, null, "x", {}, []]} 'a"b\\'c' 5 `),
    [{ a: [1, -2, 1.5, 1000, true, false, null, "x", {}, []] }, `a"b'c`, 5],
  );
});

Deno.test("JsonStream reads values back to back, over lines and byte by byte", () => {
  const stream = new JsonStream();
  const items = [...`{"execute"\n:"a"}{"execute":"b"}\n[\n1]`].flatMap((char) => [
    ...stream.feed(latin1(char)),
  ]);
  assert.deepEqual(items, [{ value: { execute: "a" } }, { value: { execute: "b" } }, {
    value: [1],
  }]);
});

Deno.test("JsonStream keeps the value of 64-bit integers", () => {
  assert.deepEqual(
    parse("[9007199254740993, 18446744073709551615, -9223372036854775808]"),
    [[9007199254740993n, 18446744073709551615n, -9223372036854775808n]],
  );
  // Beyond 64 bits QEMU goes over to floating point, and so do we.
  assert.deepEqual(parse("[99999999999999999999, -9223372036854775809]"), [
    [1e20, -9223372036854775809],
  ]);
});

Deno.test("JsonStream decodes escapes and UTF-8", () => {
  assert.deepEqual(
    parse('["\\u00e9\xc3\xa9\\n\\/\\b\\f\\r\\t\\\\", "\\ud83d\\ude00", "\\u0000"]'),
    [
      ["éé\n/\b\f\r\t\\", "😀", "\0"],
    ],
  );
});

Deno.test("JsonStream takes a member named __proto__ for a member", () => {
  const [value] = parse('{"__proto__": {"polluted": true}}');
  assert.deepEqual(Object.keys(value as object), ["__proto__"]);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

Deno.test("JsonStream reports what is wrong, where", () => {
  const cases: [text: string, ...messages: string[]][] = [
    ['{"execute": query}\n', "1:13: invalid keyword 'query'"],
    ['{ "execute" "x" }', "1:13: expecting ':'"],
    ["nonsense\n", "1:1: invalid keyword 'nonsense'"],
    ["[1,]", "1:4: expecting value"],
    ["[1 2]", "1:4: expecting ',' or ']'"],
    ['{"a":1 2}', "1:8: expecting ',' or '}'"],
    ['{"a":1]', "1:7: expecting ',' or '}'"],
    ["{]", "1:2: expecting key"],
    ["{1:2}", "1:2: expecting key"],
    ['{"a":1,}', "1:8: expecting key"],
    ['\n{"a":1,"a":2}', "2:12: duplicate key"],
    ["}", "1:1: expecting value"],
    ['["a\\x"]', "1:2: invalid escape sequence in string"],
    ['["\\U0041"]', "1:2: invalid escape sequence in string"],
    ['["\\u12"]', '1:2: \\u12" is not a valid Unicode character'],
    ['["\\u12x4"]', "1:2: \\u12x is not a valid Unicode character"],
    ['["\\ud800"]', "1:2: \\ud800 is not a valid Unicode character"],
    ['["\\ud83d\\u0041"]', "1:2: \\ud83d is not a valid Unicode character"],
    ['["\\udc00"]', "1:2: \\udc00 is not a valid Unicode character"],
    ['["\\uffff"]', "1:2: \\uffff is not a valid Unicode character"],
    ['["\xc0\x80"]', "1:2: invalid UTF-8 sequence in string"],
    ['["\xed\xa0\x80"]', "1:2: invalid UTF-8 sequence in string"],
    ['["\xef\xbf\xbf"]', "1:2: invalid UTF-8 sequence in string"],
  ];
  for (const [text, ...messages] of cases) assert.deepEqual(errors(text), messages, text);
});

Deno.test("JsonStream resynchronises after a byte that fits nowhere", () => {
  assert.deepEqual(errors('{"id":01}'), ["1:7: stray '01'", "1:10: expecting value"]);
  assert.deepEqual(errors('{"id":-}\n'), ["1:7: stray '-}'"]);
  assert.deepEqual(errors("TRUE and more\n"), ["1:1: stray 'T'"]);
  assert.deepEqual(parse('"abc\nnul\n{"a":1}'), [
    { error: "1:1: JSON parse error, stray '\"abc\n'" },
    { a: 1 },
  ]);
  assert.deepEqual(parse('\xff{"a":1}'), [
    { error: "1:1: JSON parse error, stray '\ufffd'" },
    { a: 1 },
  ]);
});

Deno.test("JsonStream reports one error for one broken value", () => {
  assert.deepEqual(errors('{"a": x, "b": y, "c": [z]}'), ["1:7: invalid keyword 'x'"]);
});

Deno.test("JsonStream limits nesting, tokens and bytes", () => {
  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  assert.equal(parse(nested(1024)).length, 1);
  assert.deepEqual(parse("[".repeat(1025)), [{ error: "JSON nesting depth limit exceeded" }]);
  const tokens = new JsonStream();
  const commas = latin1("[" + "1,".repeat(1 << 20));
  assert.deepEqual([...tokens.feed(commas)], [{ error: "JSON token count limit exceeded" }]);
  const bytes = new JsonStream();
  const long = new Uint8Array(maxTokenBytes + 2).fill(0x61);
  long[0] = 0x22;
  assert.deepEqual([...bytes.feed(long)], [{ error: "JSON token size limit exceeded" }]);
  assert.deepEqual([...bytes.feed(latin1("\n{}"))], [{ value: {} }]);
});

Deno.test("stringify() writes as QMP does", () => {
  const value = { a: 1, b: [true, null, 'é\u0001"\\\n'], c: {}, d: undefined, e: 2n ** 63n };
  assert.equal(
    stringify(value),
    '{"a": 1, "b": [true, null, "\\u00E9\\u0001\\"\\\\\\n"], "c": {}, "e": 9223372036854775808}',
  );
  assert.equal(
    stringify({ return: {}, id: [1] }, true),
    '{\n    "return": {\n    },\n    "id": [\n        1\n    ]\n}',
  );
});

Deno.test("stringify() gives doubles 17 digits, as C's %.17g", () => {
  const numbers = [0.1, 1.5, 1e-5, 1e23, -9223372036854775809, 2.9864230769230771, 1e16, 123456.5];
  assert.equal(
    stringify(numbers),
    "[0.10000000000000001, 1.5, 1.0000000000000001e-05, 9.9999999999999992e+22, " +
      "-9.2233720368547758e+18, 2.9864230769230771, 10000000000000000, 123456.5]",
  );
});
