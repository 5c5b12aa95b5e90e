import assert from "node:assert/strict";
import { supportedCpuid } from "../../../vmm/accel/software/cpuid_model.ts";
import { cpuState } from "../../../vmm/accel/software/cpu_state.ts";
import {
  type MsrHost,
  readMsr,
  readMsrs,
  stateMsrs,
  writeMsr,
  writeMsrs,
} from "../../../vmm/accel/software/kvm_msrs.ts";
import type { CpuState } from "../../../vmm/accel/software/kvm_state.ts";
import { cpuLimits } from "../../../vmm/accel/software/limits.ts";
import { TscOffsets } from "../../../vmm/accel/software/machine_chips.ts";
import { msrBuffer, msrEntry } from "../../../vmm/accel/msrs.ts";

const limits = cpuLimits(supportedCpuid());
const cpu = () => cpuState.alloc().view as CpuState;

Deno.test("vCPUs whose TSCs are set one after the other keep in step", () => {
  const tscs = new TscOffsets(1000);
  const behind = BigInt.asUintN(64, -500n);
  assert.equal(tscs.offset(0, behind), behind);
  assert.equal(tscs.offset(1, 400n), behind);
  assert.equal(tscs.offset(2, BigInt.asUintN(64, -999_999n)), behind);
  assert.equal(tscs.offset(3, 2_000_000n), 2_000_000n);
  assert.equal(tscs.offset(0, 7n), 7n);
  assert.equal(tscs.offset(1, behind), 7n);
});

/** Chips that have kvmclock's MSRs and the TSC deadline. */
function host(tsc = 1000n): MsrHost {
  const values = new Map([0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01, 0x6e0].map((at) => [at, 0n]));
  return {
    tsc: () => tsc,
    tscOffset: (value) => BigInt.asUintN(64, value - tsc),
    read: (index) => values.get(index),
    write: (index, value) => values.has(index) && values.set(index, value) !== undefined,
  };
}

/** Values that each register can have. */
const valueOf = (index: number): bigint => {
  if (index === 0xce) return 1n << 31n;
  if (index === 0x140) return 1n;
  if (index === 0x179) return 10n;
  if (index === 0x1d9) return 0n;
  if (index >= 0x200 && index < 0x210) return index & 1 ? 0xff_8000_0800n : 0x8000_0006n;
  if (index >= 0x250 && index <= 0x277) return 0x0606_0505_0404_0101n;
  if (index === 0x2ff) return 0xc06n;
  if (index === 0xc001_0015) return 1n << 24n;
  if (index === 0xc001_1029) return 2n;
  if (index === 0xc000_0103) return 0xffff_fffen;
  return BigInt(index) | 1n << 40n;
};

Deno.test("every MSR of the state comes back as it was set", () => {
  const [state, chips] = [cpu(), host()];
  const buffer = msrBuffer(stateMsrs);
  stateMsrs.forEach((index, i) => msrEntry(buffer, i).data = valueOf(index));
  const expected = buffer.slice();
  assert.equal(writeMsrs(state, buffer, limits, chips), stateMsrs.length);
  assert.equal(readMsrs(state, buffer, chips), stateMsrs.length);
  assert.deepEqual(buffer, expected);
  assert.equal(stateMsrs.at(-1), 0x6e0, "the TSC deadline is last");
  assert.equal(new Set(stateMsrs).size, stateMsrs.length);
});

Deno.test("the TSC is the host's at a distance", () => {
  const state = cpu();
  assert.ok(writeMsr(state, 0x10, 400n, limits, host(1000n)));
  assert.equal(state.tsc_offset, 2n ** 64n - 600n);
  assert.equal(readMsr(state, 0x10, host(1007n)), 407n);
});

Deno.test("reading and writing end at the first MSR that is not there", () => {
  const buffer = msrBuffer([0xc000_0081, 0xdead_beef, 0xc000_0082]);
  assert.equal(readMsrs(cpu(), buffer, host()), 1);
  assert.equal(writeMsrs(cpu(), buffer, limits, host()), 1);
});

Deno.test("values that the processor faults on are refused", () => {
  const cases: [number, bigint][] = [
    [0xc000_0082, 1n << 58n],
    [0xc000_0102, 1n << 63n],
    [0x277, 2n],
    [0x277, 3n << 56n],
    [0x200, 0x106n],
    [0x201, 1n << 40n],
    [0x250, 7n],
    [0x2ff, 0x1000n],
    [0xc000_0103, 1n << 32n],
    [0xc000_0080, 0x1000n],
    [0x140, 2n],
    [0xfe, 0x50an],
    [0x179, 33n],
    [0x17b, 1n],
  ];
  for (const [index, value] of cases) {
    const state = cpu();
    const before = readMsr(state, index, host());
    assert.ok(!writeMsr(state, index, value, limits, host()), `0x${index.toString(16)}`);
    assert.equal(readMsr(state, index, host()), before);
  }
});
