import assert from "node:assert/strict";
import { compareCpuid, describeDifference } from "../../vmm/cpu/compare.ts";
import { buildCpuid } from "../../vmm/cpu/cpuid.ts";
import { defineCpu, type HostCpu } from "../../vmm/cpu/definition.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { epyc, leaf, xeon } from "./cpu_testing.ts";

const smt = { sockets: 1, dies: 1, cores: 2, threads: 2 };
const saved = (text: string, host: HostCpu) =>
  buildCpuid(defineCpu(parseCpu(text), host), host.supported, smt, 0);

Deno.test("compareCpuid() finds nothing when a table returns to its own host", () => {
  for (const text of ["host", "max,migratable=off", "qemu64,check=off", "Skylake-Server"]) {
    for (const host of [xeon, epyc]) assert.deepEqual(compareCpuid(saved(text, host), host), []);
  }
});

Deno.test("compareCpuid() ignores what the guest's processor sets by itself when it is saved", () => {
  const table = saved("qemu64", xeon);
  leaf(table, 1).ecx |= 1 << 27; // OSXSAVE
  const bare = { ...xeon, supported: xeon.supported.filter((entry) => entry.function !== 0xd) };
  assert.deepEqual(compareCpuid(table, bare), []);
  // The table's vendor follows AMD's convention of repeating leaf 1, the host's does not.
  assert.deepEqual(compareCpuid(saved("qemu64,vendor=AuthenticAMD", xeon), xeon), []);
});

Deno.test("compareCpuid() names features and states when the host lacks them", () => {
  const missing = compareCpuid(saved("host,phys-bits=46", xeon), epyc);
  assert.ok(missing.includes("CPUID[eax=01h].ECX.cx16 [bit 13]") === false);
  assert.ok(missing.includes("CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]"));
  assert.ok(missing.includes("CPUID[eax=0Dh,ecx=01h].EAX.xsaves [bit 3]"));
  assert.ok(missing.includes("CPUID[eax=0Dh,ecx=00h].EAX [bit 9]"));
  const older = {
    tscDeadline: false,
    supported: xeon.supported.map((entry) =>
      entry.function === 7 ? { ...entry, ebx: (entry.ebx & ~(1 << 5)) >>> 0 } : entry
    ),
  };
  assert.deepEqual(compareCpuid(saved("host", xeon), older), [
    "CPUID[eax=01h].ECX.tsc-deadline [bit 24]",
    "CPUID[eax=07h,ecx=00h].EBX.avx2 [bit 5]",
  ]);
});

Deno.test("compareCpuid() reports bits without a name when the guest has seen them", () => {
  const table = saved("host", xeon);
  leaf(table, 7).edx |= 1 << 9;
  assert.deepEqual(compareCpuid(table, xeon), ["CPUID[eax=07h,ecx=00h].EDX [bit 9]"]);
});

Deno.test("compareCpuid() reports address bits when the host has fewer", () => {
  assert.deepEqual(compareCpuid(saved("qemu64,phys-bits=48", xeon), xeon), [
    "CPUID[eax=80000008h].EAX physical address bits 48 (host has 46)",
  ]);
});

Deno.test("describeDifference() names what the host lacks, or else what either has alone", () => {
  const says = (was: string, is: string, host = xeon) =>
    describeDifference(3, saved(was, xeon), saved(is, xeon), host);
  const bare = { ...xeon, supported: xeon.supported.filter((entry) => entry.function !== 7) };
  assert.match(
    says("qemu64,+xsave,+avx,+avx2", "qemu64", bare),
    /^CPU 3 of the saved VM has what this host lacks: CPUID\[eax=07h,ecx=00h\].EBX.avx2 \[bit 5\]/,
  );
  assert.equal(
    says("qemu64,-cx16", "qemu64,-lahf-lm"),
    "CPUID of CPU 3 differs from the saved VM's (only the saved VM has" +
      " CPUID[eax=80000001h].ECX.lahf-lm [bit 0], only this VM has" +
      " CPUID[eax=01h].ECX.cx16 [bit 13]); start with the same -cpu",
  );
  assert.equal(
    says("qemu64", "qemu64,model-id=x"),
    "CPUID of CPU 3 differs from the saved VM's; start with the same -cpu",
  );
});
