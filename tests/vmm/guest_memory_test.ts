import assert from "node:assert/strict";
import { fileStatus, isOpen, O, openFile, writeAll } from "../../ffi/fd.ts";
import { makeMemfd, mapShared, MemoryLost, resizeFile, Seal, sealsOf } from "../../ffi/memory.ts";
import { newlyOpen, openFiles } from "../processes.ts";
import { HIGH_RAM_START, LOW_RAM_LIMIT } from "../../vmm/machine/microvm.ts";
import type { MemoryBackendConfig } from "../../vmm/config.ts";
import { GuestMemory, type MemoryBackend, openBackend } from "../../vmm/machine/guest_memory.ts";
import { BACKEND_SIZE, backendConfig, withBackend, withFolder } from "./memory_backends.ts";

const word = Uint8Array.of(1, 2, 3, 4);

/** Whether a second mapping of the backend's file sees what is written to the first. */
function isShared({ fd, mapping }: MemoryBackend): boolean {
  using other = mapShared(fd!.fd, BACKEND_SIZE);
  mapping.write(0x1234, word);
  return other.read(0x1234, 1)[0] === 1;
}

for (const qomType of ["memory-backend-memfd", "memory-backend-shm"] as const) {
  Deno.test(`\`openBackend()\` of ${qomType} can be mapped by another when it is shared`, () => {
    withBackend({ qomType }, (backend) => {
      assert.equal(isShared(backend), true);
      assert.equal(fileStatus(backend.fd!.fd).size, BACKEND_SIZE);
    });
    withBackend({ qomType, share: false }, (backend) => assert.equal(isShared(backend), false));
  });
}

Deno.test("`openBackend()` of memory-backend-ram has a descriptor only when it is shared", () => {
  withBackend({ qomType: "memory-backend-ram" }, (backend) => {
    assert.equal(isShared(backend), true);
  });
  withBackend({ qomType: "memory-backend-ram", share: false }, ({ fd, mapping }) => {
    assert.equal(fd, undefined);
    mapping.write(BACKEND_SIZE - 4, word);
    assert.deepEqual(mapping.read(BACKEND_SIZE - 4, 4), word);
  });
});

Deno.test("`openBackend()` seals the size of a memfd, unless it shall not", () => {
  withBackend({}, ({ fd }) => {
    assert.equal(sealsOf(fd!.fd), Seal.SHRINK | Seal.GROW | Seal.SEAL);
    assert.throws(() => resizeFile(fd!.fd, BACKEND_SIZE / 2), /ftruncate/);
    assert.throws(() => resizeFile(fd!.fd, BACKEND_SIZE * 2), /ftruncate/);
  });
  withBackend({ seal: false }, ({ fd }) => {
    resizeFile(fd!.fd, BACKEND_SIZE * 2);
    assert.equal(fileStatus(fd!.fd).size, BACKEND_SIZE * 2);
  });
});

Deno.test("`openBackend()` allocates all pages at once when `prealloc` is set", () => {
  withBackend({}, ({ fd }) => assert.equal(fileStatus(fd!.fd).allocated, 0));
  withBackend({ prealloc: true }, ({ fd }) => {
    assert.equal(fileStatus(fd!.fd).allocated, BACKEND_SIZE);
  });
});

Deno.test("`openBackend()` makes a file, or goes on with what is in it", async () => {
  await withFolder((folder) => {
    const memPath = `${folder}/ram`;
    withBackend({ qomType: "memory-backend-file", memPath }, ({ mapping }) => {
      mapping.write(BACKEND_SIZE - 4, word);
    });
    assert.deepEqual(Deno.readFileSync(memPath).subarray(BACKEND_SIZE - 4), word);
    withBackend({ qomType: "memory-backend-file", memPath, share: false }, ({ mapping }) => {
      assert.deepEqual(mapping.read(BACKEND_SIZE - 4, 4), word);
      mapping.write(BACKEND_SIZE - 4, new Uint8Array(4));
    });
    const part = { memPath, offset: BACKEND_SIZE - 4096, size: 4096 };
    withBackend({ qomType: "memory-backend-file", ...part }, ({ mapping }) => {
      assert.deepEqual(mapping.read(4092, 4), word);
    });
  });
});

