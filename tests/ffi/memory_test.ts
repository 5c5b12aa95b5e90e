import assert from "node:assert/strict";
import { fileStatus, O, openFile, readAt, writeAll } from "../../ffi/fd.ts";
import {
  addressOf,
  addSeals,
  giveBackFreeMemory,
  makeMemfd,
  mapAnonymous,
  mapCode,
  type MappedRegion,
  mapPrivate,
  mapShared,
  resizeFile,
  Seal,
  sealsOf,
  viewMemory,
} from "../../ffi/memory.ts";
import { newlyOpen, openFiles } from "../processes.ts";

const PAGE = 4096;
const SIZE = 4 * PAGE;
const data = Uint8Array.of(1, 2, 3, 4);

/** The permissions of the mapping that holds an address; the kernel joins neighbours that are alike. */
function permissions(address: number): string | undefined {
  const lines = Deno.readTextFileSync("/proc/self/maps").matchAll(
    /^([0-9a-f]+)-([0-9a-f]+) (\S+)/gm,
  );
  const holds = ([, from, to]: RegExpExecArray) =>
    address >= parseInt(from, 16) && address < parseInt(to, 16);
  return [...lines].find(holds)?.[3];
}

Deno.test("`write()` and `read()` copy up to a region's last byte", () => {
  using region = mapAnonymous(SIZE);
  region.write(SIZE - 4, data);
  assert.deepEqual(region.read(SIZE - 4, 4), data);
  assert.deepEqual(region.read(0, SIZE).subarray(-5), Uint8Array.of(0, 1, 2, 3, 4));
  assert.deepEqual(region.read(SIZE, 0), new Uint8Array());
  region.write(SIZE, new Uint8Array());
});

Deno.test("a region refuses every access that is not inside of it", () => {
  using region = mapAnonymous(SIZE);
  using file = makeMemfd("test", SIZE);
  const outside = [
    [SIZE - 3, 4],
    [SIZE, 1],
    [-1, 1],
    [-1, 2],
    [0, SIZE + 1],
    [0, -1],
    [NaN, 1],
    [0, NaN],
    [Infinity, 1],
    [2 ** 53, 1],
    [SIZE + 1, 0],
  ];
  for (const [offset, length] of outside) {
    const range = { name: "RangeError", message: /^Range of .* bytes at .* is outside a mapping/ };
    assert.throws(() => region.read(offset, length), RangeError);
    assert.throws(() => region.zero(offset, length), range);
    assert.throws(() => region.isZero(offset, length), range);
    assert.throws(() => region.readFrom(file.fd, 0, offset, length), range);
    assert.throws(() => region.writeTo(file.fd, 0, offset, length), range);
    if (length > 0 && length <= SIZE) {
      assert.throws(() => region.write(offset, new Uint8Array(length)), range);
    }
  }
  assert.equal(region.isZero(0, SIZE), true);
});

Deno.test("a closed region refuses every access, and closing again does nothing", () => {
  const region = mapAnonymous(SIZE);
  assert.equal(permissions(region.address), "rw-p");
  region.close();
  region.close();
  for (
    const access of [
      () => region.read(0, 1),
      () => region.write(0, data),
      () => region.zero(0, 1),
      () => region.isZero(0, 1),
    ]
  ) assert.throws(access, { message: "Mapping is closed" });
});

Deno.test("`bytes` is the mapping itself", () => {
  using region = mapAnonymous(SIZE);
  region.bytes[7] = 9;
  assert.equal(region.read(7, 1)[0], 9);
  region.write(0, data);
  assert.deepEqual(region.bytes.slice(0, 4), data);
  assert.equal(region.bytes.length, SIZE);
  assert.deepEqual(viewMemory(region.address + 1, 3), data.slice(1));
});

Deno.test("`zero()` and `isZero()` see each byte of their range and no other", () => {
  using region = mapAnonymous(SIZE);
  for (const at of [0, 1, 4095, 4096, SIZE - 1]) {
    region.write(at, Uint8Array.of(1));
    assert.equal(region.isZero(0, SIZE), false);
    assert.equal(region.isZero(at, 1), false);
    assert.equal(region.isZero(0, at), true);
    assert.equal(region.isZero(at + 1, SIZE - at - 1), true);
    region.zero(at, 1);
    assert.equal(region.isZero(0, SIZE), true);
  }
  region.write(0, data);
  region.zero(1, 2);
  assert.deepEqual(region.read(0, 4), Uint8Array.of(1, 0, 0, 4));
});

Deno.test("`mapShared()` is one memory for all who map it, `mapPrivate()` is not", () => {
  using file = makeMemfd("test", SIZE);
  using a = mapShared(file.fd, SIZE);
  using b = mapShared(file.fd, SIZE - PAGE, PAGE);
  using own = mapPrivate(file.fd, SIZE);
  own.write(0, data);
  a.write(PAGE, data);
  assert.deepEqual(b.read(0, 4), data);
  assert.equal(a.isZero(0, PAGE), true);
  const copy = new Uint8Array(4);
  readAt(file.fd, copy, PAGE);
  assert.deepEqual(copy, data);
  using readonly = mapShared(file.fd, SIZE, 0, false);
  assert.equal(permissions(readonly.address), "r--s");
  assert.deepEqual(readonly.read(PAGE, 4), data);
});

