/** Chips that several threads use at once. */
import assert from "node:assert/strict";
import { kvmIoapicState, kvmIrqchip } from "../../../../ffi/kvm/structs.ts";
import { LAPIC, TestChips } from "./testing.ts";
import type { Task } from "./threads_worker.ts";

const VCPUS = 2;
const ROUNDS = 5_000;

Deno.test("interrupts between two threads are neither lost nor doubled", async () => {
  const chips = new TestChips(VCPUS);
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) chips.enable(vcpu);
  const words = new SharedArrayBuffer(4 * VCPUS);
  const workers = Array.from({ length: VCPUS }, (_, index) => {
    const worker = new Worker(new URL("threads_worker.ts", import.meta.url), { type: "module" });
    const taken = new Promise<number>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
    const task: Task = { buffer: chips.buffer, words, index, vcpus: VCPUS, rounds: ROUNDS };
    worker.postMessage(task);
    return { worker, taken };
  });
  try {
    // One interrupt goes round and round; the first one comes from here.
    chips.chipset.sendMsi(LAPIC, 0x50);
    const attention = new Int32Array(words);
    Atomics.store(attention, 0, 1);
    Atomics.notify(attention, 0);
    assert.deepEqual(await Promise.all(workers.map(({ taken }) => taken)), [ROUNDS, ROUNDS]);
  } finally {
    for (const { worker } of workers) worker.terminate();
  }
  // The last one is still there, and the line is down.
  assert.deepEqual([chips.take(0), chips.take(1)], [[0x50], []]);
  const { bytes } = kvmIrqchip.alloc({ chip_id: 2 });
  chips.chipset.saveIrqchip(bytes);
  assert.equal(kvmIoapicState.view(bytes.buffer, kvmIrqchip.offsets.chip).irr, 0);
});
