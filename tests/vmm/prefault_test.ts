/** What is mapped of a guest's memory before the guest comes. */
import assert from "node:assert/strict";
import { Errno, OsError } from "../../ffi/errno.ts";
import { dataRanges, O, openFile, readAt } from "../../ffi/fd.ts";
import { mapShared } from "../../ffi/memory.ts";
import type { AcceleratorVm } from "../../vmm/accel/accelerator.ts";
import { GuestMemory } from "../../vmm/machine/guest_memory.ts";
import { HIGH_RAM_START, LOW_RAM_LIMIT } from "../../vmm/machine/microvm.ts";
import { prefault, prefaultGuest } from "../../vmm/machine/prefault.ts";
import { BACKEND_SIZE, withBackend, withFolder } from "./memory_backends.ts";

const word = Uint8Array.of(1, 2, 3, 4);

/** Which pages of a mapping are in this process's page tables (proc(5), /proc/PID/pagemap). */
function mappedPages(address: number, count: number): number[] {
  using pagemap = openFile("/proc/self/pagemap", O.RDONLY);
  const entries = new BigUint64Array(count);
  readAt(pagemap.fd, new Uint8Array(entries.buffer), address / 4096 * 8);
  return [...entries.keys()].filter((page) => entries[page] >> 63n === 1n);
}

Deno.test("prefault() maps the pages that memory has, and makes no new ones", () => {
  withBackend({}, (backend) => {
    const fd = backend.fd!.fd;
    using elsewhere = mapShared(fd, BACKEND_SIZE);
    for (const page of [3, 4, 100]) elsewhere.write(page * 4096, word);
    const pages = () => mappedPages(backend.mapping.address, BACKEND_SIZE / 4096);
    const has = () => [...dataRanges(fd, 0, BACKEND_SIZE)];
    const before = has();
    assert.deepEqual(pages(), []);
    prefault(backend, 60_000);
    assert.deepEqual(pages(), [3, 4, 100]);
    assert.deepEqual(has(), before);
  });
});

Deno.test("prefault() leaves memory alone that cannot say what it has, and ends in time", async () => {
  withBackend({ qomType: "memory-backend-ram", share: false }, (backend) => {
    prefault(backend, 60_000);
    assert.deepEqual(mappedPages(backend.mapping.address, BACKEND_SIZE / 4096), []);
  });
  await withFolder((folder) =>
    withBackend({ qomType: "memory-backend-file", memPath: `${folder}/ram` }, (backend) => {
      prefault(backend, 60_000);
      assert.deepEqual([...dataRanges(backend.fd!.fd, 0, BACKEND_SIZE)], []);
    })
  );
  const size = 64 << 20;
  withBackend({ size }, (backend) => {
    using elsewhere = mapShared(backend.fd!.fd, size);
    for (let page = 0; page < size; page += 4096) elsewhere.write(page, word);
    prefault(backend, -1);
    assert.equal(mappedPages(backend.mapping.address, size / 4096).length, 16 << 20 >> 12);
  });
});

/** An accelerator that tells what it was to map. */
function recorder(offers: boolean) {
  const asked: [number, number][] = [];
  const prefault = (gpa: number, size: number) => {
    asked.push([gpa, size]);
    return offers;
  };
  return { asked, vm: { prefault } as unknown as AcceleratorVm };
}

Deno.test("prefaultGuest() maps what memory has at the guest's addresses, below and above 4 GiB", () => {
  withBackend({ size: LOW_RAM_LIMIT + BACKEND_SIZE }, (backend) => {
    using elsewhere = mapShared(backend.fd!.fd, LOW_RAM_LIMIT + BACKEND_SIZE);
    for (const at of [0x3000, LOW_RAM_LIMIT - 4096, LOW_RAM_LIMIT]) elsewhere.write(at, word);
    const { asked, vm } = recorder(true);
    prefaultGuest(new GuestMemory(backend), vm, 60_000);
    assert.deepEqual(asked, [
      [0x3000, 4096],
      [LOW_RAM_LIMIT - 4096, 4096],
      [HIGH_RAM_START, 4096],
    ]);
  });
});

Deno.test("prefaultGuest() leaves the rest when a page cannot be mapped", () => {
  withBackend({}, (backend) => {
    using elsewhere = mapShared(backend.fd!.fd, BACKEND_SIZE);
    for (const page of [3, 5]) elsewhere.write(page * 4096, word);
    let calls = 0;
    const prefault = () => {
      calls++;
      throw new OsError("KVM_PRE_FAULT_MEMORY", Errno.EAGAIN);
    };
    prefaultGuest(new GuestMemory(backend), { prefault } as unknown as AcceleratorVm, 60_000);
    assert.equal(calls, 1);
  });
});

Deno.test("prefaultGuest() asks once where it cannot be had, and ends in time", () => {
  withBackend({ size: 64 << 20 }, (backend) => {
    using elsewhere = mapShared(backend.fd!.fd, 64 << 20);
    for (let page = 0; page < 64 << 20; page += 4096) elsewhere.write(page, word);
    const memory = new GuestMemory(backend);
    const without = recorder(false);
    prefaultGuest(memory, without.vm, 60_000);
    assert.deepEqual(without.asked, [[0, 16 << 20]]);
    const late = recorder(true);
    prefaultGuest(memory, late.vm, -1);
    assert.deepEqual(late.asked, [[0, 16 << 20]]);
  });
});