Deno.test("`openBackend()` makes a nameless file when the path is a directory", async () => {
  await withFolder((folder) => {
    withBackend({ qomType: "memory-backend-file", memPath: folder }, (backend) => {
      assert.equal(isShared(backend), true);
      assert.deepEqual([...Deno.readDirSync(folder)], []);
    });
  });
});

Deno.test("`openBackend()` leaves a file alone that may only be read", async () => {
  await withFolder((folder) => {
    const memPath = `${folder}/ram`;
    Deno.writeFileSync(memPath, new Uint8Array(BACKEND_SIZE).fill(7));
    const options = { memPath, readonly: true, share: false };
    withBackend({ qomType: "memory-backend-file", ...options }, ({ mapping }) => {
      mapping.write(0, word);
      assert.equal(Deno.readFileSync(memPath)[0], 7);
    });
  });
});

const failures: [string, Partial<MemoryBackendConfig>, RegExp][] = [
  [
    "the folder does not exist",
    { qomType: "memory-backend-file", memPath: "/nonexistent/ram" },
    /^can't open backing store \/nonexistent\/ram for guest RAM: No such file or directory$/,
  ],
  [
    "the file is none that has a size",
    { qomType: "memory-backend-file", memPath: "/dev/null" },
    /^Cannot allocate 1048576 bytes of guest RAM 'ram0': Invalid argument$/,
  ],
  [
    "the offset is not a multiple of a page",
    { qomType: "memory-backend-file", memPath: "/tmp", offset: 1 },
    /^Cannot allocate 1048576 bytes of guest RAM 'ram0': Invalid argument$/,
  ],
  [
    "there are no huge pages of that size",
    { hugetlb: true, hugetlbsize: 1 << 14 },
    /^Cannot allocate 1048576 bytes of guest RAM 'ram0': /,
  ],
  [
    "there is no such amount of address space",
    { qomType: "memory-backend-ram", share: false, size: 2 ** 50 },
    /^cannot set up guest memory 'ram0': Cannot allocate memory$/,
  ],
  ...(["memory-backend-memfd", "memory-backend-shm", "memory-backend-ram"] as const).map(
    (qomType): [string, Partial<MemoryBackendConfig>, RegExp] => [
      `${qomType} is larger than what the host has`,
      { qomType, size: 2 ** 46 },
      /^cannot set up guest memory 'ram0': Cannot allocate memory$/,
    ],
  ),
  ...[true, false].map((share): [string, Partial<MemoryBackendConfig>, RegExp] => [
    `the host has not so many huge pages, share=${share}`,
    { hugetlb: true, hugetlbsize: 2 << 20, size: 2 ** 40, share },
    /^unable to map backing store for guest RAM: Cannot allocate memory$/,
  ]),
  [
    "the file system has no room for the file",
    { qomType: "memory-backend-file", memPath: "/tmp", size: 2 ** 43 },
    /^Cannot allocate 8796093022208 bytes of guest RAM 'ram0': its file system has only \d+ bytes left$/,
  ],
  [
    "the file is shared although it may only be read",
    { qomType: "memory-backend-file", memPath: "/proc/self/exe", readonly: true },
    /^Cannot allocate 1048576 bytes of guest RAM 'ram0': Permission denied$/,
  ],
];

