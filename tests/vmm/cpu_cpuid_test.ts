import assert from "node:assert/strict";
import { buildCpuid } from "../../vmm/cpu/cpuid.ts";
import { supportedCpuid } from "../../vmm/accel/software/cpuid_model.ts";
import { decodeText } from "../../vmm/cpu/registers.ts";
import { cpuTables } from "../../vmm/cpu/tables.ts";
import { defineCpu, type HostCpu } from "../../vmm/cpu/definition.ts";
import { apicId, type CpuTopology } from "../../vmm/cpu/topology.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { epyc, leaf, xeon } from "./cpu_testing.ts";

const single = { sockets: 1, dies: 1, cores: 1, threads: 1 };
const smt = { sockets: 2, dies: 1, cores: 2, threads: 2 };

function build(text: string, host: HostCpu, topology: CpuTopology = single, index = 0) {
  const cpu = defineCpu(parseCpu(text), host);
  return buildCpuid(cpu, host.supported, topology, apicId(topology, index));
}
const missing = (entries: ReturnType<typeof build>, number: number) =>
  assert.equal(entries.some((entry) => entry.function === number), false);
const registers = ({ eax, ebx, ecx, edx }: ReturnType<typeof leaf>) => [eax, ebx, ecx, edx];

Deno.test("buildCpuid() gives unsigned registers and no entry twice when it builds a table", () => {
  for (const [model, host] of [["host", xeon], ["host", epyc], ["base", xeon]] as const) {
    const entries = build(model, host, smt, 7);
    for (const entry of entries) {
      for (const value of registers(entry)) assert.ok(Number.isInteger(value) && value >= 0);
    }
    const keys = entries.map((entry) => `${entry.function},${entry.index}`);
    assert.equal(new Set(keys).size, keys.length);
  }
});

Deno.test("buildCpuid() repeats KVM's feature words when the model is host", () => {
  const entries = build("host,+vmx,+invtsc", xeon);
  const same = (number: number, register: "ebx" | "ecx" | "edx", index = 0, plus = 0) =>
    assert.equal(
      leaf(entries, number, index)[register],
      (leaf(xeon.supported, number, index)[register] | plus) >>> 0,
    );
  same(0x1, "ecx", 0, 1 << 24); // tsc-deadline comes from the capability
  same(0x1, "edx");
  same(0x7, "ebx");
  same(0x7, "ecx");
  same(0x7, "edx");
  same(0x8000_0001, "ecx");
  same(0x8000_0001, "edx");
  same(0x8000_0007, "edx");
  assert.equal(leaf(entries, 0xd, 1).eax, 0xf);
  assert.equal(leaf(entries, 0x4000_0001).eax, 0x01007efb);
  assert.equal(leaf(entries, 0).eax, 0x16);
  assert.deepEqual(leaf(entries, 0xa), leaf(xeon.supported, 0xa));
  assert.deepEqual(leaf(entries, 0x2), leaf(xeon.supported, 0x2));
});

Deno.test("buildCpuid() clears CX16 and passes XSAVEERPTR when -cpu says host,-cx16", () => {
  const entries = build("host,-cx16", epyc);
  assert.equal(leaf(entries, 1).ecx, 0x81200000);
  assert.equal(leaf(entries, 0x8000_0008).ebx, 0x10000005);
});

Deno.test("buildCpuid() writes vendor, signature and brand when the model is named", () => {
  const entries = build("EPYC-Rome,vendor=GenuineIntel,check=off", epyc);
  const vendor = leaf(entries, 0);
  assert.deepEqual([vendor.ebx, vendor.edx, vendor.ecx], [0x756e6547, 0x49656e69, 0x6c65746e]);
  assert.equal(leaf(entries, 1).eax, 0x0083_0f10);
  assert.deepEqual(registers(leaf(entries, 0x8000_0002)), [
    0x20444d41,
    0x43595045,
    0x6d6f522d,
    0x72502065,
  ]);
  assert.equal(leaf(build("Haswell-v1", xeon), 1).eax, 0x306c4);
});

