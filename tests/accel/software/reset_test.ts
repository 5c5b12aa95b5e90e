import assert from "node:assert/strict";
import { coreModule, STOP, TestCpu } from "./cpu.ts";

const module = await coreModule();
const boot = (cpuid = [{
  ...{ function: 1, index: 0, flags: 0, eax: 0x60fb1, ebx: 0, ecx: 0, edx: 0 },
}]) => new TestCpu(module, cpuid);

Deno.test("a CPU that is powered on is where the SDM says, in real mode", () => {
  const { state } = boot();
  const [cs, ds] = [state.segments.at(1), state.segments.at(3)];
  assert.deepEqual(
    [state.rip, state.rflags, state.cr0, cs.base, cs.selector, cs.limit, ds.attributes],
    [0xfff0n, 2n, 0x6000_0010n, 0xffff_0000n, 0xf000, 0xffff, 0x93],
  );
  assert.equal(state.gpr.at(2), 0x60fb1n, "RDX is the signature");
  assert.equal(state.mp_state, 0);
});

Deno.test("an application processor waits for INIT, then for a SIPI, and starts at its page", () => {
  const { core, state } = boot();
  core.powerOn(0, 0);
  assert.equal(state.mp_state, 1);
  core.startUp(0x9a);
  assert.equal(state.mp_state, 1, "a SIPI before INIT is lost");
  core.init();
  assert.equal(state.mp_state, 2);
  core.startUp(0x9a);
  const cs = state.segments.at(1);
  assert.deepEqual([state.mp_state, cs.selector, cs.base, state.rip], [0, 0x9a00, 0x9a000n, 0n]);
});

Deno.test("INIT keeps MSRs, the caching bits of CR0 and the FPU", () => {
  const { core, state, memory } = boot();
  Object.assign(state, { star: 5n, cr0: 0x2000_0011n | 0x4000_0000n, cr4: 0x20n, tsc_offset: 7n });
  new Uint8Array(memory.buffer)[state.fxsave.byteOffset + 32] = 9;
  core.init();
  assert.deepEqual([state.star, state.cr0, state.cr4, state.tsc_offset], [
    5n,
    0x6000_0010n,
    0n,
    7n,
  ]);
  assert.equal(state.fxsave[32], 9);
});

Deno.test("an exception in real mode pushes FLAGS, CS and IP and enters by the vector table", () => {
  const cpu = boot();
  const { state, data } = cpu;
  data.setUint16(6 * 4, 0x1234, true);
  data.setUint16(6 * 4 + 2, 0x2000, true);
  Object.assign(state, { rip: 0x4567n, rflags: 0x302n });
  state.gpr.put(4, 0x8000n);
  assert.equal(cpu.fault(6), STOP.budget);
  assert.deepEqual([state.rip, state.segments.at(1).base, state.gpr.at(4)], [
    0x1234n,
    0x20000n,
    0x7ffan,
  ]);
  assert.equal(state.rflags, 2n, "IF and TF are off");
  const frame = [0x7ffa, 0x7ffc, 0x7ffe].map((at) => data.getUint16(at, true));
  assert.deepEqual(frame, [0x4567, 0xf000, 0x302]);
});

Deno.test("what fails while #DF is delivered shuts the CPU down", () => {
  const cpu = boot();
  cpu.state.idt_limit = 0;
  assert.equal(cpu.fault(13, 0), STOP.shutdown);
});
