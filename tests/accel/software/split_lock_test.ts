/** Operands with LOCK that cross a word of eight bytes or a page: the other CPUs stand still meanwhile. */
import assert from "node:assert/strict";
import { makeMemfd, mapOver, mapShared } from "../../../ffi/memory.ts";
import { COMMON_ADDRESS, COMMON_SIZE, STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";
import type { SplitLockOrder } from "./split_lock_worker.ts";

const RAM = 4 << 20;
const HLT = 0xf4;
const RCX = 1;
/** In the CPUs' common pages (core/sharing.ts): who has stopped the others, and who is inside. */
const STOPPED_BY = 4;
const INSIDE = 0x100;
const [OWN, OTHER] = [1, 2];
/** Long enough for a CPU that does not wait to be through; one that waits proves nothing by it. */
const HELD_MS = 50;

/** One of several CPUs, and what the others do while it waits for them. */
function oneOfTwo(whileStopping: (cpu: TestCore) => void): TestCore {
  using shared = makeMemfd("test-common", COMMON_SIZE);
  const cpu: TestCore = new TestCore(RAM, {
    flushOthers: () => {
      // Code that is decoded for the first time is another reason.
      if (common[STOPPED_BY] === OWN) whileStopping(cpu);
    },
  });
  const bytes = new Uint8Array(cpu.core.memory.buffer as ArrayBuffer);
  mapOver(bytes.subarray(COMMON_ADDRESS, COMMON_ADDRESS + COMMON_SIZE), shared.fd, 0);
  const common = bytes.subarray(COMMON_ADDRESS, COMMON_ADDRESS + COMMON_SIZE);
  cpu.state.cpu_bit = 1;
  cpu.state.cpu_number = OWN;
  cpu.enterLongMode();
  return cpu;
}

const words = (cpu: TestCore) => new DataView(cpu.ram.buffer, cpu.ram.byteOffset);

for (const [what, address] of [["a word of eight bytes", 0x8006], ["a page", 0x8ffe]] as const) {
  Deno.test(`an operand with LOCK that crosses ${what} keeps what others store meanwhile`, () => {
    let stops = 0;
    const cpu = oneOfTwo((cpu) => {
      // The other CPU comes to its end of a block, having stored to the second half.
      if (stops++ === 0) words(cpu).setUint16(address + 2, 0x1111, true);
    });
    // lock add [0x8006], ecx; hlt
    cpu.load(0x1000, [0xf0, 0x01, 0x0c, 0x25, address & 0xff, address >> 8, 0, 0, HLT]);
    words(cpu).setUint32(address, 0x0001_ffff, true);
    cpu.state.gpr.put(RCX, 1n);
    assert.equal(cpu.run(0x1000), STOP.halt);
    assert.equal(words(cpu).getUint32(address, true), 0x1112_0000);
    assert.equal(stops, 2, "what was read before the others had stopped was not read again");
  });
}

Deno.test("an operand with LOCK in one word, or without LOCK, stops nobody", () => {
  const cpu = oneOfTwo(() => assert.fail("the others were stopped"));
  // lock add [0x8002], ecx; add [0x8006], ecx; hlt
  cpu.load(0x1000, [
    ...[0xf0, 0x01, 0x0c, 0x25, 0x02, 0x80, 0, 0],
    ...[0x01, 0x0c, 0x25, 0x06, 0x80, 0, 0, HLT],
  ]);
  cpu.state.gpr.put(RCX, 1n);
  assert.equal(cpu.run(0x1000), STOP.halt);
});

Deno.test("the others go on after an operand with LOCK that faults in its second page", () => {
  const cpu = oneOfTwo(() => {});
  // The second page is read-only: lock add [0x1ffffe], ecx
  const entry = RAM - 0x10000 + 0x2000 + 8;
  words(cpu).setBigUint64(entry, words(cpu).getBigUint64(entry, true) & ~2n, true);
  cpu.load(0x1000, [0xf0, 0x01, 0x0c, 0x25, 0xfe, 0xff, 0x1f, 0, HLT]);
  cpu.state.cr0 |= 1n << 16n;
  cpu.core.exports.refresh();
  cpu.state.rip = 0x1000n;
  assert.equal(cpu.core.runToFault(100), false);
  cpu.core.exports.goOutside();
  const common = new Uint8Array(cpu.core.memory.buffer, COMMON_ADDRESS, COMMON_SIZE);
  assert.equal(common[STOPPED_BY], 0);
  assert.equal(common[INSIDE + OWN], 0);
});

Deno.test("a CPU accesses no RAM while another has stopped it, and goes on after that", async () => {
  using ramFd = makeMemfd("test-ram", RAM);
  using commonFd = makeMemfd("test-common", COMMON_SIZE);
  using ram = mapShared(ramFd.fd, RAM);
  using common = mapShared(commonFd.fd, COMMON_SIZE);
  // mov eax, [0x8000]; hlt
  ram.write(0x1000, Uint8Array.of(0x8b, 0x04, 0x25, 0, 0x80, 0, 0, HLT));
  const stoppedBy = new Uint32Array(common.bytes.buffer, common.bytes.byteOffset + STOPPED_BY, 1);
  Atomics.store(stoppedBy, 0, OWN);
  const worker = new Worker(new URL("./split_lock_worker.ts", import.meta.url), { type: "module" });
  const messages: (string | bigint)[] = [];
  let next = Promise.withResolvers<void>();
  worker.onmessage = ({ data }: MessageEvent<string | bigint>) => {
    messages.push(data);
    next.resolve();
    next = Promise.withResolvers<void>();
  };
  const ended = Promise.withResolvers<never>();
  worker.onerror = (event) => {
    event.preventDefault();
    ended.reject(new Error(event.message));
  };
  const order: SplitLockOrder = {
    ramFd: ramFd.fd,
    commonFd: commonFd.fd,
    ramSize: RAM,
    number: OTHER,
    rip: 0x1000,
  };
  const arrived = next.promise;
  worker.postMessage(order);
  await Promise.race([arrived, ended.promise]);
  await new Promise((resolve) => setTimeout(resolve, HELD_MS));
  ram.write(0x8000, Uint8Array.of(7));
  const halted = next.promise;
  assert.deepEqual(messages, ["runs"]);
  Atomics.store(stoppedBy, 0, 0);
  await Promise.race([halted, ended.promise]);
  assert.deepEqual(messages, ["runs", 7n]);
  assert.equal(common.bytes[INSIDE + OTHER], 0);
});
