/** What a process has open after VMs have come and gone. */
import assert from "node:assert/strict";
import { kvmTest, TestVm, until, type VmOptions } from "./harness.ts";

const WARM_UP = 12;
const ROUNDS = 200;
const RAM = 64 << 20;

/** What a leak would make grow. */
interface Inventory {
  readonly fds: number;
  readonly threads: number;
  /** Mappings of files, memfds and KVM's pages. */
  readonly fileMaps: number;
  /**
   * Writable anonymous memory in bytes; the JavaScript heap is the larger part of it, and moves.
   * What is only reserved (heaps, allocators' arenas) comes and goes in large steps.
   */
  readonly anonymous: number;
}

function takeInventory(): Inventory {
  const count = (path: string) => [...Deno.readDirSync(path)].length;
  const maps = Deno.readTextFileSync("/proc/self/maps").split("\n").slice(0, -1)
    .map((line) => line.split(/\s+/));
  const isFile = ([, , , , , name]: string[]) => name !== "" && !name.startsWith("[");
  const size = ([range]: string[]) => {
    const [start, end] = range.split("-").map((text) => parseInt(text, 16));
    return end - start;
  };
  return {
    fds: count("/proc/self/fd"),
    threads: count("/proc/self/task"),
    fileMaps: maps.filter(isFile).length,
    anonymous: maps.filter((map) => !isFile(map) && map[1].startsWith("rw"))
      .reduce((sum, map) => sum + size(map), 0),
  };
}

/** Waits until nothing is left that was not there before: threads take a moment to end. */
async function assertNoMoreThan(before: Inventory): Promise<void> {
  let now = before;
  const settled = () => {
    now = takeInventory();
    return now.fds <= before.fds && now.threads <= before.threads &&
      now.fileMaps <= before.fileMaps && now.anonymous < before.anonymous + RAM;
  };
  const show = (inventory: Inventory) => JSON.stringify(inventory);
  await until(settled, () => `${show(now)} to become no more than ${show(before)}`);
}

/** The same again and again, with an inventory after the first few rounds and at the end. */
async function repeat(round: (number: number) => Promise<void>, rounds = ROUNDS): Promise<void> {
  for (let number = 0; number < WARM_UP; number++) await round(number);
  // The highest of several looks: threads and descriptors of the runtime's own come and go.
  const looks: Inventory[] = [];
  for (let number = 0; number < WARM_UP; number++) {
    await round(number);
    looks.push(takeInventory());
  }
  const lowest = (key: keyof Inventory) => Math.min(...looks.map((look) => look[key]));
  const before: Inventory = {
    fds: lowest("fds"),
    threads: Math.max(...looks.map((look) => look.threads)),
    fileMaps: lowest("fileMaps"),
    anonymous: lowest("anonymous"),
  };
  for (let number = 0; number < rounds; number++) await round(number);
  await assertNoMoreThan(before);
}

const backend = { share: false, prealloc: false, hugetlb: false, readonly: false, seal: true };

/** Machines that differ in what they open. */
const machines: VmOptions[] = [
  { program: "hello" },
  { program: "hello", cpus: 2, machine: { auxRamShare: false } },
  { program: "modes", machine: { rtc: true } },
  {
    program: "hello",
    memory: RAM,
    machine: { memoryBackend: "ram" },
    objects: [
      { ...backend, qomType: "memory-backend-file", memPath: "/tmp", id: "ram", size: RAM },
    ],
    chardevs: [{ backend: "pty", id: "pty" }, { backend: "null", id: "null" }],
    debugcon: "pty",
  },
];

kvmTest(`${ROUNDS} VMs that ran and were closed leave nothing open`, async () => {
  await repeat(async (number) => {
    await using test = await TestVm.start(machines[number % machines.length]);
    await test.ended();
  });
});

kvmTest(
  "VMs that are closed while they run, or before they start, leave nothing open",
  async () => {
    await repeat(async (number) => {
      const test = await TestVm.create({ program: "smp", cpus: 1 + number % 2 });
      if (number % 4 >= 2) test.vm.start();
      await test[Symbol.asyncDispose]();
    }, 60);
  },
);

const overlapping = { driver: "isa-debugcon", properties: { iobase: 0x3ff, chardev: "console" } };

/** What cannot be created, and why. */
const failures: [VmOptions, RegExp][] = [
  [{ kernel: "/nonexistent" }, /could not open kernel '\/nonexistent': No such file or directory/],
  [{ program: "hello", initrd: "/tmp" }, /could not load initrd '\/tmp': it is a directory/],
  [{ bios: "/dev/null" }, /'\/dev\/null'/],
  [{}, /there is nothing to boot/],
  [{ program: "hello", devices: [overlapping] }, /Device range '.*' at 0x3ff overlaps 'serial'/],
  [{ program: "hello", debugcon: "none" }, /Chardev 'none' not found/],
  [{ program: "hello", cpus: 100_000 }, /./],
  [{ program: "hello", memory: 4096 }, /does not fit into RAM/],
  [{ program: "hello", machine: { memoryBackend: "ram" } }, /./],
  [
    { program: "hello", chardevs: [{ backend: "pipe", id: "pipe", path: "/nonexistent" }] },
    /Could not open|Failed to open/,
  ],
  [
    {
      program: "hello",
      machine: { memoryBackend: "ram" },
      objects: [
        {
          ...backend,
          qomType: "memory-backend-file",
          memPath: "/dev/null/x",
          id: "ram",
          size: RAM,
        },
      ],
    },
    /can't open backing store \/dev\/null\/x/,
  ],
];

kvmTest("VMs that cannot be created leave nothing open", async () => {
  await repeat(async () => {
    for (const [options, message] of failures) {
      await assert.rejects(TestVm.create(options), message);
    }
  }, 20);
});
