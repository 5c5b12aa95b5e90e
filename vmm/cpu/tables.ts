/**
 * The CPUs of a machine: APIC ids and CPUID tables.
 *
 * @module
 */
import type { Accelerator, CpuIdentity } from "../accel/accelerator.ts";
import type { CpuidEntry } from "../../ffi/kvm/cpuid.ts";
import type { MachineConfig } from "../config.ts";
import { buildCpuid } from "./cpuid.ts";
import { type CpuDefinition, defineCpu, type HostCpu, isAmd } from "./definition.ts";
import { findCpuid } from "./features.ts";
import { withPortableCaches } from "./portable_caches.ts";
import { apicId } from "./topology.ts";

/** What an accelerator says of the CPUs that it can give a guest. */
export type CpuOffer = Pick<Accelerator, "supportedCpuid" | "tscDeadline">;

/** The vCPUs as the accelerator is told of them. */
export interface CpuTables {
  /** One entry a vCPU. */
  readonly identities: readonly CpuIdentity[];
  /** What the user should know, in QEMU's words. */
  readonly warnings: readonly string[];
}

/**
 * Works out the vCPUs that `-cpu` and `-smp` ask for on a host.
 *
 * @throws {OptionError} if `-cpu` is wrong, or asks with `enforce` for what the host lacks
 * @throws {RangeError} if an APIC id does not fit into 8 bits
 */
export function cpuTables(
  { cpu: config, smp }: Pick<MachineConfig, "cpu" | "smp">,
  host: HostCpu,
): CpuTables {
  const cpu = defineCpu(config, host);
  const supported = cpu.portable ? withPortableCaches(host.supported) : host.supported;
  const identities = Array.from({ length: smp.cpus }, (_, index) => {
    const id = apicId(smp, index);
    return { apicId: id, cpuid: buildCpuid(cpu, supported, smp, id) };
  });
  return { identities, warnings: [...cpu.warnings, ...threadWarnings(cpu, smp.threads)] };
}

/** A processor's that does not say how many (Intel SDM volume 3, 4.1.4). */
const USUAL_PHYSICAL_BITS = 36;

/** How many bits a processor's physical addresses have. */
export function physicalBitsOf(cpuid: readonly CpuidEntry[]): number {
  return (findCpuid(cpuid, 0x8000_0008)?.eax ?? USUAL_PHYSICAL_BITS) & 0xff;
}

/** What this host can give to a guest. */
export function hostCpu(offer: CpuOffer): HostCpu {
  const supported = offer.supportedCpuid();
  const hasBrand = (findCpuid(supported, 0x8000_0002)?.eax ?? 0) !== 0;
  return {
    supported,
    tscDeadline: offer.tscDeadline,
    modelId: hasBrand ? undefined : fromProc("model name"),
    processorVendor: fromProc("vendor_id"),
  };
}

/** What /proc/cpuinfo says of the first processor under a name; undefined if nothing. */
function fromProc(name: string): string | undefined {
  const head = new Uint8Array(1024);
  try {
    using file = Deno.openSync("/proc/cpuinfo");
    file.readSync(head);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  return new RegExp(`^${name}\\s*: (.*)$`, "m").exec(new TextDecoder().decode(head))?.[1];
}

/** AMD guests look for threads in the leaves that come with topoext. */
function threadWarnings({ vendor, features }: CpuDefinition, threads: number): string[] {
  if (threads === 1 || !isAmd(vendor) || features.has("topoext")) return [];
  return [
    `warning: This family of AMD CPU doesn't support hyperthreading(${threads}). Please ` +
    "configure -smp options properly or try enabling topoext feature.",
  ];
}
