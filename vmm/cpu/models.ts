/**
 * The CPU models that `-cpu` knows by name.
 *
 * What a processor has is public: signatures and feature bits are in the Intel SDM and in AMD's
 * processor programming references. A model leaves out what a guest can't have (power management,
 * performance counters, virtualization), so that it means the same on every host. Versions are
 * those of QEMU's models of the same names; a name without a version means the latest, as it does
 * for QEMU's microvm.
 *
 * @module
 */

/** How a version of a model differs from the version before it. */
interface VersionChange {
  /** Another name for this version: `Haswell-noTSX` is `Haswell-v2`. */
  readonly alias?: string;
  /** Features that come and go, separated by spaces. */
  readonly add?: string;
  readonly remove?: string;
  readonly model?: number;
  readonly stepping?: number;
  readonly modelId?: string;
  readonly portable?: boolean;
}

/** A named CPU model, one version of it. */
export interface CpuModel {
  /** The name with the version: `Haswell-v2`. */
  readonly name: string;
  /** Another name for this version, if it has one. */
  readonly alias?: string;
  /** The highest basic leaf, raised by features that need a higher one. */
  readonly level: number;
  /** The highest extended leaf, raised likewise. */
  readonly xlevel: number;
  /** Family, with the extended family added. */
  readonly family: number;
  /** Model, with the extended model as its high digit. */
  readonly model: number;
  /** Stepping. */
  readonly stepping: number;
  /** The brand string, at most 48 characters. */
  readonly modelId: string;
  /** Feature names, separated by spaces. */
  readonly features: string;
  /**
   * Whether it is the same on every accelerator that has its features, so that a guest can be moved
   * between them: it has nothing of the host's but the processor's vendor.
   */
  readonly portable?: boolean;
}

type FirstVersion = Omit<CpuModel, "alias">;

const wordsOf = (text = "") => text.split(/\s+/).filter((name) => name !== "");

/** A model and the versions that follow its first, each built on the one before. */
function versions(first: FirstVersion, changes: readonly VersionChange[] = []): CpuModel[] {
  const family = first.name;
  const built: CpuModel[] = [{ ...first, name: `${family}-v1` }];
  changes.forEach(({ add, remove, ...change }, i) => {
    const previous = built[i];
    const gone = wordsOf(remove);
    const features = [...wordsOf(previous.features), ...wordsOf(add)]
      .filter((name) => !gone.includes(name)).join(" ");
    built.push({ ...previous, alias: undefined, ...change, features, name: `${family}-v${i + 2}` });
  });
  return built;
}

// Each generation has what the one before has and more.
const x86_64 = `fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr
  sse sse2 pni cx16 syscall nx lm`;
const nehalem = `${x86_64} vme ssse3 sse4.1 sse4.2 popcnt lahf-lm`;
/** x86-64-v2 and what both processors of the last ten years and the software CPU have. */
const denovo64 =
  `${x86_64} ssse3 sse4.1 sse4.2 popcnt lahf-lm movbe rdrand rdtscp fsgsbase smep erms arat
  tsc-deadline`;
const westmere = `${nehalem} aes pclmulqdq arat`;
const sandyBridge = `${westmere} avx xsave xsaveopt tsc-deadline rdtscp`;
const ivyBridge = `${sandyBridge} f16c rdrand fsgsbase smep erms`;
const haswell = `${ivyBridge} fma movbe pcid avx2 bmi1 bmi2 invpcid abm hle rtm`;
const broadwell = `${haswell} rdseed adx smap 3dnowprefetch`;
const skylake = `${broadwell} xsavec xgetbv1`;
const skylakeServer = `${skylake} clflushopt clwb pku pdpe1gb
  avx512f avx512dq avx512cd avx512bw avx512vl`;
const cascadeLake = `${skylakeServer} avx512vnni spec-ctrl ssbd`;
const iceLakeServer = `${cascadeLake} avx512vbmi avx512vbmi2 avx512bitalg avx512-vpopcntdq gfni vaes
  vpclmulqdq umip la57 wbnoinvd`;

