import assert from "node:assert/strict";
import { KvmAccelerator } from "../../vmm/accel/kvm/system.ts";
import { compareCpuid } from "../../vmm/cpu/compare.ts";
import { cpuTables, hostCpu } from "../../vmm/cpu/tables.ts";
import { parseCpu } from "../../vmm/options/machine.ts";
import { parseSmp } from "../../vmm/options/smp.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { emulated, epyc, leaf, xeon } from "./cpu_testing.ts";

const hosts = [xeon, epyc, emulated];
const models = ["host", "host,migratable=off", "qemu64,check=off", "EPYC-Milan,check=off"];

Deno.test("cpuTables() gives no more than the host has when the model is any", () => {
  for (const host of hosts) {
    for (const text of models) {
      const config = { cpu: parseCpu(text), smp: parseSmp("4,cores=2,threads=2") };
      const { identities } = cpuTables(config, host);
      assert.deepEqual(identities.map(({ apicId }) => apicId), [0, 1, 2, 3]);
      for (const { apicId, cpuid } of identities) {
        assert.equal(leaf(cpuid, 0xb).edx, apicId);
        assert.deepEqual(compareCpuid(cpuid, host), [], text);
      }
    }
  }
});

onlyKvmTest("cpuTables() gives tables that this host's KVM takes when the model is any", () => {
  using kvm = new KvmAccelerator();
  for (const text of models) {
    const config = { cpu: parseCpu(text), smp: parseSmp("4,cores=2,threads=2") };
    const cpus = cpuTables(config, hostCpu(kvm)).identities;
    assert.doesNotThrow(() => kvm.createVm({ pit: false, pic: true, cpus }).close(), text);
    for (const { cpuid } of cpus) {
      assert.deepEqual(compareCpuid(cpuid, hostCpu(kvm)), []);
    }
  }
});

Deno.test("cpuTables() gives the host's brand string when the model is host", () => {
  for (const host of hosts) {
    const { identities } = cpuTables({ cpu: parseCpu("host"), smp: parseSmp("1") }, host);
    assert.notEqual(leaf(identities[0].cpuid, 0x8000_0002).eax, 0);
  }
});

onlyKvmTest("hostCpu() has a brand string, KVM's or the host's own", () => {
  using kvm = new KvmAccelerator();
  const { supported, modelId } = hostCpu(kvm);
  assert.ok(modelId || leaf(supported, 0x8000_0002).eax !== 0);
});

Deno.test("cpuTables() is the same each time when host and options are the same", () => {
  const config = { cpu: parseCpu("host"), smp: parseSmp("2") };
  for (const host of hosts) assert.deepEqual(cpuTables(config, host), cpuTables(config, host));
});

Deno.test("cpuTables() warns of threads when an AMD has no topoext", () => {
  const warnings = (text: string, smp: string) =>
    cpuTables({ cpu: parseCpu(text), smp: parseSmp(smp) }, epyc).warnings;
  const text = "host,vendor=AuthenticAMD,-topoext";
  assert.deepEqual(warnings(text, "2,threads=2"), [
    "warning: This family of AMD CPU doesn't support hyperthreading(2). Please configure -smp " +
    "options properly or try enabling topoext feature.",
  ]);
  assert.deepEqual(warnings(text, "2,cores=2"), []);
  assert.deepEqual(warnings("host,vendor=GenuineIntel,-topoext", "2,threads=2"), []);
});
