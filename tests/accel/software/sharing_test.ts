import assert from "node:assert/strict";
import { makeMemfd, mapOver, mapShared } from "../../../ffi/memory.ts";
import {
  ATTENTION,
  COMMON_ADDRESS,
  COMMON_SIZE,
  RAM_ADDRESS,
  STOP,
} from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const RAM = 4 << 20;
const HLT = 0xf4;

/** Two CPUs in long mode that share RAM, each telling the other to flush. */
function twoCpus(): [TestCore, TestCore] {
  const cpus: TestCore[] = [];
  using ram = makeMemfd("test-ram", RAM);
  using common = makeMemfd("test-common", COMMON_SIZE);
  for (const index of [0, 1]) {
    const cpu = new TestCore(RAM, {
      flushOthers: () => {
        cpus[1 - index].state.attention |= ATTENTION.flush;
      },
    });
    const bytes = new Uint8Array(cpu.core.memory.buffer as ArrayBuffer);
    mapOver(bytes.subarray(RAM_ADDRESS, RAM_ADDRESS + RAM), ram.fd, 0);
    mapOver(bytes.subarray(COMMON_ADDRESS, COMMON_ADDRESS + COMMON_SIZE), common.fd, 0);
    cpu.state.cpu_bit = 1 << index;
    cpus.push(cpu);
    cpu.enterLongMode();
  }
  return cpus as [TestCore, TestCore];
}

function run(cpu: TestCore, rip: number): void {
  cpu.state.mp_state = 0;
  assert.equal(cpu.run(rip), STOP.halt);
}

Deno.test("code that another CPU writes is executed as written, without anything in between", () => {
  const [executes, writes] = twoCpus();
  executes.load(0x5000, [0xb8, 1, 0, 0, 0, HLT]);
  // mov [0x5001], cl; hlt
  executes.load(0x6000, [0x88, 0x0c, 0x25, 1, 0x50, 0, 0, HLT]);
  writes.state.gpr.put(1, 7n);
  // It may write the page the quick way before anyone has code there.
  run(writes, 0x6000);
  run(executes, 0x5000);
  assert.equal(executes.state.gpr.at(0), 7n);
  for (const value of [8n, 9n, 10n]) {
    writes.state.gpr.put(1, value);
    run(writes, 0x6000);
    run(executes, 0x5000);
    assert.equal(executes.state.gpr.at(0), value);
  }
});

Deno.test("a store that comes between decoding and the writer's next block is noticed", () => {
  const [executes, writes] = twoCpus();
  executes.load(0x5000, [0xb8, 1, 0, 0, 0, HLT]);
  // mov [0x5001], cl; mov [0x5001], dl; out 1, al; hlt
  const store = [0x88, 0x0c, 0x25, 1, 0x50, 0, 0];
  executes.load(0x6000, [...store, 0xe6, 1, 0x88, 0x14, 0x25, 1, 0x50, 0, 0, HLT]);
  writes.state.gpr.put(1, 1n);
  writes.state.gpr.put(2, 5n);
  run(writes, 0x6000);
  run(executes, 0x5000);
  assert.equal(executes.state.gpr.at(0), 5n);
  // The page is known to have code now: the writer was told, and its next store tells in turn.
  writes.state.gpr.put(2, 6n);
  run(writes, 0x6000);
  run(executes, 0x5000);
  assert.equal(executes.state.gpr.at(0), 6n);
});

Deno.test("CMPXCHG16B exchanges both halves or gives what is there, and faults off its alignment", () => {
  const [cpu] = twoCpus();
  // lock cmpxchg16b [rsi]; hlt
  cpu.load(0x5000, [0xf0, 0x48, 0x0f, 0xc7, 0x0e, HLT]);
  const words = new BigUint64Array(cpu.ram.buffer, cpu.ram.byteOffset + 0x7000, 2);
  words.set([1n, 2n]);
  const set = (rax: bigint, rdx: bigint, rsi = 0x7000n) => {
    [rax, 4n, rdx, 3n].forEach((value, i) => cpu.state.gpr.put(i, value));
    cpu.state.gpr.put(6, rsi);
  };
  set(1n, 2n);
  run(cpu, 0x5000);
  assert.deepEqual([...words], [3n, 4n]);
  assert.equal(cpu.state.rflags & 0x40n, 0x40n);
  set(3n, 5n);
  run(cpu, 0x5000);
  assert.deepEqual([...words], [3n, 4n]);
  assert.deepEqual([cpu.state.gpr.at(0), cpu.state.gpr.at(2)], [3n, 4n]);
  assert.equal(cpu.state.rflags & 0x40n, 0n);
  set(3n, 4n, 0x7008n);
  cpu.state.mp_state = 0;
  cpu.state.rip = 0x5000n;
  assert.equal(cpu.core.runToFault(10), false);
  assert.deepEqual([cpu.state.fault_vector, cpu.state.fault_error_code], [13, 0]);
});

