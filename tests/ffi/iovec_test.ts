import assert from "node:assert/strict";
import { Errno } from "../../ffi/errno.ts";
import { readAt } from "../../ffi/fd.ts";
import { IoVector, MAX_PIECES } from "../../ffi/iovec.ts";
import { makeMemfd, mapAnonymous, mapShared, resizeFile } from "../../ffi/memory.ts";

const PAGE = 4096;
const text = Uint8Array.from("0123456789", (c) => c.charCodeAt(0));

Deno.test("pieces are read and written in their order, at an offset and at the descriptor's own", () => {
  using region = mapAnonymous(PAGE);
  using file = makeMemfd("iovec", PAGE);
  region.write(0, text);
  const vector = new IoVector(4);
  vector.push(region.address + 5, 5);
  vector.push(region.address, 2);
  assert.equal(vector.length, 7);
  assert.equal(vector.pieces, 2);
  assert.equal(vector.writeToAt(file.fd, 100), 7);
  assert.equal(vector.writeTo(file.fd), 7);
  assert.equal(vector.writeTo(file.fd), 7);
  const content = new Uint8Array(PAGE);
  readAt(file.fd, content, 0);
  assert.equal(new TextDecoder().decode(content.subarray(0, 14)), "56789015678901");
  assert.equal(new TextDecoder().decode(content.subarray(100, 107)), "5678901");
  region.zero(0, PAGE);
  assert.equal(vector.readFromAt(file.fd, 101), 7);
  assert.deepEqual(region.read(5, 5), Uint8Array.from("67890", (c) => c.charCodeAt(0)));
  assert.deepEqual(region.read(0, 3), Uint8Array.of(0x31, 0, 0));
  assert.equal(vector.readFrom(file.fd), 7);
});

Deno.test("neighbours become one piece, empty pieces none, and a full vector takes no more", () => {
  const vector = new IoVector(2);
  assert(vector.push(0x7fff_0000_1000, 16));
  assert(vector.push(0x7fff_0000_1010, 16));
  assert(vector.push(1, 0));
  assert.equal(vector.pieces, 1);
  assert(vector.push(0x7fff_0000_2000, 8));
  assert.equal(vector.push(0x7fff_0000_3000, 8), false);
  assert.equal(vector.length, 40);
  assert(vector.push(0x7fff_0000_2008, 0x1_2345_6789));
  assert.equal(vector.length, 40 + 0x1_2345_6789);
  vector.clear();
  assert.deepEqual([vector.length, vector.pieces], [0, 0]);
  assert.throws(() => new IoVector(MAX_PIECES + 1), RangeError);
});

Deno.test("`skip()` takes from the front, `truncate()` from the end, `append()` a prefix", () => {
  using region = mapAnonymous(PAGE);
  region.write(0, text);
  const make = () => {
    const vector = new IoVector();
    for (const at of [0, 4, 8, 2]) vector.push(region.address + at, 2);
    return vector;
  };
  const contents = (vector: IoVector) => {
    const into = new Uint8Array(16);
    return new TextDecoder().decode(into.subarray(0, vector.copyOut(into)));
  };
  assert.equal(contents(make()), "01458923");
  for (let n = 0; n <= 9; n++) {
    const skipped = make();
    skipped.skip(n);
    assert.equal(contents(skipped), "01458923".slice(n));
    skipped.push(region.address + 6, 1);
    assert.equal(contents(skipped), "01458923".slice(n) + "6");
    const cut = make();
    cut.truncate(n);
    assert.equal(contents(cut), "01458923".slice(0, n));
    const copy = new IoVector();
    assert(copy.append(make(), n));
    assert.equal(contents(copy), "01458923".slice(0, n));
  }
  assert.equal(new IoVector(2).append(make()), false);
});

Deno.test("`copyIn()` writes what there is room for", () => {
  using region = mapAnonymous(PAGE);
  const vector = new IoVector();
  vector.push(region.address + 6, 2);
  vector.push(region.address, 3);
  assert.equal(vector.copyIn(text), 5);
  assert.deepEqual(region.read(0, 9), Uint8Array.of(0x32, 0x33, 0x34, 0, 0, 0, 0x30, 0x31, 0));
});

Deno.test("a page that is not there is EFAULT, whoever looks for it", () => {
  using file = makeMemfd("iovec", 2 * PAGE);
  using other = makeMemfd("iovec", PAGE);
  using region = mapShared(file.fd, 2 * PAGE);
  resizeFile(file.fd, PAGE);
  const vector = new IoVector();
  vector.push(region.address + PAGE, 16);
  const buffer = new Uint8Array(16);
  assert.equal(vector.copyOut(buffer), -Errno.EFAULT);
  assert.equal(vector.copyIn(buffer), -Errno.EFAULT);
  assert.equal(vector.writeToAt(other.fd, 0), -Errno.EFAULT);
  assert.equal(vector.readFromAt(other.fd, 0), -Errno.EFAULT);
  vector.clear();
  vector.push(region.address + PAGE - 8, 16);
  assert.equal(vector.copyOut(buffer), -Errno.EFAULT, "half of it is not enough");
});

Deno.test("a call that fails gives its errno", () => {
  using region = mapAnonymous(PAGE);
  const vector = new IoVector();
  vector.push(region.address, 16);
  assert.equal(vector.readFrom(-1), -Errno.EBADF);
  assert.equal(vector.writeToAt(-1, 0), -Errno.EBADF);
});

Deno.test("`isAligned()` looks at where each piece begins, and at its length", () => {
  const vector = new IoVector(4);
  vector.push(0x7fff_0000_1000, 4096);
  vector.push(0x7fff_0000_3000, 512);
  assert(vector.isAligned(512));
  assert.equal(vector.isAligned(1024), false);
  vector.skip(4096 + 256);
  assert.equal(vector.isAligned(512), false);
  assert(vector.isAligned(256));
  vector.clear();
  assert(vector.isAligned(4096));
  vector.push(0x7fff_0000_1001, 512);
  assert.equal(vector.isAligned(2), false);
});

Deno.test("`moveLast()` takes the last byte of the last piece", () => {
  using region = mapAnonymous(PAGE);
  const vector = new IoVector(4);
  const last = new IoVector(1);
  assert.equal(vector.moveLast(last), false);
  vector.push(region.address, 2);
  vector.push(region.address + 100, 1);
  for (const [at, left] of [[100, 2], [1, 1], [0, 0]]) {
    last.clear();
    assert(vector.moveLast(last));
    assert.equal(vector.length, left);
    assert.equal(last.copyIn(Uint8Array.of(at + 1)), 1);
    assert.equal(region.read(at, 1)[0], at + 1);
  }
  assert.equal(vector.pieces, 0);
});
