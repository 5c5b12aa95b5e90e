/** State that another accelerator has saved. */
import assert from "node:assert/strict";
import { kvmXsave } from "../../ffi/kvm/structs.ts";
import { adoptMsrs, fitXsave } from "../../vmm/accel/foreign_state.ts";
import { msrBuffer, msrCount, msrEntry } from "../../vmm/accel/msrs.ts";
import { FeatureSet } from "../../vmm/cpu/features.ts";

type Value = readonly [index: number, value: bigint];

function msrs(values: readonly Value[]): Uint8Array<ArrayBuffer> {
  const buffer = msrBuffer(values.map(([index]) => index));
  values.forEach(([, value], i) => msrEntry(buffer, i).data = value);
  return buffer;
}

const valuesOf = (buffer: Uint8Array<ArrayBuffer>): Value[] =>
  Array.from({ length: msrCount(buffer) }, (_, i) => {
    const { index, data } = msrEntry(buffer, i);
    return [index, data];
  });

const [SYSENTER_CS, EFER, DEADLINE] = [0x174, 0xc000_0080, 0x6e0];
const own = msrs([[SYSENTER_CS, 7n], [EFER, 0xd01n], [DEADLINE, 1n]]);
const nothing = FeatureSet.of();
const adopted = (values: readonly Value[], features = nothing) =>
  valuesOf(adoptMsrs(own, msrs(values), features));

Deno.test("MSRs that both list come as they were saved, in the saved order", () => {
  const saved: Value[] = [[EFER, 0x500n], [SYSENTER_CS, 0n], [DEADLINE, 9n]];
  assert.deepEqual(adopted(saved), saved);
  assert.deepEqual(adopted([[DEADLINE, 9n]]), [[DEADLINE, 9n]]);
});

Deno.test("MSRs that only the saved VM lists are left out while they are as after a reset", () => {
  const idle: Value[] = [[0x1d9, 0n], [0x179, 0x20n], [0x4b56_4d05, 1n], [0xc000_0104, 1n << 32n]];
  assert.deepEqual(adopted([...idle, [EFER, 1n]]), [[EFER, 1n]]);
  for (const used of [[0x1d9, 1n], [0x179, 0x10n], [0x4b56_4d05, 2n]] satisfies Value[]) {
    assert.deepEqual(adopted([...idle.filter(([index]) => index !== used[0]), used]), [used]);
  }
});

Deno.test("MSRs of a feature that the guest does not have do not matter", () => {
  const capabilities: Value = [0x10a, 0x2000_0000n];
  const vmx: Value = [0x480, 1n << 54n];
  const hyperv: Value = [0x4000_0020, 12345n];
  assert.deepEqual(adopted([capabilities, vmx, hyperv]), []);
  assert.deepEqual(adopted([capabilities, vmx], FeatureSet.of("arch-capabilities")), [
    capabilities,
  ]);
  assert.deepEqual(adopted([capabilities, vmx], FeatureSet.of("vmx")), [vmx]);
});

Deno.test("what is no list of MSRs is refused", () => {
  const cases: [Uint8Array<ArrayBuffer>, RegExp][] = [
    [new Uint8Array(7), /^7 bytes are no list of MSRs$/],
    [own.slice(0, -1), /^55 bytes are no list of MSRs$/],
    [msrs([[EFER, 0n], [EFER, 1n]]), /^MSR 0xc0000080 comes twice$/],
  ];
  for (const [bytes, message] of cases) {
    assert.throws(() => adoptMsrs(own, bytes, nothing), { name: "RangeError", message });
  }
});

Deno.test("XSAVE's state may be longer or shorter where it is not in use", () => {
  const saved = new Uint8Array(kvmXsave.size + 64).fill(1, 0, kvmXsave.size - 8);
  const { length } = saved;
  const short = fitXsave(saved, kvmXsave.size);
  assert.deepEqual(short, saved.subarray(0, kvmXsave.size));
  assert.deepEqual(fitXsave(short, length), saved);
  assert.throws(() => fitXsave(saved.fill(1), kvmXsave.size), {
    name: "RangeError",
    message: `${length} bytes of XSAVE state are in use, this host has ${kvmXsave.size}`,
  });
  for (const wrong of [kvmXsave.size - 8, length + 1]) {
    assert.throws(() => fitXsave(new Uint8Array(wrong), kvmXsave.size), {
      name: "RangeError",
      message: `${wrong} bytes are no XSAVE state`,
    });
  }
});
