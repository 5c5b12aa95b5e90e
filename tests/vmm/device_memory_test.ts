/** Guest RAM that devices give back to the host. */
import assert from "node:assert/strict";
import { fileStatus } from "../../ffi/fd.ts";
import { IoVector } from "../../ffi/iovec.ts";
import { makeMemfd, mapAnonymous, mapShared } from "../../ffi/memory.ts";
import { GuestRam } from "../../vmm/bus/device_memory.ts";

const PAGE = 4096;
const PAGES = 8;
const SIZE = PAGES * PAGE;
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
      Array.from({ length: PAGES / 2 }, (_, i) => ram.read(gpa + i * PAGE, PAGE)!)
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
  // Of one piece the ends are parts of pages; another one is in both ranges.
  assert.equal(ram.collect(vector, LOW + 100, 2 * PAGE), "added");
  assert.equal(ram.collect(vector, LOW + 3 * PAGE, PAGE), "added");
  assert.equal(ram.collect(vector, HIGH, PAGE), "added");
  assert.equal(ram.collect(vector, HIGH + 3 * PAGE + 1, PAGE - 1), "added");
  assert.equal(vector.pieces, 3);
  ram.giveBack(vector);
  assert.equal(fileStatus(fd.fd).allocated, SIZE - 3 * PAGE);
  assert.equal(changes(), 1, "who has decoded code of it is told");
  assert.ok(other.isZero(PAGE, PAGE), "whoever maps it finds the same");
  assert.deepEqual(isEmpty(), [false, true, false, true, true, false, false, false]);
});

Deno.test("anonymous memory that is given back is empty", () => {
  using mapping = mapAnonymous(SIZE);
  const { ram, isEmpty } = openRam(mapping.address, "anonymous");
  const vector = new IoVector();
  ram.collect(vector, LOW, PAGE);
  ram.collect(vector, HIGH + 3 * PAGE, PAGE);
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
