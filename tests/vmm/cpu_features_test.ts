import assert from "node:assert/strict";
import { featureNames, FeatureSet, isFeature } from "../../vmm/cpu/features.ts";
import { epyc, xeon } from "./cpu_testing.ts";

Deno.test("isFeature() takes QEMU's aliases and underscores when a name has them", () => {
  for (const name of ["sse4.2", "sse4-2", "sse4_2", "sse3", "xd", "kvm_pv_eoi", "xsaveerptr"]) {
    assert.equal(isFeature(name), true, name);
  }
  for (const name of ["", "nope", "toString", "enforce"]) assert.equal(isFeature(name), false);
});

Deno.test("FeatureSet.of() puts each feature at its architectural bit when it is named", () => {
  const bit = (name: string) => FeatureSet.of(name).describe();
  assert.deepEqual(bit("cx16"), ["CPUID[eax=01h].ECX.cx16 [bit 13]"]);
  assert.deepEqual(bit("sse4_2"), ["CPUID[eax=01h].ECX.sse4.2 [bit 20]"]);
  assert.deepEqual(bit("tsc-deadline"), ["CPUID[eax=01h].ECX.tsc-deadline [bit 24]"]);
  assert.deepEqual(bit("avx2"), ["CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]"]);
  assert.deepEqual(bit("avx512vl"), ["CPUID[eax=07h,ecx=00h].EBX.avx512vl [bit 31]"]);
  assert.deepEqual(bit("avx-vnni"), ["CPUID[eax=07h,ecx=01h].EAX.avx-vnni [bit 4]"]);
  assert.deepEqual(bit("xsaves"), ["CPUID[eax=0Dh,ecx=01h].EAX.xsaves [bit 3]"]);
  assert.deepEqual(bit("arat"), ["CPUID[eax=06h].EAX.arat [bit 2]"]);
  assert.deepEqual(bit("svm"), ["CPUID[eax=80000001h].ECX.svm [bit 2]"]);
  assert.deepEqual(bit("invtsc"), ["CPUID[eax=80000007h].EDX.invtsc [bit 8]"]);
  assert.deepEqual(bit("xsaveerptr"), ["CPUID[eax=80000008h].EBX.xsaveerptr [bit 2]"]);
});

Deno.test("FeatureSet.of() sets both clock bits when it is given kvmclock", () => {
  const set = FeatureSet.of("kvmclock");
  assert.equal(set.word(0x4000_0001, "eax"), 0b1001);
  set.put("kvmclock", false);
  assert.equal(set.empty, true);
});

Deno.test("FeatureSet.of() throws when a name is unknown", () => {
  assert.throws(() => FeatureSet.of("fpu nope"), new RangeError("CPU feature 'nope' is unknown"));
});

Deno.test("FeatureSet.fromCpuid() reads all words when it is given KVM's table", () => {
  const host = FeatureSet.fromCpuid(xeon.supported);
  for (const name of ["sse2", "avx512f", "pku", "ssbd", "xsaves", "lm", "invtsc", "kvm-pv-ipi"]) {
    assert.equal(host.has(name), true, name);
  }
  assert.equal(host.has("tsc-deadline"), false);
  assert.equal(FeatureSet.fromCpuid(epyc.supported).has("avx"), false);
});

Deno.test("FeatureSet.named() drops bits without a name when a table has them", () => {
  const entry = { function: 7, index: 0, flags: 1, eax: 0, ebx: 0, ecx: 0, edx: 1 << 9 | 1 << 31 };
  const set = FeatureSet.fromCpuid([entry]);
  assert.deepEqual(set.describe(), [
    "CPUID[eax=07h,ecx=00h].EDX [bit 9]",
    "CPUID[eax=07h,ecx=00h].EDX.ssbd [bit 31]",
  ]);
  assert.deepEqual(set.named().describe(), ["CPUID[eax=07h,ecx=00h].EDX.ssbd [bit 31]"]);
});

Deno.test("FeatureSet combines without changing its operands when it is used in and, or, minus", () => {
  const a = FeatureSet.of("fpu avx pdpe1gb");
  const b = FeatureSet.of("avx ssbd");
  assert.deepEqual(a.and(b).describe(), FeatureSet.of("avx").describe());
  assert.deepEqual(a.or(b).describe(), FeatureSet.of("fpu avx pdpe1gb ssbd").describe());
  assert.deepEqual(a.minus(b).describe(), FeatureSet.of("fpu pdpe1gb").describe());
  assert.deepEqual(a.describe(), FeatureSet.of("fpu avx pdpe1gb").describe());
});

Deno.test("featureNames() lists each feature once when it has several bits", () => {
  const names = featureNames();
  assert.equal(new Set(names).size, names.length);
  assert.deepEqual(names.filter((name) => name === "kvmclock"), ["kvmclock"]);
  assert.deepEqual(names, [...names].sort());
});
