import { type CpuidEntry, KvmSystem } from "../../ffi/kvm/system.ts";
import type { MachineConfig } from "../config.ts";
export interface CpuTables {
  readonly vcpus: readonly { readonly apicId: number; readonly cpuid: readonly CpuidEntry[] }[];
  readonly warnings: readonly string[];
}
export function cpuTables(config: MachineConfig, kvm: KvmSystem): CpuTables {
  const supported = kvm.supportedCpuid();
  return {
    warnings: [],
    vcpus: Array.from(
      { length: config.smp.cpus },
      (_, apicId) => ({
        apicId,
        cpuid: supported.map((e) => ({
          ...e,
          ...(e.function === 1
            ? {
              ebx: ((e.ebx & 0xffffff) | (apicId << 24)) >>> 0,
              ecx: (e.ecx & ~(1 << 13) | (1 << 31) | (1 << 24)) >>> 0,
            }
            : {}),
          ...(e.function === 0xb ? { edx: apicId } : {}),
        })),
      }),
    ),
  };
}