Deno.test("`readFrom()` and `writeTo()` move bytes between a file and a mapping", () => {
  using file = makeMemfd("test", 100);
  writeAll(file.fd, data);
  using region = mapAnonymous(SIZE);
  assert.equal(region.readFrom(file.fd, 1, 10, 3), 3);
  assert.deepEqual(region.read(9, 5), Uint8Array.of(0, 2, 3, 4, 0));
  assert.equal(region.readFrom(file.fd, 0, 0, SIZE), 100);
  assert.equal(region.readFrom(file.fd, 100, 0, SIZE), 0);
  region.write(SIZE - 4, data);
  region.writeTo(file.fd, 200, SIZE - 4, 4);
  assert.equal(fileStatus(file.fd).size, 204);
  assert.throws(() => region.readFrom(-1, 0, 0, 1), { code: "EBADF" });
  using unwritable = openFile("/dev/null", O.RDONLY);
  assert.throws(() => region.writeTo(unwritable.fd, 0, 0, 1), { code: "EBADF" });
});

Deno.test("`populate()` allocates a shared mapping's pages", () => {
  using file = makeMemfd("test", SIZE);
  using region = mapShared(file.fd, SIZE);
  assert.equal(fileStatus(file.fd).allocated, 0);
  region.populate();
  assert.equal(fileStatus(file.fd).allocated, SIZE);
});

Deno.test("`mapCode()` gives a page that can be run and not written", () => {
  using region: MappedRegion = mapCode(Uint8Array.of(0xc3));
  assert.equal(permissions(region.address), "r-xp");
  assert.deepEqual(region.read(0, 2), Uint8Array.of(0xc3, 0));
});

Deno.test("mapping fails with the reason and the size", () => {
  using file = makeMemfd("test", SIZE);
  assert.throws(() => mapShared(file.fd, SIZE, 1), {
    message: `mmap of ${SIZE} bytes: Invalid argument`,
  });
  assert.throws(() => mapAnonymous(0), { code: "EINVAL" });
  assert.throws(() => mapAnonymous(2 ** 50), { code: "ENOMEM" });
  assert.throws(() => mapShared(-1, SIZE), { code: "EBADF" });
});

Deno.test("`makeMemfd()` takes seals only when asked to", () => {
  using plain = makeMemfd("plain", SIZE);
  assert.equal(sealsOf(plain.fd), Seal.SEAL);
  assert.throws(() => addSeals(plain.fd, Seal.GROW), { code: "EPERM" });
  using sealed = makeMemfd("sealed", SIZE, { sealing: true });
  assert.equal(sealsOf(sealed.fd), 0);
  addSeals(sealed.fd, Seal.GROW);
  assert.equal(sealsOf(sealed.fd), Seal.GROW);
  assert.throws(() => resizeFile(sealed.fd, SIZE + PAGE), {
    message: `ftruncate to ${SIZE + PAGE} bytes: Operation not permitted`,
  });
  resizeFile(sealed.fd, PAGE);
  addSeals(sealed.fd, Seal.SHRINK | Seal.SEAL);
  assert.throws(() => resizeFile(sealed.fd, 0), { code: "EPERM" });
  assert.throws(() => addSeals(sealed.fd, Seal.WRITE), { code: "EPERM" });
  using nullFile = openFile("/dev/null", O.RDONLY);
  assert.equal(sealsOf(nullFile.fd), undefined);
});

Deno.test("`makeMemfd()` is closed on exec, has its name, and leaves nothing open on failure", () => {
  using file = makeMemfd("my name", SIZE);
  assert.equal(Deno.readLinkSync(`/proc/self/fd/${file.fd}`), "/memfd:my name (deleted)");
  assert.match(Deno.readTextFileSync(`/proc/self/fdinfo/${file.fd}`), /^flags:\t02/m);
  const before = openFiles(Deno.pid);
  assert.throws(() => makeMemfd("x", -1), { syscall: "ftruncate" });
  assert.throws(() => makeMemfd("x".repeat(300), SIZE), { syscall: "memfd_create" });
  assert.throws(() => makeMemfd("a\0b", SIZE), TypeError);
  assert.throws(() => makeMemfd("x", SIZE, { hugePageSize: 1 << 14 }), isHugePageError);
  assert.deepEqual(newlyOpen(before), []);
});

/** Kernels tell a size that the CPU does not have in different ways. */
function isHugePageError(error: Error): boolean {
  return error.name === "OsError" && /^(memfd_create|ftruncate)/.test(error.message);
}

Deno.test("`addressOf()` is where the kernel finds a buffer's first byte", () => {
  const buffer = new Uint8Array(16);
  const part = buffer.subarray(5);
  assert.equal(addressOf(part) - addressOf(buffer), 5n);
  buffer[5] = 77;
  assert.equal(viewMemory(Number(addressOf(part)), 1)[0], 77);
});

/** Anonymous memory of this process that is resident, bytes (proc_pid_status(5): RssAnon). */
function residentBytes(): number {
  const [, kib] = /^RssAnon:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status"))!;
  return Number(kib) * 1024;
}

Deno.test("giveBackFreeMemory() gives back what was freed below what is in use", async () => {
  const library = Deno.dlopen("libc.so.6", {
    calloc: { parameters: ["usize", "usize"], result: "pointer" },
    memset: { parameters: ["pointer", "i32", "usize"], result: "pointer" },
    free: { parameters: ["pointer"], result: "void" },
  });
  const { symbols: heap } = library;
  const [count, size] = [1024, 64n << 10n];
  const blocks = Array.from(
    { length: count },
    () => heap.memset(heap.calloc(1n, size), 1, size),
  );
  const pin = heap.calloc(1n, size);
  for (const block of blocks) heap.free(block);
  const before = residentBytes();
  await giveBackFreeMemory();
  const given = before - residentBytes();
  heap.free(pin);
  library.close();
  const freed = count * Number(size);
  assert.ok(given >= freed / 2, `${given} of ${freed} bytes`);
});
