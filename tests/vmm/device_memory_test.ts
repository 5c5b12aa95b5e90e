/** Guest RAM that devices give back to the host. */
import assert from "node:assert/strict";
import { fileStatus } from "../../ffi/fd.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { makeMemfd, mapAnonymous, mapShared } from "../../ffi/memory.ts";
import { GuestRam } from "../../vmm/bus/device_memory.ts";

const PAGE = 4096;
/** Bytes of a huge page: with those a kernel may count nothing smaller. */
const PIECE = 2 << 20;
const PIECES = 8;
const SIZE = PIECES * PIECE;
/** Where the guest sees it: two ranges, which lie one after the other on the host. */
const [LOW, HIGH] = [0, 0x1_0000_0000];

/** RAM full of ones, and how much of it the host has. */
function openRam(address: number, pages: "shared" | "anonymous" | undefined) {
  const range = { size: SIZE / 2, name: "ram", readonly: false, pages };
  let changes = 0;
  const ram = new GuestRam([
    { ...range, gpa: LOW, address },
    { ...range, gpa: HIGH, address: address + SIZE / 2 },
  ], () => changes++);
  for (const gpa of [LOW, HIGH]) ram.write(gpa, new Uint8Array(SIZE / 2).fill(1));
  changes = 0;
  const isEmpty = () =>
    [LOW, HIGH].flatMap((gpa) =>
      Array.from({ length: PIECES / 2 }, (_, i) => ram.read(gpa + i * PIECE, PIECE)!)
    ).map((bytes) => bytes.every((byte) => byte === 0));
  return { ram, isEmpty, changes: () => changes };
}

Deno.test("shared memory that is given back is the file's no more", () => {
  using fd = makeMemfd("test-ram", SIZE);
  using mapping = mapShared(fd.fd, SIZE);
  using other = mapShared(fd.fd, SIZE);
  const { ram, isEmpty, changes } = openRam(mapping.address, "shared");
  assert.equal(fileStatus(fd.fd).allocated, SIZE);
  const vector = new IoVector();
  // One piece is in both ranges.
  assert.equal(ram.collect(vector, LOW + PIECE, PIECE), "added");
  assert.equal(ram.collect(vector, LOW + 3 * PIECE, PIECE), "added");
  assert.equal(ram.collect(vector, HIGH, PIECE), "added");
  assert.equal(vector.pieces, 2);
  ram.giveBack(vector);
  assert.equal(fileStatus(fd.fd).allocated, SIZE - 3 * PIECE);
  assert.equal(changes(), 1, "who has decoded code of it is told");
  assert.ok(other.isZero(PIECE, PIECE), "whoever maps it finds the same");
  assert.deepEqual(isEmpty(), [false, true, false, true, true, false, false, false]);
});

Deno.test("of shared memory that is given back, parts of pages are kept", () => {
  using fd = makeMemfd("test-ram", SIZE);
  using mapping = mapShared(fd.fd, SIZE);
  const { ram } = openRam(mapping.address, "shared");
  const vector = new IoVector();
  ram.collect(vector, LOW + 100, 2 * PAGE);
  ram.collect(vector, HIGH + 3 * PAGE + 1, PAGE - 1);
  ram.giveBack(vector);
  const isKept = (gpa: number) => ram.read(gpa, PAGE)!.every((byte) => byte === 1);
  const pages = [0, 1, 2, 3].flatMap((i) => [isKept(LOW + i * PAGE), isKept(HIGH + i * PAGE)]);
  assert.deepEqual(pages, [true, true, false, true, true, true, true, true]);
  assert.ok(ram.read(LOW + PAGE, PAGE)!.every((byte) => byte === 0));
});

Deno.test("anonymous memory that is given back is empty", () => {
  using mapping = mapAnonymous(SIZE);
  const { ram, isEmpty } = openRam(mapping.address, "anonymous");
  const vector = new IoVector();
  ram.collect(vector, LOW, PIECE);
  ram.collect(vector, HIGH + 3 * PIECE, PIECE);
  ram.giveBack(vector);
  assert.deepEqual(isEmpty(), [true, ...Array(6).fill(false), true]);
});

Deno.test("memory of another kind is kept", () => {
  using fd = makeMemfd("test-ram", SIZE);
  using mapping = mapShared(fd.fd, SIZE);
  const { ram, isEmpty } = openRam(mapping.address, undefined);
  const vector = new IoVector();
  ram.collect(vector, LOW, SIZE / 2);
  ram.giveBack(vector);
  assert.equal(fileStatus(fd.fd).allocated, SIZE);
  assert.ok(isEmpty().every((empty) => !empty));
});
