import assert from "node:assert/strict";
import { fileStatus } from "../../ffi/fd.ts";
import { RamLoader, ramSections } from "../../cpr/state/ram.ts";
import type { Section } from "../../cpr/stream/stream.ts";
import type { MemoryBackendConfig } from "../../vmm/config.ts";
import { GuestMemory, openBackend } from "../../vmm/machine/guest_memory.ts";

const MIB = 1 << 20;

function withMemory(sizeMib: number, run: (memory: GuestMemory) => void): void {
  const config: MemoryBackendConfig = {
    qomType: "memory-backend-memfd",
    id: "ram0",
    size: sizeMib * MIB,
    share: true,
    prealloc: false,
    hugetlb: false,
    readonly: false,
    seal: true,
  };
  const ram = openBackend(config);
  try {
    run(new GuestMemory(ram));
  } finally {
    ram.mapping.close();
    ram.fd?.close();
  }
}

function load(memory: GuestMemory, sections: Iterable<Section>): void {
  const loader = new RamLoader(memory, false);
  for (const section of sections) assert.equal(loader.take(section), true);
  loader.finish();
}

/** A piece of zeros, as a stream has it. */
function zeros(id: string, offset: number, length: number): Section {
  const data = new Uint8Array(new BigUint64Array([BigInt(offset), BigInt(length)]).buffer);
  return { name: "ram/zero", id, version: 1, data };
}

const announcement: Section = {
  name: "capabilities",
  id: "",
  version: 1,
  data: Uint8Array.of(0),
};

Deno.test("RAM goes through a stream to a VM of the same size", () => {
  withMemory(4, (from) => {
    const end = 4 * MIB - 8;
    from.write(0, Uint8Array.of(1, 2, 3));
    from.write(end, Uint8Array.of(4, 5, 6));
    withMemory(4, (to) => {
      load(to, ramSections(from, { total: 0, duplicate: 0, normal: 0 }, false));
      assert.deepEqual(to.read(0, 3), Uint8Array.of(1, 2, 3));
      assert.deepEqual(to.read(end, 3), Uint8Array.of(4, 5, 6));
    });
  });
});

Deno.test("what has no memory gets none by being saved, nor by being loaded", () => {
  withMemory(64, (from) => {
    for (const mib of [0, 33, 63]) from.write(mib * MIB + 5000, Uint8Array.of(mib + 1));
    const allocated = (memory: GuestMemory) => fileStatus(memory.ram.fd!.fd).allocated;
    const statistics = { total: 0, duplicate: 0, normal: 0 };
    withMemory(64, (to) => {
      load(to, ramSections(from, statistics, false));
      for (const mib of [0, 33, 63]) {
        assert.deepEqual(to.read(mib * MIB + 5000, 1), Uint8Array.of(mib + 1));
      }
      assert.ok(allocated(to) < 16 * MIB, `${allocated(to)}`);
    });
    assert.deepEqual(statistics, {
      total: 64 * MIB,
      duplicate: 61 * MIB / 4096,
      normal: 3 * MIB / 4096,
    });
    assert.ok(allocated(from) < 16 * MIB, `${allocated(from)}`);
  });
});

const mismatches: [came: number, own: number, message: string][] = [
  [8, 4, "Size mismatch: ram-below-4g: 0x800000 != 0x400000"],
  [4, 8, "Size mismatch: ram-below-4g: 0x400000 != 0x800000"],
  // From here on RAM is in two pieces.
  [3073, 3072, "Size mismatch: ram-above-4g: 0x100000 != 0x0"],
  [3072, 3073, "RAM of 'ram-above-4g' is missing from the stream: 0 of 1048576 bytes came"],
  [5120, 4, "Size mismatch: ram-below-4g: 0xc0000000 != 0x400000"],
  [4, 5120, "Size mismatch: ram-below-4g: 0x400000 != 0xc0000000"],
  [5120, 4096, "Size mismatch: ram-above-4g: 0x80000000 != 0x40000000"],
];

for (const [came, own, message] of mismatches) {
  Deno.test(`${came} MiB of RAM are refused by a VM with ${own}, which says both sizes`, () => {
    const low = Math.min(came, 3072);
    const sections = [announcement, zeros("ram-below-4g", 0, low * MIB)];
    if (came > low) sections.push(zeros("ram-above-4g", 0, (came - low) * MIB));
    withMemory(own, (memory) => {
      assert.throws(() => load(memory, sections), { name: "StateError", message });
      // Nothing that does not belong there was written.
      assert.equal(memory.regions[0].mapping.isZero(0, 4096), true);
    });
  });
}

Deno.test("RAM with a gap, of another place or without end is refused", () => {
  withMemory(4, (memory) => {
    const refusals: [Section, RegExp][] = [
      [zeros("ram-below-4g", 4096, 4096), /has 4096 bytes at 4096, expected some at 0$/],
      [zeros("ram-below-4g", 0, 0), /has 0 bytes at 0, expected some at 0$/],
      [zeros("ram-below-4g", 0, 2 ** 53), /expected some at 0$/],
      [zeros("ram-beside", 0, 4096), /^Unknown ramblock "ram-beside"/],
    ];
    for (const [section, message] of refusals) {
      assert.throws(() => load(memory, [announcement, section]), { message });
    }
  });
});
