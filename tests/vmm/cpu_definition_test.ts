import assert from "node:assert/strict";
import { type CpuDefinition, defineCpu, type HostCpu } from "../../vmm/cpu/definition.ts";
import { OptionError } from "../../vmm/options/error.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { epyc, xeon } from "./cpu_testing.ts";

const define = (text: string, host: HostCpu = xeon) => defineCpu(parseCpu(text), host);
const lacks = (cpu: CpuDefinition, ...names: string[]) =>
  assert.deepEqual(names.filter((name) => cpu.features.has(name)), []);
const has = (cpu: CpuDefinition, ...names: string[]) =>
  assert.deepEqual(names.filter((name) => !cpu.features.has(name)), []);
const fails = (text: string, message: string, host?: HostCpu) =>
  assert.throws(() => define(text, host), new OptionError(message));

Deno.test("defineCpu() gives the whole host but what can't move when the model is host", () => {
  const cpu = define("host");
  assert.deepEqual(cpu.warnings, []);
  has(cpu, "avx512f", "mpx", "x2apic", "tsc-deadline", "hypervisor", "arat", "kvmclock", "pdcm");
  lacks(cpu, "invtsc", "vmx", "kvm-hint-dedicated", "monitor");
  const { vendor, family, model, stepping, modelId, physBits, pmu, kvm } = cpu;
  assert.deepEqual([vendor, family, model, stepping], ["GenuineIntel", 6, 85, 4]);
  assert.equal(modelId, "Intel(R) Xeon(R) Gold 6130 CPU @ 2.10GHz");
  assert.deepEqual([physBits, pmu, kvm], [46, true, true]);
  assert.deepEqual(define("max").features.describe(), cpu.features.describe());
});

Deno.test("defineCpu() adds invtsc and vmx to the host model when they are asked for", () => {
  has(define("host,+invtsc,vmx=on"), "invtsc", "vmx");
  has(define("host,migratable=off"), "invtsc", "vmx");
  lacks(define("host,migratable=off"), "kvm-hint-dedicated");
  lacks(define("host,migratable=off,-invtsc"), "invtsc");
});

Deno.test("defineCpu() passes XSAVEERPTR and can clear CX16 when the host has both", () => {
  has(define("host", epyc), "xsaveerptr", "cx16");
  const cpu = define("host,-cx16", epyc);
  lacks(cpu, "cx16");
  has(define("qemu64,-cx16,+xsaveerptr,+kvmclock", epyc), "xsaveerptr", "kvmclock");
  lacks(define("host,+cx16,-cx16", epyc), "cx16");
  lacks(define("host,-cx16,cx16=on", epyc), "cx16");
  assert.deepEqual(cpu.warnings, []);
});

Deno.test("defineCpu() hides Intel's arch-capabilities when the host is an AMD", () => {
  lacks(define("host", epyc), "arch-capabilities");
  has(define("host,+arch-capabilities", epyc), "arch-capabilities");
  has(define("host"), "arch-capabilities");
});

Deno.test("defineCpu() takes the brand string from the host when KVM has none", () => {
  assert.equal(define("host", epyc).modelId, "AMD EPYC");
  assert.equal(define("EPYC", epyc).modelId, "AMD EPYC Processor");
  assert.equal(define("EPYC,model-id=mine", epyc).modelId, "mine");
});

Deno.test("defineCpu() has the TSC deadline only when KVM's capability says so", () => {
  has(define("host"), "tsc-deadline");
  lacks(define("host", { ...xeon, tscDeadline: false }), "tsc-deadline");
});

Deno.test("defineCpu() gives a named model KVM's defaults and the host's vendor when it has KVM", () => {
  const cpu = define("Haswell-noTSX");
  assert.deepEqual(cpu.warnings, []);
  has(cpu, "hypervisor", "x2apic", "kvmclock", "kvm-steal-time", "kvmclock-stable-bit", "avx2");
  lacks(cpu, "rtm", "avx512f", "kvm-pv-ipi", "pdcm");
  assert.deepEqual([cpu.family, cpu.model, cpu.stepping, cpu.pmu], [6, 60, 1, false]);
  assert.equal(define("Haswell", epyc).vendor, "AuthenticAMD");
  assert.equal(define("Haswell,vendor=GenuineIntel", epyc).vendor, "GenuineIntel");
});

