/** What comes between instructions: interrupts, NMIs, shadows, HLT, events of a saved state. */
import assert from "node:assert/strict";
import { ATTENTION, STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const CODE = 0x4000;
const STACK = 0x8000;
const [HLT, NOP, STI, CLI, IRET] = [0xf4, 0x90, 0xfb, 0xfa, 0xcf];
const IF = 0x200;
const handlerOf = (vector: number) => 0x1000 + vector * 16;

/** A CPU in real mode with this code; each vector's handler is the code given, or HLT. */
function boot(code: number[], handlers: Record<number, number[]> = {}) {
  const pending: number[] = [];
  const cpu = new TestCore(1 << 20, { interruptVector: () => pending.shift() ?? -1 });
  const data = new DataView(cpu.ram.buffer, cpu.ram.byteOffset, cpu.ram.byteLength);
  for (let vector = 0; vector < 256; vector++) {
    data.setUint16(vector * 4, handlerOf(vector), true);
    cpu.load(handlerOf(vector), handlers[vector] ?? [HLT]);
  }
  cpu.load(CODE, code);
  cpu.setSegment(1, 0, 0n, 0xffff, 0x9b);
  cpu.state.gpr.put(4, BigInt(STACK));
  cpu.state.rip = BigInt(CODE);
  cpu.core.exports.refresh();
  const { state } = cpu;
  return {
    cpu,
    state,
    run: (budget = 1000) => cpu.core.run(budget),
    rip: () => Number(state.rip),
    /** IP and FLAGS of the frame that was pushed last. */
    frame: () => {
      const sp = Number(state.gpr.at(4));
      return [data.getUint16(sp, true), data.getUint16(sp + 4, true)];
    },
    interrupt: (...vectors: number[]) => {
      pending.push(...vectors);
      state.attention |= ATTENTION.interrupt;
    },
    nmi: () => {
      state.nmi_pending++;
      state.attention |= ATTENTION.nmi;
    },
  };
}

Deno.test("HLT waits, and an interrupt wakes it and returns to the next instruction", () => {
  const on = boot([STI, HLT, NOP]);
  assert.equal(on.run(), STOP.halt);
  assert.deepEqual([on.state.mp_state, on.rip()], [3, CODE + 2]);
  assert.equal(on.run(), STOP.halt, "nothing has come");
  on.interrupt(0x40);
  assert.equal(on.run(), STOP.halt);
  assert.equal(on.rip(), handlerOf(0x40) + 1);
  assert.deepEqual(on.frame(), [CODE + 2, IF | 2]);
});

Deno.test("HLT with interrupts masked is woken by an NMI only", () => {
  const on = boot([HLT]);
  on.interrupt(0x40);
  assert.equal(on.run(), STOP.halt);
  assert.equal(on.rip(), CODE + 1);
  on.nmi();
  assert.equal(on.run(), STOP.halt);
  assert.equal(on.rip(), handlerOf(2) + 1);
});

Deno.test("STI lets interrupts in after the instruction that follows it", () => {
  const on = boot([STI, NOP, NOP, HLT]);
  on.interrupt(0x41);
  on.run();
  assert.equal(on.rip(), handlerOf(0x41) + 1);
  assert.deepEqual(on.frame(), [CODE + 2, IF | 2]);
  const masked = boot([STI, CLI, NOP, HLT]);
  masked.interrupt(0x41);
  masked.run();
  assert.equal(masked.rip(), CODE + 4, "CLI comes before the interrupt");
});

Deno.test("after MOV to SS nothing comes before the next instruction, not even an NMI", () => {
  // mov %ax, %ss; nop; hlt
  const on = boot([0x8e, 0xd0, NOP, HLT]);
  on.state.rflags = BigInt(IF | 2);
  on.cpu.core.exports.refresh();
  on.state.interrupt_shadow = 1;
  on.cpu.core.exports.refresh();
  on.nmi();
  on.interrupt(0x42);
  on.run();
  assert.equal(on.rip(), handlerOf(2) + 1, "the NMI is first");
  assert.deepEqual(on.frame(), [CODE + 3, IF | 2], "after the shadows of both");
});

Deno.test("an NMI is masked until IRET, and another waits", () => {
  const on = boot([NOP, HLT], { 2: [0x40, HLT, IRET] });
  on.nmi();
  on.run();
  assert.deepEqual([on.state.nmi_masked, on.rip()], [1, handlerOf(2) + 2]);
  on.nmi();
  assert.equal(on.run(), STOP.halt);
  assert.equal(on.state.nmi_pending, 1, "it waits");
  on.state.mp_state = 0;
  on.cpu.core.exports.refresh();
  on.run();
  assert.equal(on.state.gpr.at(0), 2n, "IRET has let it in");
});

Deno.test("interrupts that are pending together come one after the other", () => {
  const on = boot([STI, NOP, HLT], { 0x50: [0x40, IRET], 0x51: [0x43, IRET] });
  on.interrupt(0x50, 0x51);
  on.run();
  assert.deepEqual([on.rip(), on.state.gpr.at(0), on.state.gpr.at(3)], [CODE + 3, 1n, 1n]);
});

Deno.test("a kick stops the CPU before the next instruction until it is taken back", () => {
  const on = boot([NOP, HLT]);
  on.state.attention |= ATTENTION.kick;
  assert.equal(on.run(), STOP.attention);
  assert.equal(on.rip(), CODE);
  on.state.attention &= ~ATTENTION.kick;
  assert.equal(on.run(), STOP.halt);
});

Deno.test("an interrupt of a saved state is delivered whatever IF is", () => {
  const on = boot([NOP]);
  Object.assign(on.state, { interrupt_injected: 1, interrupt_vector: 0x60 });
  on.cpu.core.exports.refresh();
  on.run();
  assert.equal(on.rip(), handlerOf(0x60) + 1);
  assert.equal(on.state.interrupt_injected, 0);
});

Deno.test("an NMI of a saved state is delivered once", () => {
  const on = boot([NOP]);
  Object.assign(on.state, { nmi_injected: 1, nmi_masked: 1 });
  on.cpu.core.exports.refresh();
  on.run();
  assert.deepEqual([on.rip(), on.state.nmi_injected], [handlerOf(2) + 1, 0]);
});

Deno.test("an exception of a saved state is delivered with its payload", () => {
  const on = boot([NOP]);
  Object.assign(on.state, {
    exception_pending: 1,
    exception_vector: 1,
    exception_payload: 0x4000n,
  });
  on.state.exception_has_payload = 1;
  on.cpu.core.exports.refresh();
  on.run();
  assert.deepEqual([on.rip(), on.state.dr6], [handlerOf(1) + 1, 0xffff_4ff0n]);
  const fault = boot([NOP]);
  Object.assign(fault.state, { exception_injected: 1, exception_vector: 14, cr2: 0x1234n });
  fault.cpu.core.exports.refresh();
  fault.run();
  assert.deepEqual([fault.rip(), fault.state.cr2], [handlerOf(14) + 1, 0x1234n]);
});

Deno.test("a triple fault of a saved state shuts the CPU down", () => {
  const on = boot([NOP]);
  on.state.triple_fault_pending = 1;
  on.cpu.core.exports.refresh();
  assert.equal(on.run(), STOP.shutdown);
});

Deno.test("a SIPI of a saved state starts the CPU", () => {
  const on = boot([]);
  on.cpu.load(0x9000, [HLT]);
  Object.assign(on.state, { mp_state: 4, sipi_vector: 9 });
  on.cpu.core.exports.refresh();
  on.run();
  assert.deepEqual([on.state.segments.at(1).base, on.rip()], [0x9000n, 1]);
});

Deno.test("a debugger's step stops after each instruction", () => {
  const on = boot([NOP, NOP, HLT]);
  on.state.guest_debug = 1;
  on.cpu.core.exports.refresh();
  assert.equal(on.run(), STOP.debug);
  assert.equal(on.rip(), CODE + 1);
  assert.equal(on.run(), STOP.debug);
  assert.equal(on.rip(), CODE + 2);
});

Deno.test("a #DB that is pending when the state is saved comes afterwards", () => {
  const on = boot([NOP, HLT]);
  on.state.debug_pending = 0x4000n;
  on.cpu.core.exports.refresh();
  on.run();
  assert.deepEqual([on.rip(), on.state.dr6], [handlerOf(1) + 1, 0xffff_4ff0n]);
  assert.deepEqual(on.frame(), [CODE, 2]);
});
