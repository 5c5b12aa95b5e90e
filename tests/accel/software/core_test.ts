import assert from "node:assert/strict";
import { STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const HLT = 0xf4;
/** The bytes of a displacement or an address. */
const dword = (value: number) => new Uint8Array(Int32Array.of(value).buffer);

Deno.test("run() executes a loop in long mode to its HLT, in slices", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  // mov ecx, 100000; l: add rax, rcx; dec rcx; jnz l; hlt
  cpu.load(0x1000, [0xb9, 0xa0, 0x86, 1, 0, 0x48, 1, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8, HLT]);
  assert.equal(cpu.run(0x1000, 1000), STOP.budget);
  while (cpu.core.run(10_000) === STOP.budget);
  assert.equal(cpu.state.gpr.at(0), 5_000_050_000n);
  assert.equal(cpu.state.rip, 0x100en);
});

Deno.test("run() executes real-mode code by segments", () => {
  const cpu = new TestCore();
  cpu.setSegment(1, 0x100, 0x1000n, 0xffff, 0x9b);
  cpu.setSegment(3, 0x200, 0x2000n, 0xffff, 0x93);
  cpu.core.exports.refresh();
  // mov ax, 0x1234; mov [5], ax; mov bl, [6]; out 0x10, al; hlt
  cpu.load(0x1000, [0xb8, 0x34, 0x12, 0xa3, 5, 0, 0x8a, 0x1e, 6, 0, 0xe6, 0x10, HLT]);
  assert.equal(cpu.run(0), STOP.halt);
  assert.equal(cpu.ram[0x2005], 0x34);
  assert.equal(cpu.state.gpr.at(3) & 0xffn, 0x12n);
  assert.deepEqual(cpu.output, [0x34]);
});

Deno.test("run() executes code that changes the instruction after itself", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  // mov byte [rip+4], 7 (the immediate of the next); mov eax, 1; hlt
  cpu.load(0x1000, [0xc6, 0x05, 1, 0, 0, 0, 7, 0xb8, 1, 0, 0, 0, HLT]);
  assert.equal(cpu.run(0x1000), STOP.halt);
  assert.equal(cpu.state.gpr.at(0), 7n);
});

Deno.test("run() notices code that a device has written, after an instruction that ends an epoch", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(0x1000, [0xb8, 1, 0, 0, 0, HLT]);
  assert.equal(cpu.run(0x1000), STOP.halt);
  cpu.load(0x1000, [0xb8, 2, 0, 0, 0, HLT]);
  cpu.state.mp_state = 0;
  cpu.core.exports.refresh();
  assert.equal(cpu.run(0x1000), STOP.halt);
  assert.equal(cpu.state.gpr.at(0), 2n);
});

Deno.test("an access to no RAM goes to the host, in pieces of at most four bytes", () => {
  const accesses: string[] = [];
  const cpu = new TestCore(4 << 20, {
    mmioRead: (
      low,
      high,
      size,
    ) => (accesses.push(`r${high.toString(16)}:${low.toString(16)}/${size}`), low),
    mmioWrite: (low, _high, size, value) =>
      void accesses.push(`w${low.toString(16)}/${size}=${value}`),
  });
  cpu.enterLongMode();
  cpu.state.gpr.put(3, 0xfec0_0000n & 0x3fff_ffffn);
  // mov rax, [rbx]; mov [rbx+8], cl; hlt
  cpu.load(0x1000, [0x48, 0x8b, 0x03, 0x88, 0x4b, 8, HLT]);
  assert.equal(cpu.run(0x1000), STOP.halt);
  assert.deepEqual(accesses, ["r0:3ec00000/4", "r0:3ec00004/4", "w3ec00008/1=0"]);
  assert.equal(cpu.state.gpr.at(0), 0x3ec0_0004_3ec0_0000n);
});

Deno.test("PAUSE and NOPs of every form do nothing", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  // pause; nop; endbr64; nop word [rax+rax]; prefetcht0 [rax]; hlt
  const code = [
    0xf3,
    0x90,
    0x90,
    0xf3,
    0x0f,
    0x1e,
    0xfa,
    0x66,
    0x0f,
    0x1f,
    0x04,
    0x00,
    0x0f,
    0x18,
    0x08,
  ];
  cpu.load(0x1000, [...code, HLT]);
  assert.equal(cpu.run(0x1000), STOP.halt);
  assert.equal(cpu.state.rip, BigInt(0x1000 + code.length + 1));
});

Deno.test("run() goes on when the block cache is full and begins anew", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  // 300,000 jumps to the next instruction, a block each, are more than there is room for.
  const from = 0x10_0000, jumps = 300_000;
  for (let i = 0; i < jumps; i++) cpu.load(from + 2 * i, [0xeb, 0]);
  // inc rax; dec ecx; jz +5; jmp from; hlt
  const back = -(2 * jumps + 3 + 2 + 2 + 5);
  const end = from + 2 * jumps;
  cpu.load(end, [0x48, 0xff, 0xc0, 0xff, 0xc9, 0x74, 5, 0xe9]);
  new DataView(cpu.ram.buffer, cpu.ram.byteOffset).setInt32(end + 8, back, true);
  cpu.load(end + 12, [HLT]);
  cpu.state.gpr.put(1, 3n);
  cpu.state.rip = BigInt(from);
  let stop: number = STOP.budget;
  while (stop === STOP.budget) stop = cpu.core.run(100_000);
  assert.equal(stop, STOP.halt);
  assert.equal(cpu.state.gpr.at(0), 3n);
  assert.equal(cpu.state.rip, BigInt(end + 13));
});

Deno.test("run() executes code that is written again and again as it was last written", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  // l: mov [rip+4], cl (the immediate of the next); add eax, 0 (imm8); dec ecx; jnz l; hlt
  cpu.load(0x1000, [0x88, 0x0d, 2, 0, 0, 0, 0x83, 0xc0, 0, 0xff, 0xc9, 0x75, 0xf3, HLT]);
  cpu.state.gpr.put(1, 100n);
  cpu.state.rip = 0x1000n;
  while (cpu.core.run(10_000) === STOP.budget);
  assert.equal(cpu.state.gpr.at(0), 5050n);
});

Deno.test("run() knows nothing more of code in memory that was taken away and has come back", () => {
  const cpu = new TestCore(0x8000);
  cpu.enterProtectedMode();
  // mov eax, 1; hlt
  cpu.load(0x5000, [0xb8, 1, 0, 0, 0, HLT]);
  assert.equal(cpu.run(0x5000), STOP.halt);
  for (const size of [0x5000n, 0x8000n]) {
    cpu.state.regions.at(0).size = size;
    cpu.core.exports.refresh();
  }
  cpu.state.mp_state = 0;
  assert.equal(cpu.run(0x5000), STOP.halt);
  // mov byte [0x5001], 3; jmp 0x5000
  cpu.load(0x6000, [0xc6, 0x05, ...dword(0x5001), 3, 0xe9, ...dword(-0x100c)]);
  cpu.state.mp_state = 0;
  assert.equal(cpu.run(0x6000), STOP.halt);
  assert.equal(cpu.state.gpr.at(0), 3n);
});