Deno.test("buildCpuid() repeats leaf 1 in 0x80000001 only when the vendor is AMD", () => {
  assert.equal(leaf(build("host", epyc), 0x8000_0001).edx, 0x23d3fbff);
  assert.equal(leaf(build("host", xeon), 0x8000_0001).edx, 0x2c100800);
  assert.equal(leaf(build("host,-sep,-fxsr", epyc), 0x8000_0001).edx, 0x22d3fbff);
});

Deno.test("buildCpuid() numbers leaf 1 by APIC ids on Intel and by threads on AMD", () => {
  const topology = { sockets: 2, dies: 1, cores: 3, threads: 2 };
  assert.equal(leaf(build("host", xeon, topology, 7), 1).ebx, 0x09080800);
  assert.equal(leaf(build("host", epyc, topology, 7), 1).ebx, 0x09060800);
  assert.equal(leaf(build("host", xeon), 1).ebx, 0x00000800);
});

Deno.test("buildCpuid() sets HTT and CmpLegacy when a socket has several threads", () => {
  const ht = 1 << 28;
  assert.equal(leaf(build("host", xeon), 1).edx & ht, 0);
  assert.equal(leaf(build("host", xeon, smt), 1).edx & ht, ht);
  assert.equal(leaf(build("host", epyc), 0x8000_0001).ecx & 2, 0);
  assert.equal(leaf(build("host", epyc, smt), 0x8000_0001).ecx & 2, 2);
  assert.equal(leaf(build("host", xeon, smt), 0x8000_0001).ecx & 2, 0);
});

Deno.test("buildCpuid() describes threads and cores in leaf 0xb when there are both", () => {
  const entries = build("host", xeon, smt, 7);
  assert.deepEqual(registers(leaf(entries, 0xb, 0)), [1, 2, 0x100, 7]);
  assert.deepEqual(registers(leaf(entries, 0xb, 1)), [2, 4, 0x201, 7]);
  assert.deepEqual(registers(leaf(entries, 0xb, 2)), [0, 0, 2, 7]);
  missing(entries, 0x1f);
});

Deno.test("buildCpuid() adds leaf 0x1f and raises the level when there are several dies", () => {
  const topology = { sockets: 1, dies: 2, cores: 2, threads: 2 };
  const entries = build("qemu64", xeon, topology, 6);
  assert.equal(leaf(entries, 0).eax, 0x1f);
  assert.deepEqual(registers(leaf(entries, 0xb, 1)), [3, 8, 0x201, 6]);
  assert.deepEqual(registers(leaf(entries, 0x1f, 1)), [2, 4, 0x201, 6]);
  assert.deepEqual(registers(leaf(entries, 0x1f, 2)), [3, 8, 0x502, 6]);
  assert.deepEqual(registers(leaf(entries, 0x1f, 3)), [0, 0, 3, 6]);
});

Deno.test("buildCpuid() shares Intel's caches by the topology when the host has leaf 4", () => {
  const caches = build("host", xeon, smt).filter((entry) => entry.function === 4);
  assert.deepEqual(caches.map(({ eax }) => eax), [0x04004121, 0x04004122, 0x04004143, 0x0400c163]);
  const wide = { sockets: 1, dies: 1, cores: 128, threads: 1 };
  assert.equal(leaf(build("host", xeon, wide), 4, 3).eax, 0xfc1fc163);
});

Deno.test("buildCpuid() shares AMD's caches and numbers cores when there is topoext", () => {
  const entries = build("host", epyc, smt, 7);
  const caches = entries.filter((entry) => entry.function === 0x8000_001d);
  assert.deepEqual(caches.map(({ eax }) => eax), [0x4121, 0x4122, 0x4143, 0xc163]);
  assert.deepEqual(registers(leaf(entries, 0x8000_001e)), [7, 0x0101, 1, 0]);
  assert.equal(leaf(entries, 0x8000_0008).ecx, 0x2003);
  const plain = build("host,-topoext", epyc, smt);
  missing(plain, 0x8000_001d);
  missing(plain, 0x8000_001e);
});

