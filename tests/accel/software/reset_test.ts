import assert from "node:assert/strict";
import { STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { TestCore } from "./core_testing.ts";

const SIGNATURE = 0x60fb1;
const UD2 = [0x0f, 0x0b];

/** A CPU that was powered on, with its exports and state. */
function powered(bootProcessor = 1) {
  const cpu = new TestCore();
  cpu.core.exports.powerOn(bootProcessor, SIGNATURE);
  cpu.core.exports.refresh();
  return { cpu, core: cpu.core.exports, state: cpu.state };
}

/** Has the CPU execute UD2 at 0x4000 in the segment of address 0. */
function undefinedInstruction({ cpu, state }: ReturnType<typeof powered>): number {
  cpu.setSegment(1, 0, 0n, 0xffff, 0x9b);
  state.gpr.put(4, 0x8000n);
  cpu.load(0x4000, UD2);
  cpu.core.exports.refresh();
  return cpu.run(0x4000, 1);
}

Deno.test("a CPU that is powered on is where the SDM says, in real mode", () => {
  const { state } = powered();
  const [cs, ds] = [state.segments.at(1), state.segments.at(3)];
  assert.deepEqual(
    [state.rip, state.rflags, state.cr0, cs.base, cs.selector, cs.limit, ds.attributes],
    [0xfff0n, 2n, 0x6000_0010n, 0xffff_0000n, 0xf000, 0xffff, 0x93],
  );
  assert.equal(state.gpr.at(2), BigInt(SIGNATURE), "RDX is the signature");
  assert.equal(state.mp_state, 0);
});

Deno.test("an application processor waits for INIT, then for a SIPI, and starts at its page", () => {
  const { cpu, core, state } = powered(0);
  assert.equal(state.mp_state, 1);
  core.startUp(0x9a);
  assert.equal(state.mp_state, 1, "a SIPI before INIT is lost");
  assert.equal(cpu.core.run(100), STOP.halt);
  core.init();
  assert.equal(state.mp_state, 2);
  assert.equal(cpu.core.run(100), STOP.halt);
  core.startUp(0x9a);
  const cs = state.segments.at(1);
  assert.deepEqual([state.mp_state, cs.selector, cs.base, state.rip], [0, 0x9a00, 0x9a000n, 0n]);
});

Deno.test("INIT keeps MSRs, the caching bits of CR0 and the FPU", () => {
  const { core, state } = powered();
  Object.assign(state, { star: 5n, cr0: 0x2000_0011n | 0x4000_0000n, cr4: 0x20n, tsc_offset: 7n });
  state.fxsave[32] = 9;
  core.init();
  const kept = [state.star, state.cr0, state.cr4, state.tsc_offset];
  assert.deepEqual(kept, [5n, 0x6000_0010n, 0n, 7n]);
  assert.equal(state.fxsave[32], 9);
});

Deno.test("an exception in real mode pushes FLAGS, CS and IP and enters by the vector table", () => {
  const on = powered();
  const { state } = on;
  const data = new DataView(on.cpu.ram.buffer, on.cpu.ram.byteOffset);
  data.setUint16(6 * 4, 0x1234, true);
  data.setUint16(6 * 4 + 2, 0x2000, true);
  state.rflags = 0x202n;
  assert.equal(undefinedInstruction(on), STOP.budget);
  const { base } = state.segments.at(1);
  assert.deepEqual([state.rip, base, state.gpr.at(4)], [0x1234n, 0x20000n, 0x7ffan]);
  assert.equal(state.rflags, 2n, "IF is off");
  const frame = [0x7ffa, 0x7ffc, 0x7ffe].map((at) => data.getUint16(at, true));
  assert.deepEqual(frame, [0x4000, 0, 0x202]);
});

Deno.test("what fails while #DF is delivered shuts the CPU down", () => {
  const on = powered();
  on.state.idt_limit = 0;
  assert.equal(undefinedInstruction(on), STOP.shutdown);
});
