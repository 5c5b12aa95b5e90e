import assert from "node:assert/strict";
import { KvmSystem } from "../../ffi/kvm/system.ts";
import { KvmVcpu } from "../../ffi/kvm/vcpu.ts";
import { KvmVm } from "../../ffi/kvm/vm.ts";
import { compareCpuid } from "../../vmm/cpu/compare.ts";
import { cpuTables, hostCpu } from "../../vmm/cpu/tables.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { parseSmp } from "../../vmm/options/smp.ts";
import { leaf } from "./cpu_testing.ts";

Deno.test("cpuTables() gives tables that this host's KVM takes when the model is any", () => {
  using kvm = new KvmSystem();
  for (const text of ["host", "host,migratable=off", "qemu64,check=off", "EPYC-Milan,check=off"]) {
    const config = { cpu: parseCpu(text), smp: parseSmp("4,cores=2,threads=2") };
    const { vcpus } = cpuTables(config, kvm);
    assert.deepEqual(vcpus.map((vcpu) => vcpu.apicId), [0, 1, 2, 3]);
    using vm = new KvmVm(kvm.createVm());
    vm.createIrqchip();
    const size = kvm.vcpuMmapSize();
    for (const { apicId, cpuid } of vcpus) {
      using vcpu = new KvmVcpu(vm.createVcpu(apicId), size);
      assert.doesNotThrow(() => vcpu.setCpuid(cpuid), text);
      assert.equal(leaf(cpuid, 0xb).edx, apicId);
      assert.deepEqual(compareCpuid(cpuid, hostCpu(kvm)), []);
    }
  }
});

Deno.test("cpuTables() gives the host's brand string when the model is host", () => {
  using kvm = new KvmSystem();
  const { vcpus } = cpuTables({ cpu: parseCpu("host"), smp: parseSmp("1") }, kvm);
  assert.notEqual(leaf(vcpus[0].cpuid, 0x8000_0002).eax, 0);
});

Deno.test("cpuTables() is the same each time when host and options are the same", () => {
  using kvm = new KvmSystem();
  const config = { cpu: parseCpu("host"), smp: parseSmp("2") };
  assert.deepEqual(cpuTables(config, kvm), cpuTables(config, kvm));
});

Deno.test("cpuTables() warns of threads when an AMD has no topoext", () => {
  using kvm = new KvmSystem();
  const warnings = (text: string, smp: string) =>
    cpuTables({ cpu: parseCpu(text), smp: parseSmp(smp) }, kvm).warnings;
  const text = "host,vendor=AuthenticAMD,-topoext";
  assert.deepEqual(warnings(text, "2,threads=2"), [
    "warning: This family of AMD CPU doesn't support hyperthreading(2). Please configure -smp " +
    "options properly or try enabling topoext feature.",
  ]);
  assert.deepEqual(warnings(text, "2,cores=2"), []);
  assert.deepEqual(warnings("host,vendor=GenuineIntel,-topoext", "2,threads=2"), []);
});