Deno.test("`openBackend()` leaves no file behind that it has made in vain", async () => {
  await withFolder((folder) => {
    const options = { qomType: "memory-backend-file", memPath: `${folder}/ram` } as const;
    assert.throws(() => openBackend(backendConfig({ ...options, size: 2 ** 46 })));
    assert.deepEqual([...Deno.readDirSync(folder)], []);
    Deno.writeTextFileSync(options.memPath, "somebody's");
    assert.throws(() => openBackend(backendConfig(options)));
    assert.equal(Deno.readTextFileSync(options.memPath), "somebody's");
  });
});

Deno.test("a backend whose file is cut off says so at each access", async () => {
  await withFolder((folder) => {
    const memPath = `${folder}/ram`;
    withBackend({ qomType: "memory-backend-file", memPath }, (ram) => {
      const memory = new GuestMemory(ram);
      Deno.truncateSync(memPath, 4096);
      assert.deepEqual(memory.read(4094, 2), Uint8Array.of(0, 0));
      assert.throws(() => memory.read(4094, 4), {
        name: "MemoryLost",
        message: /^No memory is behind guest RAM 'ram0': /,
      });
      assert.throws(() => memory.write(8192, word), MemoryLost);
      assert.throws(() => memory.zero(8192, BACKEND_SIZE - 8192), MemoryLost);
      assert.throws(() => ram.mapping.isZero(0, BACKEND_SIZE), MemoryLost);
      assert.throws(() => ram.mapping.populate(), MemoryLost);
      using file = openFile(`${folder}/other`, O.RDWR | O.CREAT);
      writeAll(file.fd, new Uint8Array(BACKEND_SIZE));
      assert.throws(() => memory.readFrom(file.fd, 0, 8192, 4096), MemoryLost);
      assert.throws(() => memory.writeTo(file.fd, 0, 8192, 4096), MemoryLost);
    });
  });
});

for (const [when, options, message] of failures) {
  Deno.test(`\`openBackend()\` says what is wrong and leaves nothing open when ${when}`, () => {
    const before = openFiles(Deno.pid);
    assert.throws(() => openBackend(backendConfig(options)), { message });
    assert.deepEqual(newlyOpen(before), []);
  });
}

Deno.test("`openBackend()` refuses a file that is too small for `size`", async () => {
  await withFolder((folder) => {
    const memPath = `${folder}/ram`;
    Deno.writeFileSync(memPath, new Uint8Array(4096));
    const before = openFiles(Deno.pid);
    assert.throws(() => openBackend(backendConfig({ qomType: "memory-backend-file", memPath })), {
      message: "backing store size 0x1000 does not match 'size' option 0x100000",
    });
    assert.deepEqual(newlyOpen(before), []);
    assert.equal(Deno.statSync(memPath).size, 4096);
  });
});

Deno.test("`openBackend()` maps what a predecessor left, as it left it", () => {
  const kept = makeMemfd("kept", BACKEND_SIZE, { sealing: true });
  writeAll(kept.fd, word);
  const { fd, mapping } = openBackend(backendConfig({ prealloc: true }), kept);
  assert.equal(fd, kept);
  assert.deepEqual(mapping.read(0, 4), word);
  // Allocating all of it again would only take time.
  assert.ok(fileStatus(kept.fd).allocated < BACKEND_SIZE);
  mapping.close();
  kept.close();
});

Deno.test("`openBackend()` refuses what a predecessor left when it is too small", () => {
  const kept = makeMemfd("kept", BACKEND_SIZE / 2);
  const { fd } = kept;
  assert.throws(() => openBackend(backendConfig({}), kept), {
    message: "Size mismatch: ram0: 0x80000 != 0x100000",
  });
  assert.equal(isOpen(fd), false);
});

Deno.test("`GuestMemory` is in one piece up to 3 GiB", () => {
  withBackend({ qomType: "memory-backend-ram", share: false, size: LOW_RAM_LIMIT }, (ram) => {
    const memory = new GuestMemory(ram);
    assert.deepEqual(memory.regions.map(({ name, gpa, size }) => [name, gpa, size]), [
      ["ram-below-4g", 0, LOW_RAM_LIMIT],
    ]);
    assert.equal(memory.size, LOW_RAM_LIMIT);
  });
});

