import assert from "node:assert/strict";
import { duplicate, fileStatus } from "../../ffi/fd.ts";
import { makeMemfd, mapShared } from "../../ffi/memory.ts";
import { defaultConfig, type MachineConfig, type MemoryBackendConfig } from "../../vmm/config.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import { GuestMemory } from "../../vmm/machine/guest_memory.ts";
import { DEFAULT_RAM_ID, MemorySet, ROM_ID } from "../../vmm/machine/memory_set.ts";

const SIZE = 1 << 16;
const { machine } = defaultConfig();

function config(changes: Partial<MachineConfig> = {}): MachineConfig {
  return { ...defaultConfig(), memory: SIZE, ...changes };
}

function object(id: string, changes: Partial<MemoryBackendConfig> = {}): MemoryBackendConfig {
  return {
    ...{ qomType: "memory-backend-memfd", id, size: SIZE, share: true, seal: true },
    ...{ prealloc: false, hugetlb: false, readonly: false },
    ...changes,
  };
}

/** What a set hands over, in an inheritance of duplicates. */
function inheritedFrom(set: MemorySet): Inheritance {
  const inheritance = new Inheritance(false);
  for (const { name, id, fd } of set.handOver().fds) inheritance.addFd(name, id, duplicate(fd));
  return inheritance;
}

/** Runs `use` with a set that is closed afterwards. */
function withSet<T>(use: (set: MemorySet) => T): T {
  const set = new MemorySet();
  try {
    return use(set);
  } finally {
    set.close();
  }
}

Deno.test("a memory set hands over all that is shared, and takes it over as it was", () => {
  const wanted = config({ objects: [object("extra"), object("own", { share: false })], bios: "x" });
  withSet((old) => {
    old.open(wanted);
    const rom = old.openRom(4096);
    old.ram(wanted).mapping.write(100, Uint8Array.of(1, 2, 3));
    rom.mapping.write(0, Uint8Array.of(9));
    assert.deepEqual(old.handOver().fds.map(({ name, id }) => `${name} ${id}`), [
      "memory extra",
      `memory ${DEFAULT_RAM_ID}`,
      `memory ${ROM_ID}`,
    ]);
    const inheritance = inheritedFrom(old);
    using _rest = inheritance;
    withSet((next) => {
      next.open(config({ objects: [object("extra")], bios: "x" }), inheritance);
      const ram = next.ram(wanted);
      assert.ok(ram.inherited);
      assert.deepEqual([...ram.mapping.read(100, 3)], [1, 2, 3]);
      assert.equal(fileStatus(ram.fd!.fd).ino, fileStatus(old.ram(wanted).fd!.fd).ino);
      assert.deepEqual([...next.openRom(4096).mapping.read(0, 1)], [9]);
      inheritance.checkEmpty();
    });
  });
});

Deno.test("a memory set names the memory that no successor can map", () => {
  const objects = [object("a", { share: false }), object("b", { qomType: "memory-backend-ram" })];
  const say = (id: string) =>
    `Memory region ${id} is not compatible with CPR. share=on is required for memory-backend` +
    " objects, and aux-ram-share=on is required.";
  withSet((set) => {
    set.open(config({ objects, machine: { ...machine, auxRamShare: false } }));
    assert.deepEqual(set.blockers(), [say("a"), say(DEFAULT_RAM_ID)]);
  });
});

