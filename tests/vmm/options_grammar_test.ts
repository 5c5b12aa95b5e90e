import assert from "node:assert/strict";
import { OptionError } from "../../vmm/options/error.ts";
import { parseKeyval, parseOpts } from "../../vmm/options/grammar.ts";
import { parseInteger, parseSize } from "../../vmm/options/values.ts";
import { assertOptionError } from "./options_fixture.ts";

/** The value as plain objects: keyval's have no prototype. */
const plain = (value: unknown) => JSON.parse(JSON.stringify(value));

Deno.test("parseOpts() splits keys and values when commas are doubled or words stand alone", () => {
  const cases: [text: string, implied: string | undefined, entries: Record<string, string>][] = [
    ["", "x", {}],
    ["a=1", undefined, { a: "1" }],
    ["a=1,b=2", undefined, { a: "1", b: "2" }],
    ["a=1,a=2", undefined, { a: "2" }],
    ["file=a,,b,c=d", undefined, { file: "a,b", c: "d" }],
    ["file=a,,,c=d", undefined, { file: "a,", c: "d" }],
    ["a=,b=", undefined, { a: "", b: "" }],
    ["a=b=c", undefined, { a: "b=c" }],
    ["null,id=a", "backend", { backend: "null", id: "a" }],
    ["a,,b,id=a", "backend", { backend: "a,b", id: "a" }],
    ["backend=null,server", "backend", { backend: "null", server: "on" }],
    ["socket,server,nowait", "backend", { backend: "socket", server: "on", wait: "off" }],
    ["reboot", undefined, { reboot: "on" }],
  ];
  for (const [text, implied, entries] of cases) {
    const options = parseOpts(text, implied);
    assert.deepEqual(Object.fromEntries(options.entries), entries, text);
    assert.equal(options.help, false, text);
    assert.equal(options.json, false, text);
  }
});

Deno.test("parseOpts() tells help from a value when a word is help or ?", () => {
  assert.equal(parseOpts("help", "driver").help, true);
  assert.equal(parseOpts("?", "driver").help, true);
  const { help, entries } = parseOpts("isa-serial,help", "driver");
  assert.equal(help, true);
  assert.deepEqual([...entries], [["driver", "isa-serial"]]);
  assert.equal(parseOpts("driver=help", "driver").help, false);
});

Deno.test("parseKeyval() makes objects and lists when keys are dotted", () => {
  const cases: [text: string, implied: string | undefined, value: unknown][] = [
    ["", undefined, {}],
    ["microvm,pit=on", "type", { type: "microvm", pit: "on" }],
    ["a=1,a=2", undefined, { a: "2" }],
    ["path=a,,b", undefined, { path: "a,b" }],
    [
      "channel-type=cpr,addr.transport=socket,addr.type=unix,addr.path=/run/x",
      undefined,
      { "channel-type": "cpr", addr: { transport: "socket", type: "unix", path: "/run/x" } },
    ],
    [
      "addr.args.0=cat,addr.args.1=-u",
      undefined,
      { addr: { args: ["cat", "-u"] } },
    ],
    ["a.1.b=y,a.0.b=x", undefined, { a: [{ b: "x" }, { b: "y" }] }],
  ];
  for (const [text, implied, value] of cases) {
    assert.deepEqual(plain(parseKeyval(text, implied)), value, text);
  }
});

Deno.test("parseKeyval() fails when keys are malformed or contradict each other", () => {
  const cases: [text: string, message: string][] = [
    ["pit", "Expected '=' after parameter 'pit'"],
    ["a=1,b", "Expected '=' after parameter 'b'"],
    ["=1", "Invalid parameter ''"],
    [",a=1", "Invalid parameter ''"],
    ["a..b=1", "Invalid parameter 'a..b'"],
    ["a.=1", "Invalid parameter 'a.'"],
    ["0=1", "Invalid parameter '0'"],
    ["a$=1", "Invalid parameter 'a$'"],
    ["a=1,a.b=2", "Parameters 'a.*' used inconsistently"],
    ["a.b=1,a=2", "Parameters 'a.*' used inconsistently"],
    ["a.0=1,a.b=2", "Parameters 'a.*' used inconsistently"],
    ["a.0=1,a.2=2", "Parameter 'a.1' missing"],
    ["a.999999999999=1", "Parameter 'a.0' missing"],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseKeyval(text), message, text);
});

Deno.test("parseKeyval() leaves Object's prototype alone when a key is its name", () => {
  const value = parseKeyval("constructor.prototype.polluted=1");
  assert.deepEqual(plain(value), { constructor: { prototype: { polluted: "1" } } });
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assertOptionError(() => parseKeyval("__proto__.x=1"), "Invalid parameter '__proto__.x'");
});

Deno.test("parseSize() reads bytes, hexadecimal, suffixes and decimals", () => {
  const cases: [text: string, bytes: number][] = [
    ["0", 0],
    ["4096", 4096],
    ["0x1000", 4096],
    ["1k", 1024],
    ["2K", 2048],
    ["100B", 100],
    ["128M", 128 * 2 ** 20],
    ["1G", 2 ** 30],
    ["1.5G", 1.5 * 2 ** 30],
    ["1.G", 2 ** 30],
    ["2T", 2 ** 41],
    ["1P", 2 ** 50],
    ["12.345M", Math.round(12.345 * 2 ** 20)],
    ["1.0", 1],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});

Deno.test("parseSize() fails when the text is no size or too large", () => {
  const form = "Parameter 'size' expects a non-negative number below 2^64";
  for (
    const text of ["", "abc", "-5", "+5", " 5", "5 ", "1Q", "1e3", "1.5", "12G12", "0x", "0x1M"]
  ) {
    assertOptionError(() => parseSize(text), form);
  }
  assertOptionError(() => parseSize("16E"), "Value '16E' is out of range for parameter 'size'");
  assertOptionError(
    () => parseSize("99999999999999999999"),
    "Value '99999999999999999999' is out of range for parameter 'size'",
  );
  assertOptionError(
    () => parseSize("x", "offset"),
    "Parameter 'offset' expects a non-negative number below 2^64",
  );
});

Deno.test("parseInteger() reads decimal, octal and hexadecimal as C does", () => {
  const cases: [text: string, value: number][] = [
    ["0", 0],
    ["-0", 0],
    ["42", 42],
    ["-1", -1],
    ["0xF4", 0xf4],
    ["010", 8],
    ["0x10", 16],
  ];
  for (const [text, value] of cases) assert.equal(parseInteger("x", text), value, text);
  for (const text of ["", "abc", "1.5", "08", "0x", "1 ", "--1"]) {
    assertOptionError(() => parseInteger("x", text), "Parameter 'x' expects integer");
  }
  assertOptionError(
    () => parseInteger("x", "9007199254740993"),
    "Value '9007199254740993' is out of range for parameter 'x'",
  );
});

Deno.test("OptionError keeps its message on one line when the user typed control characters", () => {
  assert.equal(new OptionError("-m a\nb\x1b: no").message, "-m a\\nb\\u001b: no");
});
