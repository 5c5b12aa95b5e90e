/** What a debugger outside the guest has of the software CPU: steps, and breakpoints of its own. */
import assert from "node:assert/strict";
import { ATTENTION, GUEST_DEBUG, STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const CODE = 0x1000;
const DATA = 0x2000;
/** DR6: single step. */
const BS = 0x4000n;
/** DR7's enable bit, condition and length of a point. */
const enable = (index: number) => 2n << BigInt(2 * index);
const condition = (index: number, rw: number, length: number) =>
  BigInt(rw | length << 2) << BigInt(16 + 4 * index);

/** A CPU in long mode with code at its start, and a debugger that wants something. */
function debugged(code: number[], wants: number): TestCore {
  const test = new TestCore(1 << 20);
  test.enterLongMode();
  test.load(CODE, [...code, 0xf4]);
  test.state.guest_debug = wants;
  test.state.rip = BigInt(CODE);
  return test;
}

/** Runs on, and clears what the debugger has been told. */
function goOn(test: TestCore): { stop: number; rip: number; dr6: bigint } {
  test.core.exports.refresh();
  const stop = test.core.run(1000);
  const { rip, debugger_dr6: dr6 } = test.state;
  test.state.debugger_dr6 = 0n;
  return { stop, rip: Number(rip), dr6 };
}

Deno.test("a step ends after one instruction, wherever that goes", () => {
  // inc eax; jmp over a byte; inc eax
  const test = debugged([0xff, 0xc0, 0xeb, 0x01, 0xcc, 0xff, 0xc0], GUEST_DEBUG.step);
  const rips = [2, 5, 7, 8].map((offset) => ({ stop: STOP.debug, rip: CODE + offset, dr6: BS }));
  assert.deepEqual(rips.map(() => goOn(test)), rips);
  assert.equal(test.state.gpr.at(0), 2n);
  test.state.guest_debug = 0;
  assert.equal(goOn(test).stop, STOP.halt);
});

Deno.test("an instruction's point stops before it, until it is taken away", () => {
  const test = debugged([0x90, 0xff, 0xc0, 0x90], GUEST_DEBUG.points);
  test.state.debugger_dr.put(2, BigInt(CODE + 1));
  test.state.debugger_dr7 = enable(2);
  const expected = { stop: STOP.debug, rip: CODE + 1, dr6: 4n };
  assert.deepEqual(goOn(test), expected);
  assert.deepEqual(goOn(test), expected);
  assert.equal(test.state.gpr.at(0), 0n);
  test.state.guest_debug = GUEST_DEBUG.step;
  assert.deepEqual(goOn(test), { stop: STOP.debug, rip: CODE + 3, dr6: BS });
  test.state.guest_debug = 0;
  assert.equal(goOn(test).stop, STOP.halt);
  assert.equal(test.state.gpr.at(0), 1n);
});

Deno.test("a point in memory stops after the access that hits it", () => {
  // mov eax, [DATA]; mov [DATA + 2], al; mov [DATA + 8], al; mov [DATA - 1], eax
  const at = (address: number) => [address & 0xff, address >> 8, 0, 0];
  const code = [
    ...[0x8b, 0x04, 0x25, ...at(DATA)],
    ...[0x88, 0x04, 0x25, ...at(DATA + 2)],
    ...[0x88, 0x04, 0x25, ...at(DATA + 8)],
    ...[0x89, 0x04, 0x25, ...at(DATA - 1)],
  ];
  const stops = (rw: number, length: number) => {
    const test = debugged(code, GUEST_DEBUG.points);
    test.state.debugger_dr.put(1, BigInt(DATA));
    test.state.debugger_dr7 = enable(1) | condition(1, rw, length);
    const rips: number[] = [];
    for (let state = goOn(test); state.stop === STOP.debug; state = goOn(test)) {
      assert.equal(state.dr6, 2n);
      rips.push((state.rip - CODE) / 7);
    }
    return rips;
  };
  // Writes to 4 bytes, to 8, to the first; reads and writes of 4.
  assert.deepEqual(stops(1, 3), [2, 4]);
  assert.deepEqual(stops(1, 2), [2, 4]);
  assert.deepEqual(stops(1, 0), [4]);
  assert.deepEqual(stops(3, 3), [1, 2, 4]);
});

Deno.test("the guest's own breakpoints do not count while the debugger has points", () => {
  const test = debugged([0x90, 0x90, 0x90], GUEST_DEBUG.points);
  test.state.dr.put(0, BigInt(CODE + 1));
  test.state.dr7 = 0x402n;
  test.state.debugger_dr.put(0, BigInt(CODE + 2));
  test.state.debugger_dr7 = enable(0);
  assert.deepEqual(goOn(test), { stop: STOP.debug, rip: CODE + 2, dr6: 1n });
  assert.equal(test.state.dr6 & 0xfn, 0n);
});

Deno.test("a step lets no interrupt in, but a halted CPU takes it", () => {
  let vector = 0x40;
  const test = new TestCore(1 << 20, {
    interruptVector: () => {
      const taken = vector;
      vector = -1;
      return taken;
    },
  });
  test.enterLongMode();
  // IDT at 0x3000: gate 0x40 to 0x4000.
  new DataView(test.ram.buffer, test.ram.byteOffset).setBigUint64(
    0x3000 + 16 * 0x40,
    0x0000_8e00_0010_4000n,
    true,
  );
  test.state.idt_base = 0x3000n;
  test.state.idt_limit = 0xfff;
  // The gate's code segment is loaded from the GDT.
  test.state.gdt_base = 0x5000n;
  test.state.gdt_limit = 0x2f;
  new DataView(test.ram.buffer, test.ram.byteOffset).setBigUint64(
    0x5010,
    0x00af_9b00_0000_ffffn,
    true,
  );
  test.state.gpr.put(4, 0x8000n);
  test.load(CODE, [0x90, 0x90, 0xf4]);
  test.load(0x4000, [0x90, 0xf4]);
  test.state.rip = BigInt(CODE);
  test.state.rflags = 0x202n;
  test.state.guest_debug = GUEST_DEBUG.step;
  test.state.attention |= ATTENTION.interrupt;
  for (const offset of [1, 2, 3]) assert.equal(goOn(test).rip, CODE + offset);
  assert.equal(vector, 0x40);
  // After HLT: the handler's first instruction is the step.
  assert.deepEqual(goOn(test), { stop: STOP.debug, rip: 0x4001, dr6: BS });
  assert.equal(vector, -1);
});