Deno.test("defineCpu() warns in QEMU's words and drops the feature when the host lacks it", () => {
  const cpu = define("host,+sse4a,+avx512vnni,+topoext");
  assert.deepEqual(cpu.warnings, [
    "warning: host doesn't support requested feature: CPUID[eax=07h,ecx=00h].ECX.avx512vnni [bit 11]",
    "warning: host doesn't support requested feature: CPUID[eax=80000001h].ECX.sse4a [bit 6]",
    "warning: host doesn't support requested feature: CPUID[eax=80000001h].ECX.topoext [bit 22]",
  ]);
  lacks(cpu, "sse4a", "avx512vnni", "topoext");
  assert.deepEqual(define("host,+sse4a,check=off").warnings, []);
  assert.deepEqual(define("kvm64", epyc).warnings, [
    "warning: host doesn't support requested feature: CPUID[eax=01h].ECX.pni [bit 0]",
  ]);
});

Deno.test("defineCpu() throws when enforce is set and the host lacks a feature", () => {
  fails(
    "host,+sse4a,enforce",
    "Host doesn't support requested features: CPUID[eax=80000001h].ECX.sse4a [bit 6]",
  );
  has(define("Haswell,enforce"), "avx2");
});

Deno.test("defineCpu() drops what depends on a feature when that is off", () => {
  const cpu = define("host,-xsave");
  lacks(cpu, "avx", "avx2", "avx512f", "avx512vl", "xsaves", "mpx", "fma");
  assert.deepEqual(cpu.warnings, []);
  assert.deepEqual(define("host,-avx512f,+avx512vl").warnings, [
    "warning: This feature depends on other features that were not requested: " +
    "CPUID[eax=07h,ecx=00h].EBX.avx512vl [bit 31]",
  ]);
});

Deno.test("defineCpu() hides KVM or the counters when kvm or pmu is off", () => {
  const hidden = define("host,kvm=off,+kvmclock");
  assert.equal(hidden.kvm, false);
  lacks(hidden, "kvmclock", "kvm-pv-ipi");
  has(hidden, "hypervisor");
  const blind = define("host,pmu=off");
  lacks(blind, "pdcm");
  assert.equal(blind.pmu, false);
});

Deno.test("defineCpu() takes identity from properties when they are given", () => {
  const cpu = define(
    "host,family=0x19,model=17,stepping=2,vendor=AuthenticAMD,level=7,xlevel=0x80000008",
  );
  const { family, model, stepping, vendor, level, xlevel } = cpu;
  assert.deepEqual({ family, model, stepping, vendor, level, xlevel }, {
    family: 25,
    model: 17,
    stepping: 2,
    vendor: "AuthenticAMD",
    level: 7,
    xlevel: 0x8000_0008,
  });
});

Deno.test("defineCpu() chooses physical address bits as QEMU does when they are given", () => {
  assert.equal(define("qemu64").physBits, 46);
  assert.equal(define("qemu64,host-phys-bits=off").physBits, 40);
  assert.equal(define("qemu64,host-phys-bits-limit=42").physBits, 42);
  assert.equal(define("qemu64,phys-bits=46").warnings.length, 0);
  const narrow = define("qemu64,phys-bits=39");
  assert.equal(narrow.physBits, 39);
  assert.deepEqual(narrow.warnings, [
    "warning: Host physical bits (46) does not match phys-bits property (39)",
  ]);
  assert.equal(define("qemu64,phys-bits=39,host-phys-bits=on").physBits, 46);
});

Deno.test("defineCpu() throws in QEMU's words when model or property is wrong", () => {
  fails("nope", "unable to find CPU model 'nope'");
  fails("toString", "unable to find CPU model 'toString'");
  fails("host,+nope", "Property 'host-x86_64-cpu.nope' not found");
  fails("host,toString", "Property 'host-x86_64-cpu.toString' not found");
  fails("Haswell,migratable=off", "Property 'Haswell-x86_64-cpu.migratable' not found");
  fails("host,pmu=7", "Parameter 'pmu' expects 'on' or 'off'");
  fails("host,avx=7", "Parameter 'avx' expects 'on' or 'off'");
  fails("host,family=271", "parameter 'family' can be at most 270");
  fails("host,model=256", "parameter 'model' can be at most 255");
  fails("host,stepping=16", "parameter 'stepping' can be at most 15");
  fails("host,vendor=Intel", "value of property 'vendor' must consist of exactly 12 characters");
  fails("host,phys-bits=99", "phys-bits should be between 32 and 52  (but is 99)");
  assert.throws(() => define("host,stepping=x"), OptionError);
  assert.throws(() => define("host,stepping=-1"), OptionError);
});
