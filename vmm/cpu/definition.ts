/**
 * What `-cpu` asks for on this host: a model, its changes, and what KVM can't give of it.
 *
 * @module
 */
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import type { CpuConfig } from "../config.ts";
import { OptionError } from "../options/error.ts";
import { FeatureSet, findCpuid, isFeature } from "./features.ts";
import { type CpuModel, findCpuModel } from "./models.ts";
import { type CpuProperties, setProperty } from "./properties.ts";
import { decodeSignature, decodeText } from "./registers.ts";

/** What a host can give to a guest. */
export interface HostCpu {
  /** KVM_GET_SUPPORTED_CPUID. */
  readonly supported: readonly CpuidEntry[];
  /** KVM_CAP_TSC_DEADLINE_TIMER: older kernels don't say so in their CPUID table. */
  readonly tscDeadline: boolean;
  /** The host's brand string, for a KVM whose table has none. */
  readonly modelId?: string;
  /** The vendor of the host's processor, whatever CPU the accelerator would offer. */
  readonly processorVendor?: string;
}

/** A CPU that this host can run, before it has a place in a topology. */
export interface CpuDefinition {
  /** Twelve characters: `GenuineIntel`. */
  readonly vendor: string;
  /** Family, with the extended family added. */
  readonly family: number;
  /** Model, with the extended model as its high digit. */
  readonly model: number;
  /** Stepping. */
  readonly stepping: number;
  /** The brand string. */
  readonly modelId: string;
  /** The highest basic leaf, if the user fixed it. */
  readonly level?: number;
  /** The highest extended leaf, if the user fixed it. */
  readonly xlevel?: number;
  /** The highest basic leaf that the model has at least. */
  readonly minLevel: number;
  /** The highest extended leaf that the model has at least. */
  readonly minXlevel: number;
  /** Bits of a guest physical address. */
  readonly physBits: number;
  /** How many of them nested paging can map, as KVM reports it; 0 for all. */
  readonly guestPhysBits: number;
  /** All features that the guest sees but `ht` and `cmp-legacy`, which follow from its topology. */
  readonly features: FeatureSet;
  /** Whether the guest may know that it runs on KVM. */
  readonly kvm: boolean;
  /** Whether the guest has the host's performance counters. */
  readonly pmu: boolean;
  /** Whether the guest sees nothing of the host's caches. */
  readonly portable: boolean;
  /** What the user should know, in QEMU's words. */
  readonly warnings: readonly string[];
}

/**
 * What KVM emulates whether or not its table says so: the LAPIC timer never stops (arat), and the
 * hypervisor bit and the topology's bits are the VMM's to set.
 */
const GRANTED = "arat hypervisor ht cmp-legacy kvm-hint-dedicated";

/**
 * What `host` has only if asked for: nested virtualization's state isn't saved by an update, an
 * invariant TSC is a promise about the next host too, umwait holds a host CPU, and the hint is
 * true only if the user has pinned the vCPUs.
 */
const ONLY_ON_REQUEST = "vmx svm invtsc waitpkg kvm-hint-dedicated";

/** What a named model gets beside its own features, as from QEMU under KVM, of what the host has. */
const KVM_DEFAULTS = `hypervisor x2apic kvmclock kvm-nopiodelay kvm-asyncpf kvm-steal-time
  kvm-pv-eoi kvmclock-stable-bit`;

/** The same for a portable model: what every KVM and the software CPU have. */
const PORTABLE_DEFAULTS = "hypervisor x2apic kvmclock kvm-nopiodelay kvmclock-stable-bit";

const KVM_FEATURES = FeatureSet.of(`kvmclock kvm-nopiodelay kvm-mmu kvm-asyncpf kvm-steal-time
  kvm-pv-eoi kvm-pv-unhalt kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control
  kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id kvmclock-stable-bit kvm-hint-dedicated`);

const PMU_FEATURES = FeatureSet.of("pdcm perfctr-core perfctr-nb perfmon-v2");

/** Features that mean nothing without another one; in this order, so that one pass is enough. */
const DEPENDENTS: readonly (readonly [required: string, dependents: FeatureSet])[] = [
  ["xsave", FeatureSet.of("xsaveopt xsavec xgetbv1 xsaves xfd avx mpx amx-tile")],
  [
    "avx",
    FeatureSet.of(`avx2 fma f16c vaes vpclmulqdq avx512f avx-vnni avx-ifma avx-vnni-int8
      avx-vnni-int16 avx-ne-convert sha512 sm3 sm4 xop fma4`),
  ],
  [
    "avx512f",
    FeatureSet.of(`avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi
      avx512vbmi2 avx512vnni avx512bitalg avx512-vpopcntdq avx512-4vnniw avx512-4fmaps
      avx512-vp2intersect avx512-bf16 avx512-fp16`),
  ],
  ["amx-tile", FeatureSet.of("amx-bf16 amx-int8 amx-fp16 amx-complex xfd")],
  ["perfctr-core", FeatureSet.of("perfmon-v2")],
  [
    "svm",
    FeatureSet.of(`npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists
      pause-filter pfthreshold avic v-vmsave-vmload vgif vnmi svme-addr-chk`),
  ],
];