Deno.test("`makeMappable()` lets private memory be mapped again, and keeps it private", async () => {
  const memPath = await Deno.makeTempFile({ prefix: "denovo-memory-" });
  try {
    const offset = 4096, text = Uint8Array.of(1, 2, 3);
    Deno.truncateSync(memPath, offset + SIZE);
    using file = Deno.openSync(memPath, { write: true });
    file.seekSync(offset + 100, Deno.SeekMode.Start);
    file.writeSync(text);
    const qomType = "memory-backend-file";
    const objects = [
      object("memfd", { share: false, prealloc: true }),
      object("file", { qomType, memPath, offset, share: false }),
      object("read", { qomType, memPath, offset, share: false, readonly: true }),
      object("shared"),
    ];
    const wanted = config({ objects, machine: { ...machine, auxRamShare: false } });
    withSet((set) => {
      set.open(wanted);
      const shared = set.backends.get("shared");
      const before = set.blockers();
      set.makeMappable(wanted);
      assert.equal(set.backends.get("shared"), shared);
      assert.deepEqual(set.blockers(), before);
      assert.deepEqual(set.handOver().fds.map(({ id }) => id), ["shared"]);
      for (const id of ["memfd", "file", "read", DEFAULT_RAM_ID]) {
        const { fd, mapping, mappable } = set.backends.get(id)!;
        assert.equal(mappable, true, id);
        assert.equal(mapping.size, SIZE, id);
        using again = mapShared(fd!.fd, SIZE);
        const isFile = id === "file" || id === "read";
        assert.deepEqual(again.read(100, 3), isFile ? text : new Uint8Array(3), id);
        mapping.write(200, Uint8Array.of(7));
        assert.deepEqual(again.read(200, 1), Uint8Array.of(7), id);
        if (id === "memfd") assert.equal(fileStatus(fd!.fd).allocated, SIZE);
      }
      const ram = new GuestMemory(
        set.ram({ ...wanted, machine: { ...machine, memoryBackend: "file" } }),
      );
      assert.equal(ram.regions[0].file!.offset, 0);
      assert.equal(ram.regions[0].pages, "shared");
    });
    assert.deepEqual(
      Deno.readFileSync(memPath).subarray(offset + 200, offset + 201),
      new Uint8Array(1),
    );
  } finally {
    await Deno.remove(memPath);
  }
});

Deno.test("`makeMappable()` says what memory there is no room for", () => {
  withSet((set) => {
    const wanted = config({ objects: [object("a", { share: false })] });
    set.open(wanted);
    const a = set.backends.get("a")!;
    set.backends.set("a", { ...a, config: { ...a.config, size: 2 ** 62 } });
    assert.throws(
      () => set.makeMappable(wanted),
      /^Error: Cannot allocate \d+ bytes of guest RAM 'a': /,
    );
  });
});

Deno.test("a memory set refuses what is missing, unknown or not memory", () => {
  const cases: [objects: MemoryBackendConfig[], given: string[], message: string][] = [
    [[], [], `Memory backend '${DEFAULT_RAM_ID}' was not passed by the old VMM`],
    [
      [object("a", { share: false })],
      ["a", DEFAULT_RAM_ID],
      "Memory backend 'a' was not passed by the old VMM",
    ],
    [[], [DEFAULT_RAM_ID, "a"], 'Unknown ramblock "a", cannot accept migration'],
    [[], [DEFAULT_RAM_ID, ROM_ID], `Unknown ramblock "${ROM_ID}", cannot accept migration`],
    [[object("a"), object("a")], ["a"], "Duplicate ID 'a' for object"],
  ];
  for (const [objects, given, message] of cases) {
    using inheritance = new Inheritance(false);
    for (const id of given) inheritance.addFd("memory", id, makeMemfd("m", SIZE));
    withSet((set) => {
      assert.throws(() => set.open(config({ objects }), inheritance), { message });
    });
  }
  using inheritance = new Inheritance(false);
  inheritance.addFd("memory", DEFAULT_RAM_ID, makeMemfd("m", SIZE, { sealing: true }));
  withSet((set) => {
    assert.throws(() => set.open(config(), inheritance), {
      message: `File descriptor 'memory' ${DEFAULT_RAM_ID} can shrink: ` +
        "it lacks the seal F_SEAL_SHRINK",
    });
  });
  withSet((set) => {
    const named = config({ machine: { ...machine, memoryBackend: "x" }, objects: [object("y")] });
    set.open(named);
    assert.throws(() => set.ram(named), { message: "Memory backend 'x' not found" });
  });
});
