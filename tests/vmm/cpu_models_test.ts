import assert from "node:assert/strict";
import { FeatureSet } from "../../vmm/cpu/features.ts";
import { cpuHelp } from "../../vmm/cpu/help.ts";
import { cpuModels, findCpuModel } from "../../vmm/cpu/models.ts";

const differs = (a: string, b: string) => {
  const [left, right] = [a, b].map((name) => FeatureSet.of(findCpuModel(name)!.features));
  return {
    gone: left.minus(right).describe().map((bit) => bit.match(/\.([^.]+) \[/)![1]),
    added: right.minus(left).describe().map((bit) => bit.match(/\.([^.]+) \[/)![1]),
  };
};

Deno.test("findCpuModel() gives the latest version when the name has none", () => {
  assert.equal(findCpuModel("Haswell"), findCpuModel("Haswell-v4"));
  assert.equal(findCpuModel("kvm64"), findCpuModel("kvm64-v1"));
  assert.equal(findCpuModel("Haswell-noTSX")?.name, "Haswell-v2");
  assert.equal(findCpuModel("base")?.features, "");
  for (const name of ["haswell", "Haswell-v5", "host", "", "Haswell-v1-v1"]) {
    assert.equal(findCpuModel(name), undefined, name);
  }
});

Deno.test("cpuModels names only known features when a model lists them", () => {
  for (const { name, features } of cpuModels) {
    assert.doesNotThrow(() => FeatureSet.of(features), name);
  }
});

Deno.test("cpuModels differ as their processors do when one follows another", () => {
  assert.deepEqual(differs("Haswell-v1", "Haswell-noTSX"), { gone: ["hle", "rtm"], added: [] });
  assert.deepEqual(differs("Haswell-v2", "Haswell-v3").added, ["hle", "rtm", "spec-ctrl"]);
  assert.deepEqual(differs("SandyBridge-v1", "IvyBridge-v1"), {
    gone: [],
    added: ["f16c", "rdrand", "fsgsbase", "smep", "erms"],
  });
  assert.deepEqual(differs("Skylake-Server-v1", "Cascadelake-Server-v1"), {
    gone: [],
    added: ["avx512vnni", "spec-ctrl", "ssbd"],
  });
  assert.deepEqual(differs("EPYC-v1", "EPYC-IBPB"), { gone: [], added: ["ibpb"] });
  assert.deepEqual(differs("qemu64", "kvm64"), { gone: ["lahf-lm"], added: ["vme"] });
});

Deno.test("cpuModels keep a later model number when a version changes it", () => {
  assert.equal(findCpuModel("Icelake-Server-v3")?.model, 134);
  assert.equal(findCpuModel("Icelake-Server-v5")?.model, 106);
  assert.deepEqual(["v1", "v2", "v3", "v4"].map((v) => findCpuModel(`Haswell-${v}`)?.stepping), [
    4,
    1,
    4,
    1,
  ]);
});

Deno.test("cpuHelp() lists models, aliases and flags when asked", () => {
  const lines = cpuHelp().split("\n");
  assert.equal(lines[0], "Available CPUs:");
  assert.ok(lines.includes("  qemu64                (alias configured by machine type)"));
  assert.ok(lines.includes("  qemu64-v1             QEMU Virtual CPU version 2.5+"));
  assert.ok(lines.includes("  Haswell-noTSX         (alias of Haswell-v2)"));
  assert.ok(lines.includes("  host                  processor with all supported host features"));
  assert.equal(lines.filter((line) => /^ {2}base /.test(line)).length, 1);
  const flags = lines.slice(lines.indexOf("Recognized CPUID flags:") + 1);
  assert.ok(flags.join(" ").split(/ +/).includes("xsaveerptr"));
  assert.ok(flags.every((line) => line.length <= 75 && line.startsWith("  ")));
});