/** Whether a vendor's processors follow AMD's conventions. */
export function isAmd(vendor: string): boolean {
  return vendor === "AuthenticAMD" || vendor === "HygonGenuine";
}

/** Every feature that a guest can have on this host. */
export function hostFeatures({ supported, tscDeadline }: Omit<HostCpu, "modelId">): FeatureSet {
  const features = FeatureSet.fromCpuid(supported).or(FeatureSet.of(GRANTED));
  if (tscDeadline) features.put("tsc-deadline", true);
  return features;
}

/**
 * Works out the CPU that `-cpu` asks for.
 *
 * @throws {OptionError} if the model or a property is unknown, a value is out of range, or with
 * `enforce` if the host lacks a feature
 */
export function defineCpu(config: CpuConfig, host: HostCpu): CpuDefinition {
  const { passthrough, model, properties, switches } = readCpu(config);
  const identity = model ? namedIdentity(model, host) : hostIdentity(host);
  const vendor = properties.vendor ?? identity.vendor;
  const warnings: string[] = [];
  const features = chooseFeatures(
    model ? modelFeatures(model, host) : passthroughFeatures(host, vendor, properties),
    switches,
    properties,
    host,
    warnings,
  );
  return {
    ...identity,
    vendor,
    family: properties.family ?? identity.family,
    model: properties.model ?? identity.model,
    stepping: properties.stepping ?? identity.stepping,
    modelId: properties.modelId ?? identity.modelId,
    level: properties.level,
    xlevel: properties.xlevel,
    ...physicalAddress(
      properties,
      host,
      warnings,
      model?.portable ? PORTABLE_PHYS_BITS : undefined,
    ),
    portable: model?.portable ?? false,
    features,
    kvm: properties.kvm ?? true,
    pmu: properties.pmu ?? passthrough,
    warnings,
  };
}

/** What a `-cpu` option says, whatever the host. */
interface ReadCpu {
  /** Whether it is the host's own CPU. */
  readonly passthrough: boolean;
  readonly model: CpuModel | undefined;
  readonly properties: CpuProperties;
  readonly switches: readonly (readonly [name: string, on: boolean])[];
}

/**
 * Reads `-cpu`.
 *
 * @throws {OptionError} if the model or a property is unknown, or a value is out of range
 */
export function readCpu(config: CpuConfig): ReadCpu {
  const properties: CpuProperties = {};
  const switches: [name: string, on: boolean][] = [];
  const passthrough = config.model === "host" || config.model === "max";
  const model = passthrough ? undefined : findCpuModel(config.model);
  if (!passthrough && !model) throw new OptionError(`unable to find CPU model '${config.model}'`);
  for (const [name, value] of config.features) {
    if (isFeature(name)) switches.push([name, featureValue(name, value)]);
    else setProperty(properties, config.model, name, value);
  }
  return { passthrough, model, properties, switches };
}

function featureValue(name: string, value: string | boolean): boolean {
  if (typeof value === "boolean") return value;
  throw new OptionError(`Parameter '${name}' expects 'on' or 'off'`);
}

type Identity = Pick<
  CpuDefinition,
  "vendor" | "family" | "model" | "stepping" | "modelId" | "minLevel" | "minXlevel"
>;

function hostIdentity({ supported, modelId }: HostCpu): Identity {
  const signature = findCpuid(supported, 1)?.eax ?? 0;
  const brand = [0x8000_0002, 0x8000_0003, 0x8000_0004].map((leaf) => {
    const entry = findCpuid(supported, leaf);
    return entry ? decodeText(entry.eax, entry.ebx, entry.ecx, entry.edx) : "";
  });
  return {
    vendor: hostVendor(supported),
    ...decodeSignature(signature),
    modelId: brand.join("") || (modelId ?? ""),
    minLevel: findCpuid(supported, 0)?.eax ?? 0,
    minXlevel: findCpuid(supported, 0x8000_0000)?.eax ?? 0,
  };
}

/**
 * A named model keeps the host's vendor, as in QEMU under KVM: guests choose between SYSCALL and
 * SYSENTER, and look for their caches and mitigations, by it. A portable model has that of the
 * processor that KVM would run it on also where it is emulated.
 */
