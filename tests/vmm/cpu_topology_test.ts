import assert from "node:assert/strict";
import { apicId, apicIdShifts, cpuPlace } from "../../vmm/cpu/topology.ts";

const ids = (topology: Parameters<typeof apicId>[0], count: number) =>
  Array.from({ length: count }, (_, i) => apicId(topology, i));

Deno.test("apicId() equals the index when all counts are powers of two", () => {
  assert.deepEqual(ids({ sockets: 2, dies: 1, cores: 2, threads: 2 }, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(ids({ sockets: 4, dies: 1, cores: 1, threads: 1 }, 4), [0, 1, 2, 3]);
});

Deno.test("apicId() leaves gaps when a count is no power of two", () => {
  const topology = { sockets: 2, dies: 1, cores: 3, threads: 2 };
  assert.deepEqual(apicIdShifts(topology), { core: 1, die: 3, socket: 3 });
  assert.deepEqual(ids(topology, 12), [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
});

Deno.test("apicId() has a field for the die when there are several", () => {
  const topology = { sockets: 2, dies: 3, cores: 2, threads: 1 };
  assert.deepEqual(apicIdShifts(topology), { core: 0, die: 1, socket: 3 });
  assert.deepEqual(ids(topology, 12), [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
  assert.deepEqual(cpuPlace(topology, 9), { socket: 1, die: 1, core: 1, thread: 0 });
});

Deno.test("apicId() throws when the id would not fit an xAPIC", () => {
  const flat = { sockets: 1, dies: 1, cores: 256, threads: 1 };
  assert.equal(apicId(flat, 254), 254);
  assert.throws(() => apicId(flat, 255), /CPU 255 would have APIC ID 255 but 254 is the highest/);
  const sparse = { sockets: 64, dies: 1, cores: 3, threads: 3 };
  assert.equal(apicId(sparse, 134), 14 * 16 + 2 * 4 + 2);
  assert.throws(() => apicId(sparse, 9 * 16), /CPU 144 would have APIC ID 256/);
});
