import assert from "node:assert/strict";
import { OsError } from "../../../ffi/errno.ts";
import { kvmXsave, xsaveHead } from "../../../ffi/kvm/structs.ts";
import { cpuState } from "../../../vmm/accel/software/cpu_state.ts";
import type { CpuState } from "../../../vmm/accel/software/kvm_state.ts";
import { readXsave, writeXsave } from "../../../vmm/accel/software/kvm_xsave.ts";

const cpu = () => cpuState.alloc().view as CpuState;

/** A region with a value in every register, and the top of the stack at register 5. */
function region() {
  const bytes = new Uint8Array(kvmXsave.size);
  for (let i = 0; i < 416; i++) bytes[i] = i * 3;
  const view = xsaveHead.view(bytes.buffer);
  Object.assign(view, { fcw: 0x27f, fsw: 5 << 11, mxcsr: 0x1fa0, mxcsr_mask: 0xffff });
  view.xstate_bv = 3n;
  return { bytes, view };
}

Deno.test("x87 and SSE registers come back as they were set", () => {
  const state = cpu();
  const { bytes, view } = region();
  writeXsave(state, bytes);
  assert.deepEqual(state.fxsave.slice(32 + 5 * 16, 32 + 5 * 16 + 16), view.st.at(0));
  const back = new Uint8Array(kvmXsave.size);
  readXsave(state, back);
  assert.deepEqual(back, bytes);
});

Deno.test("components that XSTATE_BV leaves out begin as they do after a reset", () => {
  const state = cpu();
  const { bytes, view } = region();
  view.xstate_bv = 2n;
  writeXsave(state, bytes);
  const back = xsaveHead.alloc();
  const all = new Uint8Array(kvmXsave.size);
  readXsave(state, all);
  back.bytes.set(all.subarray(0, xsaveHead.size));
  assert.deepEqual([back.view.fcw, back.view.fsw, back.view.mxcsr], [0x37f, 0, 0x1fa0]);
  assert.deepEqual(back.view.xmm.at(3), view.xmm.at(3));
  view.xstate_bv = 1n;
  writeXsave(state, bytes);
  readXsave(state, all);
  back.bytes.set(all.subarray(0, xsaveHead.size));
  assert.deepEqual([back.view.fcw, back.view.mxcsr], [0x27f, 0x1f80]);
  assert.ok(back.view.xmm.at(3).every((byte) => byte === 0));
});

Deno.test("components that the CPU does not have are left out", () => {
  const state = cpu();
  const { bytes, view } = region();
  view.xstate_bv = 7n;
  bytes.fill(0x5a, 576, 832);
  writeXsave(state, bytes);
  const back = new Uint8Array(kvmXsave.size);
  readXsave(state, back);
  assert.equal(xsaveHead.view(back.buffer).xstate_bv, 3n);
  assert.deepEqual(back.subarray(0, 416), bytes.subarray(0, 416));
  assert.ok(back.subarray(576).every((byte) => byte === 0));
});

Deno.test("what the CPU does not have is refused, and changes nothing", () => {
  const cases = [
    { xcomp_bv: 1n << 63n },
    { mxcsr: 0x1_0000 },
  ];
  for (const change of cases) {
    const state = cpu();
    const { bytes, view } = region();
    Object.assign(view, change);
    assert.throws(
      () => writeXsave(state, bytes),
      (error) => error instanceof OsError && error.code === "EINVAL",
    );
    assert.ok(state.fxsave.every((byte) => byte === 0));
  }
});
