/** Code that is compiled does what the interpreter does, and is left wherever it cannot go on. */
import assert from "node:assert/strict";
import * as layout from "../../../vmm/accel/software/compiler/layout.ts";
import { ATTENTION, GUEST_DEBUG, STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const CODE = 0x1000;
const [RAX, RCX, RBX] = [0, 1, 3];
const PAGE_FAULT = 14;

/** A CPU in long mode whose code is a loop that has run for a while, and is compiled now. */
function compiled(code: readonly number[], registers: Readonly<Record<number, bigint>>): TestCore {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(CODE, code);
  for (const [number, value] of Object.entries(registers)) cpu.state.gpr.put(Number(number), value);
  assert.equal(cpu.run(CODE, 1000), STOP.budget);
  assert.ok(cpu.core.compileHere(1), "nothing was compiled");
  return cpu;
}

/** Runs on until it halts. */
function untilHalt(cpu: TestCore): void {
  for (let slices = 0; slices < 1000; slices++) {
    const stop = cpu.core.run(20_000);
    if (stop === STOP.halt) return;
    assert.equal(stop, STOP.budget);
  }
  assert.fail("The guest does not halt");
}

/** How many functions its table has. */
function functions({ core: { exports: { table } } }: TestCore): number {
  let count = 0;
  for (let i = 0; i < table.length; i++) if (table.get(i) !== null) count++;
  return count;
}

// add rax, rcx; mov [rbx], rax; dec rcx; jnz; hlt
const SUM = [0x48, 0x01, 0xc8, 0x48, 0x89, 0x03, 0x48, 0xff, 0xc9, 0x75, 0xf5, 0xf4];

Deno.test("what compiled code assumes of the memory is what the CPU's sources say", async () => {
  const sources = await Promise.all(
    ["record", "derived", "tlb", "flags"].map((name) =>
      Deno.readTextFile(
        new URL(`../../../vmm/accel/software/core/${name}.ts`, import.meta.url),
      )
    ),
  );
  const declared = new Map<string, number>();
  const derived = 0x6000;
  for (const [, name, value] of sources.join("").matchAll(/const (\w+): \w+ = ([^;]+);/g)) {
    const number = value.replace("DERIVED", String(derived)).replace("1 << 7", "128");
    const sum = number.split(" + ").map(Number).reduce((a, b) => a + b);
    declared.set(name, sum);
  }
  const prefixes = {
    Op: "OP_",
    Operand: "OPERAND_",
    Flag: "FLAG_",
    Ea: "EA_",
    Block: "BLOCK_",
    Derived: "",
    Tlb: "TLB_",
    Kind: "KIND_",
  } as const;
  assert.equal(declared.get("DERIVED"), derived);
  for (const [group, prefix] of Object.entries(prefixes)) {
    for (const [name, value] of Object.entries(layout[group as keyof typeof prefixes])) {
      assert.equal(value, declared.get(prefix + name), `${group}.${name}`);
    }
  }
});

Deno.test("a loop that is hot is compiled by itself, and leaves what the interpreter leaves", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(CODE, SUM);
  const count = 1_000_000n;
  cpu.state.gpr.put(RAX, 0n);
  cpu.state.gpr.put(RCX, count);
  cpu.state.gpr.put(RBX, 0x8000n);
  cpu.state.rip = BigInt(CODE);
  const before = cpu.core.exports.table.length;
  untilHalt(cpu);
  assert.ok(cpu.core.exports.table.length > before, "nothing was compiled");
  const sum = count * (count + 1n) / 2n;
  assert.equal(cpu.state.gpr.at(RAX), sum);
  assert.equal(new DataView(cpu.ram.buffer, cpu.ram.byteOffset).getBigUint64(0x8000, true), sum);
  assert.equal(cpu.state.rip, BigInt(CODE + SUM.length));
  // ZF and PF of the last DEC; CF of the ADD before it.
  assert.equal(cpu.state.rflags & 0x8d5n, 0x44n);
});