Deno.test("`GuestMemory` goes on at 4 GiB when there is more than 3 GiB", () => {
  const size = LOW_RAM_LIMIT + BACKEND_SIZE;
  withBackend({ qomType: "memory-backend-ram", share: false, size }, (ram) => {
    const memory = new GuestMemory(ram);
    assert.deepEqual(memory.regions.map((r) => [r.name, r.gpa, r.size, r.offset]), [
      ["ram-below-4g", 0, LOW_RAM_LIMIT, 0],
      ["ram-above-4g", HIGH_RAM_START, BACKEND_SIZE, LOW_RAM_LIMIT],
    ]);
    memory.write(HIGH_RAM_START + BACKEND_SIZE - 4, word);
    assert.deepEqual(ram.mapping.read(size - 4, 4), word);
    assert.deepEqual(memory.read(HIGH_RAM_START + BACKEND_SIZE - 4, 4), word);
    assert.equal(memory.contains(LOW_RAM_LIMIT - 1, 1), true);
    assert.equal(memory.contains(LOW_RAM_LIMIT - 1, 2), false);
    assert.equal(memory.contains(HIGH_RAM_START - 1, 2), false);
  });
});

Deno.test("`GuestMemory` refuses what is not all memory, and touches nothing", () => {
  withBackend({}, (ram) => {
    const memory = new GuestMemory(ram);
    const outside = [[BACKEND_SIZE - 2, 4], [BACKEND_SIZE, 1], [-1, 2], [NaN, 1], [
      0,
      BACKEND_SIZE + 1,
    ], [2 ** 60, 1]];
    for (const [gpa, length] of outside) {
      assert.throws(() => memory.read(gpa, length), RangeError);
      assert.throws(() => memory.zero(gpa, length), RangeError);
      assert.throws(() => memory.readFrom(0, 0, gpa, length), RangeError);
      assert.throws(() => memory.writeTo(1, 0, gpa, length), RangeError);
    }
    assert.throws(() => memory.write(BACKEND_SIZE - 2, word), {
      name: "RangeError",
      message: "Guest range of 4 bytes at 0xffffe is not memory",
    });
    assert.deepEqual(memory.read(BACKEND_SIZE - 2, 2), new Uint8Array(2));
  });
});

Deno.test("`zero()`, `readFrom()` and `writeTo()` work in place", async () => {
  await withFolder((folder) => {
    Deno.writeFileSync(`${folder}/in`, new Uint8Array(8192).fill(9));
    withBackend({}, (ram) => {
      const memory = new GuestMemory(ram);
      using input = openFile(`${folder}/in`, O.RDONLY);
      assert.equal(memory.readFrom(input.fd, 4096, 0x1000, 4096), 4096);
      assert.equal(memory.readFrom(input.fd, 8000, 0x3000, 4096), 192);
      memory.zero(0x1004, 4);
      memory.zero(BACKEND_SIZE, 0);
      using output = openFile(`${folder}/out`, O.RDWR | O.CREAT);
      memory.writeTo(output.fd, 2, 0x1002, 8);
    });
    assert.deepEqual(
      Deno.readFileSync(`${folder}/out`),
      Uint8Array.of(0, 0, 9, 9, 0, 0, 0, 0, 9, 9),
    );
  });
});

Deno.test("`addRom()` adds a region that the guest can only read", () => {
  withBackend({}, (ram) => {
    withBackend({ id: "rom", size: 0x10000 }, (rom) => {
      const memory = new GuestMemory(ram);
      memory.addRom("pc.bios", 0xffff_0000, rom);
      memory.write(0xffff_fff0, word);
      assert.deepEqual(rom.mapping.read(0xfff0, 4), word);
      assert.deepEqual(memory.regions.map(({ readonly }) => readonly), [false, true]);
    });
  });
});