const zen = `${nehalem} aes pclmulqdq arat avx f16c fma movbe rdrand xsave xsaveopt xsavec xgetbv1
  fsgsbase bmi1 bmi2 avx2 smep smap rdseed adx clflushopt sha-ni rdtscp pdpe1gb mmxext fxsr-opt
  cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext`;
const zen2 = `${zen} clwb rdpid umip clzero xsaveerptr wbnoinvd ibpb amd-stibp perfctr-core xsaves`;
const zen3 = `${zen2} erms fsrm invpcid pcid pku ibrs amd-ssbd`;

const noTsx = "hle rtm";
const intel = { level: 0xd, xlevel: 0x8000_0008, family: 6 } as const;
const amd = { level: 0xd, xlevel: 0x8000_001e } as const;

/** All named models with all their versions; what `host` and `max` are, the host says. */
export const cpuModels: readonly CpuModel[] = [
  ...versions({
    name: "base",
    level: 0,
    xlevel: 0,
    family: 0,
    model: 0,
    stepping: 0,
    modelId: "",
    features: "",
  }).map((model): CpuModel => ({ ...model, name: "base" })),
  ...versions({
    name: "qemu64",
    level: 0xd,
    xlevel: 0x8000_000a,
    family: 15,
    model: 107,
    stepping: 1,
    modelId: "QEMU Virtual CPU version 2.5+",
    features: `${x86_64} lahf-lm`,
  }),
  ...versions({
    name: "denovo64",
    level: 0x7,
    xlevel: 0x8000_0008,
    family: 15,
    model: 107,
    stepping: 1,
    modelId: "Denovo Virtual CPU",
    features: denovo64,
  }, [{ portable: true }]),
  ...versions({
    name: "kvm64",
    level: 0xd,
    xlevel: 0x8000_0008,
    family: 15,
    model: 6,
    stepping: 1,
    modelId: "Common KVM processor",
    features: `${x86_64} vme`,
  }),
  ...versions({
    ...intel,
    name: "Nehalem",
    level: 0xb,
    model: 26,
    stepping: 3,
    modelId: "Intel Core i7 9xx (Nehalem Class Core i7)",
    features: nehalem,
  }, [{
    alias: "Nehalem-IBRS",
    add: "spec-ctrl",
    modelId: "Intel Core i7 9xx (Nehalem Core i7, IBRS update)",
  }]),
  ...versions({
    ...intel,
    name: "Westmere",
    level: 0xb,
    model: 44,
    stepping: 1,
    modelId: "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
    features: westmere,
  }, [{
    alias: "Westmere-IBRS",
    add: "spec-ctrl",
    modelId: "Westmere E56xx/L56xx/X56xx (IBRS update)",
  }]),
  ...versions({
    ...intel,
    name: "SandyBridge",
    model: 42,
    stepping: 1,
    modelId: "Intel Xeon E312xx (Sandy Bridge)",
    features: sandyBridge,
  }, [{
    alias: "SandyBridge-IBRS",
    add: "spec-ctrl",
    modelId: "Intel Xeon E312xx (Sandy Bridge, IBRS update)",
  }]),
  ...versions({
    ...intel,
    name: "IvyBridge",
    model: 58,
    stepping: 9,
    modelId: "Intel Xeon E3-12xx v2 (Ivy Bridge)",
    features: ivyBridge,
  }, [{
    alias: "IvyBridge-IBRS",
    add: "spec-ctrl",
    modelId: "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)",
  }]),
  ...versions({
    ...intel,
    name: "Haswell",
    model: 60,
    stepping: 4,
    modelId: "Intel Core Processor (Haswell)",
    features: haswell,
  }, [
    {
      alias: "Haswell-noTSX",
      remove: noTsx,
      stepping: 1,
      modelId: "Intel Core Processor (Haswell, no TSX)",
    },
    {
      alias: "Haswell-IBRS",
      add: `${noTsx} spec-ctrl`,
      stepping: 4,
      modelId: "Intel Core Processor (Haswell, IBRS)",
    },
    {
      alias: "Haswell-noTSX-IBRS",
      remove: noTsx,
      stepping: 1,
      modelId: "Intel Core Processor (Haswell, no TSX, IBRS)",
    },
  ]),
  ...versions({
    ...intel,
    name: "Broadwell",
    model: 61,
    stepping: 2,
    modelId: "Intel Core Processor (Broadwell)",
    features: broadwell,
  }, [
    {
      alias: "Broadwell-noTSX",
      remove: noTsx,
      modelId: "Intel Core Processor (Broadwell, no TSX)",
    },
    {
      alias: "Broadwell-IBRS",
      add: `${noTsx} spec-ctrl`,
      modelId: "Intel Core Processor (Broadwell, IBRS)",
    },
    {
      alias: "Broadwell-noTSX-IBRS",
      remove: noTsx,
      modelId: "Intel Core Processor (Broadwell, no TSX, IBRS)",
    },
  ]),
  ...versions({
    ...intel,
    name: "Skylake-Client",
    model: 94,
    stepping: 3,
    modelId: "Intel Core Processor (Skylake)",
    features: skylake,
  }, [
    {
      alias: "Skylake-Client-IBRS",
      add: "spec-ctrl",
      modelId: "Intel Core Processor (Skylake, IBRS)",
    },
    {
      alias: "Skylake-Client-noTSX-IBRS",
      remove: noTsx,
      modelId: "Intel Core Processor (Skylake, IBRS, no TSX)",
    },
    { add: "xsaves" },
  ]),
  ...versions({
    ...intel,
    name: "Skylake-Server",
    model: 85,
    stepping: 4,
    modelId: "Intel Xeon Processor (Skylake)",
    features: skylakeServer,
  }, [
    {
      alias: "Skylake-Server-IBRS",
      add: "spec-ctrl",
      remove: "clflushopt",
      modelId: "Intel Xeon Processor (Skylake, IBRS)",
    },
    {
      alias: "Skylake-Server-noTSX-IBRS",
      remove: noTsx,
      modelId: "Intel Xeon Processor (Skylake, IBRS, no TSX)",
    },
    // QEMU's version 4 differs in nested virtualization only.
    {},
    { add: "xsaves" },
  ]),
  ...versions({
    ...intel,
    name: "Cascadelake-Server",
    model: 85,
    stepping: 6,
    modelId: "Intel Xeon Processor (Cascadelake)",
    features: cascadeLake,
  }, [
    { add: "arch-capabilities" },
    { alias: "Cascadelake-Server-noTSX", remove: noTsx },
    {},
    { add: "xsaves" },
  ]),
  ...versions({
    ...intel,
    name: "Icelake-Server",
    model: 134,
    stepping: 0,
    modelId: "Intel Xeon Processor (Icelake)",
    features: iceLakeServer,
  }, [
    { alias: "Icelake-Server-noTSX", remove: noTsx },
    { add: "arch-capabilities" },
    { add: "sha-ni avx512ifma rdpid fsrm", model: 106 },
    { add: "xsaves" },
  ]),
  ...versions({
    ...amd,
    name: "EPYC",
    family: 23,
    model: 1,
    stepping: 2,
    modelId: "AMD EPYC Processor",
    features: zen,
  }, [
    { alias: "EPYC-IBPB", add: "ibpb", modelId: "AMD EPYC Processor (with IBPB)" },
    { add: "perfctr-core clzero xsaveerptr xsaves", modelId: "AMD EPYC Processor" },
  ]),
  ...versions({
    ...amd,
    name: "EPYC-Rome",
    family: 23,
    model: 49,
    stepping: 0,
    modelId: "AMD EPYC-Rome Processor",
    features: zen2,
  }, [{ add: "ibrs amd-ssbd" }]),
  ...versions({
    ...amd,
    name: "EPYC-Milan",
    family: 25,
    model: 1,
    stepping: 1,
    modelId: "AMD EPYC-Milan Processor",
    features: zen3,
  }),
];

/** The name of a model without its version. */
export const unversioned = (name: string): string => name.replace(/-v\d+$/, "");

/** Finds a model by its name with a version, without one (the latest), or by its alias. */
export function findCpuModel(name: string): CpuModel | undefined {
  return cpuModels.find((model) => model.name === name || model.alias === name) ??
    cpuModels.findLast((model) => unversioned(model.name) === name);
}