function namedIdentity(named: CpuModel, host: HostCpu): Identity {
  const { family, model, stepping, modelId, level, xlevel, portable } = named;
  const vendor = (portable ? host.processorVendor : undefined) ?? hostVendor(host.supported);
  return { vendor, family, model, stepping, modelId, minLevel: level, minXlevel: xlevel };
}

function hostVendor(supported: readonly CpuidEntry[]): string {
  const { ebx = 0, ecx = 0, edx = 0 } = findCpuid(supported, 0) ?? {};
  return decodeText(ebx, edx, ecx);
}

function modelFeatures({ name, features, portable }: CpuModel, host: HostCpu): FeatureSet {
  const own = FeatureSet.of(features);
  if (portable) return own.or(FeatureSet.of(PORTABLE_DEFAULTS));
  return name === "base" ? own : own.or(FeatureSet.of(KVM_DEFAULTS).and(hostFeatures(host)));
}

function passthroughFeatures(
  host: HostCpu,
  vendor: string,
  { migratable }: CpuProperties,
): FeatureSet {
  const all = hostFeatures(host);
  if (migratable === false) {
    all.put("kvm-hint-dedicated", false);
    return all;
  }
  const features = all.named().minus(FeatureSet.of(ONLY_ON_REQUEST));
  // KVM emulates Intel's MSR everywhere, but no AMD processor has it and guests don't expect it.
  if (isAmd(vendor)) features.put("arch-capabilities", false);
  return features;
}

/** Applies the user's switches and takes out what can't be had. */
function chooseFeatures(
  base: FeatureSet,
  switches: readonly (readonly [name: string, on: boolean])[],
  { check, enforce, kvm, pmu }: CpuProperties,
  host: HostCpu,
  warnings: string[],
): FeatureSet {
  let features = base.clone();
  const requested = FeatureSet.of();
  for (const [name, on] of switches) {
    features.put(name, on);
    requested.put(name, on);
  }
  if (kvm === false) features = features.minus(KVM_FEATURES);
  if (pmu === false) features = features.minus(PMU_FEATURES);

  const dependent = withoutOrphans(features);
  warn(
    warnings,
    "This feature depends on other features that were not requested",
    features.minus(dependent).and(requested),
  );
  const available = dependent.and(hostFeatures(host));
  const missing = dependent.minus(available);
  if (enforce) refuse(missing);
  if (check !== false) warn(warnings, "host doesn't support requested feature", missing);
  return withoutOrphans(available);
}

function refuse(missing: FeatureSet): void {
  if (missing.empty) return;
  const bits = missing.describe().join(", ");
  throw new OptionError(`Host doesn't support requested features: ${bits}`);
}

function warn(warnings: string[], text: string, features: FeatureSet): void {
  for (const bit of features.describe()) warnings.push(`warning: ${text}: ${bit}`);
}

function withoutOrphans(features: FeatureSet): FeatureSet {
  return DEPENDENTS.reduce(
    (left, [required, dependents]) => left.has(required) ? left : left.minus(dependents),
    features,
  );
}

/** QEMU's choice where neither user nor host says how wide a physical address is. */
const DEFAULT_PHYS_BITS = 40;
/** What every processor has that has the features of a portable model. */
const PORTABLE_PHYS_BITS = 39;

function physicalAddress(
  { physBits, hostPhysBits, hostPhysBitsLimit }: CpuProperties,
  { supported }: HostCpu,
  warnings: string[],
  ownBits: number | undefined,
): Pick<CpuDefinition, "physBits" | "guestPhysBits"> {
  const eax = findCpuid(supported, 0x8000_0008)?.eax ?? 0;
  const hostBits = eax & 0xff;
  if (ownBits !== undefined && physBits === undefined && hostPhysBits === undefined) {
    return { physBits: Math.min(ownBits, hostBits), guestPhysBits: 0 };
  }
  if (hostPhysBits ?? physBits === undefined) {
    const limit = hostPhysBitsLimit ?? 0;
    const bits = limit > 0 && limit < hostBits ? limit : hostBits;
    const guestBits = eax >>> 16 & 0xff;
    return { physBits: bits, guestPhysBits: guestBits < bits ? guestBits : 0 };
  }
  const bits = physBits ?? DEFAULT_PHYS_BITS;
  if (physBits !== undefined && bits !== hostBits) {
    warnings.push(
      `warning: Host physical bits (${hostBits}) does not match phys-bits property (${bits})`,
    );
  }
  return { physBits: bits, guestPhysBits: 0 };
}