Deno.test("LOCK adds to operands on any alignment, and to nothing beside them", () => {
  const [cpu] = twoCpus();
  const sizes = [[1, [0xf0, 0x00, 0x06]], [2, [0x66, 0xf0, 0x01, 0x06]], [4, [0xf0, 0x01, 0x06]]];
  for (const [size, add] of [...sizes, [8, [0xf0, 0x48, 0x01, 0x06]]] as [number, number[]][]) {
    const code = 0x5000 + 16 * size;
    cpu.load(code, [...add, HLT]);
    for (let offset = 0; offset < 16; offset++) {
      const memory = cpu.ram.subarray(0x7000, 0x7020).fill(0xff);
      const expected = Uint8Array.from(memory).fill(0, offset, offset + size);
      expected[offset] = 1;
      cpu.state.gpr.put(0, 2n);
      cpu.state.gpr.put(6, BigInt(0x7000 + offset));
      run(cpu, code);
      assert.deepEqual(Uint8Array.from(memory), expected, `${size} bytes at ${offset}`);
      assert.equal(cpu.state.rflags & 1n, 1n, "carry");
    }
  }
});

Deno.test("what others store to half of a pair while CMPXCHG16B exchanges it is not lost", async () => {
  const added = 20_000_000;
  const cpu = new TestCore(RAM);
  using ram = makeMemfd("test-ram", RAM);
  using mapping = mapShared(ram.fd, RAM);
  const bytes = new Uint8Array(cpu.core.memory.buffer as ArrayBuffer);
  mapOver(bytes.subarray(RAM_ADDRESS, RAM_ADDRESS + RAM), ram.fd, 0);
  cpu.state.cpu_bit = 1;
  cpu.enterLongMode();
  const code = [
    // mov rax, [rsi]; mov rdx, [rsi + 8]; lea rbx, [rax + 1]; mov rcx, rdx
    ...[0x48, 0x8b, 0x06, 0x48, 0x8b, 0x56, 8, 0x48, 0x8d, 0x58, 1, 0x48, 0x89, 0xd1],
    // lock cmpxchg16b [rsi]; jne to lea; dec edi; jne to the beginning; hlt
    ...[0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0x75, 0xf2, 0xff, 0xcf, 0x75, 0xe7, HLT],
  ];
  cpu.load(0x5000, code);
  const source = `onmessage = ({ data }) => {
    const at = Deno.UnsafePointer.create(data);
    const words = new BigInt64Array(Deno.UnsafePointerView.getArrayBuffer(at, 16));
    for (let i = 0; i < ${added}; i++) Atomics.add(words, 1, 1n);
    postMessage(0);
  }`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  let ended = false;
  const end = new Promise<void>((resolve, reject) => {
    worker.onmessage = () => resolve();
    worker.onerror = (event) => reject(new Error(event.message));
  }).finally(() => ended = true);
  worker.postMessage(BigInt(mapping.address) + 0x7000n);
  let exchanged = 0;
  while (!ended) {
    cpu.state.gpr.put(6, 0x7000n);
    cpu.state.gpr.put(7, 10_000n);
    cpu.state.mp_state = 0;
    cpu.state.rip = 0x5000n;
    let stop: number = STOP.budget;
    while (stop === STOP.budget) stop = cpu.core.run(100_000);
    assert.equal(stop, STOP.halt);
    exchanged += 10_000;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await end;
  worker.terminate();
  URL.revokeObjectURL(url);
  const words = new BigUint64Array(cpu.ram.buffer, cpu.ram.byteOffset + 0x7000, 2);
  assert.deepEqual([...words], [BigInt(exchanged), BigInt(added)]);
});