Deno.test("buildCpuid() sizes XSAVE by what is left when states are switched off", () => {
  const all = build("host", xeon);
  assert.deepEqual(registers(leaf(all, 0xd, 0)), [0x2ff, 0xa88, 0xa88, 0]);
  assert.deepEqual(leaf(all, 0xd, 9), leaf(xeon.supported, 0xd, 9));
  const narrow = build("host,-avx512f,-mpx,-pku", xeon);
  assert.deepEqual(registers(leaf(narrow, 0xd, 0)), [0b111, 0x340, 0x340, 0]);
  assert.deepEqual(narrow.filter((entry) => entry.function === 0xd).map(({ index }) => index), [
    0,
    1,
    2,
  ]);
  missing(build("host,-xsave", xeon), 0xd);
  missing(build("host", epyc), 0xd);
});

Deno.test("buildCpuid() leaves out KVM's leaves and the counters when they are off", () => {
  const entries = build("host,kvm=off,pmu=off", xeon);
  missing(entries, 0x4000_0000);
  missing(entries, 0x4000_0001);
  missing(entries, 0xa);
  assert.equal(leaf(entries, 1).ecx >>> 31, 1);
  assert.deepEqual(leaf(build("kvm64", xeon), 0x4000_0000), leaf(xeon.supported, 0x4000_0000));
});

Deno.test("buildCpuid() ends at the level that the user gives when there is one", () => {
  const entries = build("host,level=7,xlevel=0x80000004", xeon);
  assert.equal(leaf(entries, 0).eax, 7);
  assert.equal(leaf(entries, 0x8000_0000).eax, 0x8000_0004);
  missing(entries, 0xb);
  missing(entries, 0x8000_0008);
  leaf(entries, 7);
});

Deno.test("buildCpuid() raises a model's level when an added feature needs it", () => {
  assert.equal(leaf(build("kvm64", xeon), 0x8000_0000).eax, 0x8000_0008);
  assert.equal(leaf(build("kvm64,+lfence-always-serializing", epyc), 0x8000_0000).eax, 0x8000_0021);
});

Deno.test("buildCpuid() counts subleaves of leaf 7 when a higher one has features", () => {
  const supported = [
    ...xeon.supported,
    { function: 7, index: 1, flags: 1, eax: 1 << 4, ebx: 0, ecx: 0, edx: 0 },
  ];
  const entries = build("host", { ...xeon, supported });
  assert.equal(leaf(entries, 7).eax, 1);
  assert.equal(leaf(entries, 7, 1).eax, 1 << 4);
  assert.equal(leaf(build("host", xeon), 7).eax, 0);
});

Deno.test("buildCpuid() reports address widths when the guest has long mode", () => {
  assert.equal(leaf(build("host", xeon), 0x8000_0008).eax, 0x302e);
  assert.equal(leaf(build("host,phys-bits=40", xeon), 0x8000_0008).eax, 0x3028);
  const supported = xeon.supported.map((entry) =>
    entry.function === 0x8000_0008 ? { ...entry, eax: 0x0030_3034 } : entry
  );
  const nested = { ...xeon, supported };
  assert.equal(leaf(build("host", nested), 0x8000_0008).eax, 0x0030_3034);
  assert.equal(leaf(build("host,phys-bits=46", nested), 0x8000_0008).eax, 0x302e);
});

Deno.test("cpuTables() gives denovo64 the same table on every accelerator of a host", () => {
  const config = {
    cpu: parseCpu("denovo64"),
    smp: { cpus: 4, maxcpus: 4, sockets: 1, dies: 1, cores: 2, threads: 2 },
  };
  const software = { supported: supportedCpuid(), tscDeadline: true };
  for (const processorVendor of ["GenuineIntel", "AuthenticAMD"]) {
    const [kvm, own] = [xeon, software].map((host) =>
      cpuTables(config, { ...host, processorVendor })
    );
    assert.deepEqual(own.identities, kvm.identities);
    const identity = leaf(own.identities[0].cpuid, 0);
    assert.equal(decodeText(identity.ebx, identity.edx, identity.ecx), processorVendor);
    assert.ok(own.identities[0].cpuid.some((entry) => entry.function === 4), "it has caches");
  }
});