Deno.test("a fault in compiled code has the state before its instruction", () => {
  // mov [rbx], rax; add rbx, 8; inc rax; jmp
  const code = [0x48, 0x89, 0x03, 0x48, 0x83, 0xc3, 0x08, 0x48, 0xff, 0xc0, 0xeb, 0xf4];
  const cpu = compiled(code, { [RAX]: 0n, [RBX]: 0x10_0000n });
  // From 2 MiB on there is nothing.
  const tables = new DataView(cpu.ram.buffer, cpu.ram.byteOffset);
  tables.setBigUint64(cpu.ram.byteLength - 0x10000 + 0x2008, 0n, true);
  let runs = 0;
  while (cpu.core.runToFault(20_000)) assert.ok(++runs < 1000, "no fault comes");
  assert.equal(cpu.state.fault_vector, PAGE_FAULT);
  assert.equal(cpu.state.fault_address, 0x20_0000n);
  assert.equal(cpu.state.rip, BigInt(CODE));
  assert.equal(cpu.state.gpr.at(RBX), 0x20_0000n);
  assert.equal(cpu.state.gpr.at(RAX), 0x10_0000n / 8n);
  assert.equal(tables.getBigUint64(0x1f_fff8, true), 0x10_0000n / 8n - 1n);
});

Deno.test("compiled code that is written is executed as written", () => {
  // add eax, 1; cmp ecx, 5; jne +10; mov dword [add's immediate], 100; dec ecx; jnz; hlt
  const code = [
    ...[0x81, 0xc0, 1, 0, 0, 0, 0x83, 0xf9, 5, 0x75, 11],
    ...[0xc7, 0x04, 0x25, 0x02, 0x10, 0, 0, 100, 0, 0, 0],
    ...[0xff, 0xc9, 0x75, 0xe6, 0xf4],
  ];
  const count = 50_000;
  const cpu = compiled(code, { [RAX]: 0n, [RCX]: BigInt(count) });
  untilHalt(cpu);
  assert.equal(cpu.state.gpr.at(RAX), BigInt(count - 4 + 4 * 100));
});

Deno.test("what was compiled with code that is written is compiled again, if it stays hot", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(CODE, [
    ...[0xf7, 0xc1, 0xff, 0x0f, 0x00, 0x00], // l: test ecx, 0xfff
    ...[0x74, 0x09], // jz c
    ...[0x48, 0xff, 0xc0], // m: inc rax
    ...[0x48, 0xff, 0xc9], // dec rcx
    ...[0x75, 0xf0], // jnz l
    0xf4,
    ...[0x48, 0x83, 0xc3, 0x01], // c: add rbx, 1
    ...[0xeb, 0xf1], // jmp m
  ]);
  const isRare = CODE + 20, count = 4_000_000n;
  cpu.state.gpr.put(RAX, 0n);
  cpu.state.gpr.put(RCX, count);
  cpu.state.gpr.put(RBX, 0n);
  cpu.state.rip = BigInt(CODE);
  const slices = (number: number) => {
    for (let i = 0; i < number; i++) assert.equal(cpu.core.run(20_000), STOP.budget);
  };
  slices(20);
  const before = functions(cpu);
  assert.ok(before > 0, "nothing was compiled");
  cpu.ram[isRare] = 2;
  cpu.state.attention |= ATTENTION.code;
  slices(20);
  assert.equal(functions(cpu), before, "it was compiled again at once");
  slices(200);
  assert.ok(functions(cpu) > before, "it was not compiled again");
  const soFar = cpu.state.gpr.at(RAX);
  untilHalt(cpu);
  assert.equal(cpu.state.gpr.at(RAX), count);
  assert.ok(soFar < count, "it had ended before");
});

