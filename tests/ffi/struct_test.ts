import assert from "node:assert/strict";
import {
  array,
  bytes,
  fieldsOf,
  i32,
  i64,
  isView,
  packed,
  struct,
  u16,
  u32,
  u64,
  u8,
} from "../../ffi/struct.ts";

Deno.test("struct() lays fields out as C does", () => {
  const inner = struct("inner", { a: u8, b: u64 });
  const outer = struct("outer", { x: u16, inner, y: u8, list: array(inner, 2), tail: bytes(3) });
  assert.deepEqual(inner.offsets, { a: 0, b: 8 });
  assert.equal(inner.size, 16);
  assert.deepEqual(outer.offsets, { x: 0, inner: 8, y: 24, list: 32, tail: 64 });
  assert.equal(outer.size, 72);
});

Deno.test("struct().view() reads and writes the memory in place, little-endian", () => {
  const layout = struct("s", { a: u8, b: u16, c: u32, d: i32, e: u64, f: i64 });
  const memory = new Uint8Array(64);
  const view = layout.view(memory.buffer, 16);
  Object.assign(view, { a: 0x11, b: 0x2233, c: 0x44556677, d: -2, e: 0x8899aabbccddeeffn, f: -3n });
  assert.deepEqual(
    [...memory.subarray(16, 16 + 12)],
    [0x11, 0, 0x33, 0x22, 0x77, 0x66, 0x55, 0x44, 0xfe, 0xff, 0xff, 0xff],
  );
  assert.deepEqual([view.a, view.b, view.c, view.d], [0x11, 0x2233, 0x44556677, -2]);
  assert.deepEqual([view.e, view.f], [0x8899aabbccddeeffn, -3n]);
  memory[17] = 0xff;
  assert.equal(view.a, 0x11);
});

Deno.test("struct() allows fields of any name when they sound like a view's own", () => {
  const layout = struct("names", { base: u64, data: u8, offset: u8, size: u8, name: u8 });
  const { view } = layout.alloc({ base: 5n, data: 1, offset: 2, size: 3, name: 4 });
  assert.deepEqual([view.base, view.data, view.offset, view.size, view.name], [5n, 1, 2, 3, 4]);
});

Deno.test("nested struct views write through to the outer struct", () => {
  const inner = struct("inner", { base: u64, limit: u32 });
  const outer = struct("outer", { pad: u64, inner, more: array(inner, 2) });
  const { bytes: memory, view } = outer.alloc();
  view.inner.base = 7n;
  view.more.at(1).limit = 9;
  const again = outer.view(memory.buffer);
  assert.equal(again.inner.base, 7n);
  assert.equal(again.more.at(1).limit, 9);
  assert.throws(() => view.more.at(2), RangeError);
  assert.throws(() => view.more.at(-1), RangeError);
});

Deno.test("bytes() aliases the struct's memory and refuses other lengths", () => {
  const layout = struct("b", { head: u8, body: bytes(4) });
  const { bytes: memory, view } = layout.alloc();
  view.body[2] = 5;
  assert.equal(memory[3], 5);
  assert.throws(() => (view.body = new Uint8Array(3)), /3 bytes in a field of 4 bytes/);
});

Deno.test("struct() works on a SharedArrayBuffer", () => {
  const layout = struct("shared", { a: u32, b: bytes(2) });
  const memory = new SharedArrayBuffer(32);
  layout.view(memory, 8).a = 0xdeadbeef;
  assert.equal(layout.view(memory, 8).a, 0xdeadbeef);
  layout.view(memory, 8).b[1] = 3;
  assert.equal(new Uint8Array(memory)[13], 3);
});

Deno.test("fieldsOf() lists a view's fields in declaration order, structs as views again", () => {
  const inner = struct("inner", { low: u8 });
  const outer = struct("outer", { b: u64, inner, a: array(inner, 2), name: bytes(1) });
  const { view } = outer.alloc({ b: 1n });
  view.inner.low = 7;
  assert.deepEqual([...fieldsOf(view)].map(([name]) => name), ["b", "inner", "a", "name"]);
  const [, [, nested]] = fieldsOf(view);
  assert.ok(isView(nested));
  assert.deepEqual([...fieldsOf(nested)], [["low", 7]]);
  assert.ok(!isView(view.a) && !isView(view.name) && !isView(null) && !isView(1n));
  assert.deepEqual([...fieldsOf(struct("none", {}).alloc().view)], []);
});

Deno.test("packed() leaves no padding before a field, which reads as before", () => {
  const layout = struct("odd", { first: u16, wide: packed(u64), last: packed(u32) });
  assert.deepEqual(layout.offsets, { first: 0, wide: 2, last: 10 });
  assert.equal(layout.size, 14);
  const { bytes, view } = layout.alloc({ wide: 0x0102030405060708n, last: 9 });
  assert.deepEqual([view.wide, view.last], [0x0102030405060708n, 9]);
  assert.equal(bytes[2], 8);
});
