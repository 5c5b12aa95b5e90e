import assert from "node:assert/strict";
import { supportedCpuid } from "../../../vmm/accel/software/cpuid_model.ts";
import { cpuLimits } from "../../../vmm/accel/software/limits.ts";
import { cpuTables, hostCpu } from "../../../vmm/cpu/tables.ts";
import { findCpuid } from "../../../vmm/cpu/features.ts";
import { decodeText } from "../../../vmm/cpu/registers.ts";

const smp = { cpus: 2, sockets: 1, dies: 1, cores: 2, threads: 1, maxcpus: 2 };
const tables = (model: string) =>
  cpuTables(
    { cpu: { model, features: [] }, smp },
    hostCpu({ supportedCpuid, tscDeadline: true }),
  );

Deno.test("the leaves are AMD's and KVM's, in order", () => {
  const leaves = supportedCpuid();
  const text = (leaf: number, order: readonly ("ebx" | "ecx" | "edx")[]) => {
    const entry = findCpuid(leaves, leaf)!;
    return decodeText(...order.map((name) => entry[name]));
  };
  assert.equal(text(0, ["ebx", "edx", "ecx"]), "AuthenticAMD");
  assert.equal(text(0x4000_0000, ["ebx", "ecx", "edx"]), "KVMKVMKVM");
  const numbers = leaves.map((entry) => entry.function);
  assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
  assert.equal(findCpuid(leaves, 0)!.eax, 0xd);
  assert.equal(findCpuid(leaves, 0x8000_0000)!.eax, 0x8000_0008);
});

Deno.test("-cpu denovo64 is had whole, with x86-64-v2 in it and no AVX", () => {
  const { identities: [{ cpuid }], warnings } = tables("denovo64");
  assert.deepEqual(warnings, []);
  const leaf1 = findCpuid(cpuid, 1)!;
  const v2 = 1 << 0 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
  assert.equal((leaf1.ecx & v2) >>> 0, v2 >>> 0, "SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT");
  assert.equal(leaf1.ecx & (1 << 26 | 1 << 28), 0, "XSAVE, AVX");
  assert.equal(leaf1.eax, 0x60fb1);
  assert.equal(findCpuid(cpuid, 0x8000_0008)!.eax, 0x3027, "48 and 39 bits of address");
});

Deno.test("what CPUID offers is what the control registers allow", () => {
  const { cr4, efer, xcr0, physicalBits } = cpuLimits(supportedCpuid());
  assert.equal(cr4, 0x37_1ffcn);
  assert.deepEqual([efer, xcr0, physicalBits], [0xd01n, 3n, 40]);
  assert.equal(cpuLimits([]).cr4, 0x100n);
});