Deno.test("an operation that the core executes for compiled code may write what comes next", () => {
  // cmp ecx, 5; cmove rsi, rdi; bts dword [rsi], 1; add eax, 1; dec ecx; jnz; hlt
  const code = [
    ...[0x83, 0xf9, 5, 0x48, 0x0f, 0x44, 0xf7, 0x0f, 0xba, 0x2e, 1],
    ...[0x81, 0xc0, 1, 0, 0, 0, 0xff, 0xc9, 0x75, 0xeb, 0xf4],
  ];
  const count = 50_000, [RSI, RDI] = [6, 7];
  const immediate = BigInt(CODE + 13);
  const registers = { [RAX]: 0n, [RCX]: BigInt(count), [RSI]: 0x8000n, [RDI]: immediate };
  const cpu = compiled(code, registers);
  untilHalt(cpu);
  assert.equal(cpu.state.gpr.at(RAX), BigInt(count - 5 + 5 * 3));
});

Deno.test("what wants attention ends compiled code, and so does the budget", () => {
  const cpu = compiled([0xff, 0xc0, 0xeb, 0xfc], { [RAX]: 0n });
  assert.equal(cpu.core.run(100_000), STOP.budget);
  const turns = Number(cpu.state.gpr.at(RAX));
  assert.ok(turns > 40_000 && turns < 60_000, `${turns} turns`);
  cpu.state.attention |= ATTENTION.kick;
  assert.equal(cpu.core.run(100_000), STOP.attention);
  assert.equal(cpu.state.gpr.at(RAX), BigInt(turns));
});

Deno.test("single steps are not compiled", () => {
  const cpu = compiled(SUM, { [RAX]: 0n, [RCX]: 1_000_000n, [RBX]: 0x8000n });
  const [rip, rcx] = [cpu.state.rip, cpu.state.gpr.at(RCX)];
  assert.equal(rip, BigInt(CODE));
  cpu.state.guest_debug = GUEST_DEBUG.step;
  cpu.core.exports.refresh();
  assert.equal(cpu.core.run(20_000), STOP.debug);
  assert.equal(cpu.state.rip, BigInt(CODE + 3));
  assert.equal(cpu.core.run(20_000), STOP.debug);
  assert.equal(cpu.core.run(20_000), STOP.debug);
  assert.equal(cpu.state.rip, BigInt(CODE + 9));
  assert.equal(cpu.state.gpr.at(RCX), rcx - 1n);
});

Deno.test("compiled code is forgotten with all blocks, and compiled anew", () => {
  const cpu = compiled(SUM, { [RAX]: 0n, [RCX]: 500_000n, [RBX]: 0x8000n });
  cpu.core.exports.refresh();
  assert.equal(cpu.core.run(20_000), STOP.budget);
  assert.ok(cpu.core.compileHere(1), "nothing was compiled again");
  untilHalt(cpu);
  assert.equal(cpu.state.gpr.at(RAX), 500_000n * 500_001n / 2n);
});

Deno.test("code that others wrote before it was compiled is not executed as it was", () => {
  // inc eax; jmp
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(CODE, [0xff, 0xc0, 0xeb, 0xfc]);
  assert.equal(cpu.run(CODE, 1000), STOP.budget);
  // hlt, by a device that says so only when the CPU has compiled the loop.
  cpu.ram[CODE] = 0xf4;
  assert.ok(cpu.core.compileHere(1), "nothing was compiled");
  const turns = cpu.state.gpr.at(RAX);
  cpu.state.attention |= ATTENTION.code;
  assert.equal(cpu.core.run(1000), STOP.halt);
  assert.equal(cpu.state.gpr.at(RAX), turns);
});

Deno.test("where the host has no memory for compiled code the interpreter goes on", () => {
  const cpu = new TestCore(4 << 20);
  cpu.enterLongMode();
  cpu.load(CODE, SUM);
  cpu.state.gpr.put(RCX, 2000n);
  cpu.state.gpr.put(RBX, 0x2000n);
  assert.equal(cpu.run(CODE, 1000), STOP.budget);
  const { Module } = WebAssembly;
  try {
    WebAssembly.Module = class {
      constructor() {
        throw new RangeError("Out of memory");
      }
    } as unknown as typeof Module;
    assert.equal(cpu.core.compileHere(1), false);
  } finally {
    WebAssembly.Module = Module;
  }
  untilHalt(cpu);
  assert.equal(cpu.state.gpr.at(RAX), 2001000n);
});
