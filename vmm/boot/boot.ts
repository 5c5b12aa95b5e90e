/**
 * From boot options to a plan: what goes where in guest RAM, and how the vCPUs start.
 *
 * A plan only describes; it can be executed again at every reset. All checks are made here, so that
 * executing it cannot fail but for I/O.
 *
 * @module
 */
import { type AcpiOptions, acpiSegments, RSDP_ADDRESS } from "../firmware/acpi/acpi.ts";
import { isBzImage } from "./bzimage.ts";
import { type CpuStart, resetStart } from "./cpu_start.ts";
import { ramRanges } from "../firmware/e820.ts";
import { isElf, parseElf } from "./elf.ts";
import { findPvhEntry } from "./elf_notes.ts";
import { planFirmware, type Rom } from "../firmware/firmware.ts";
import { resetCode } from "../firmware/reset_code.ts";
import {
  BootError,
  describeSegment,
  hex,
  type ImageFile,
  type Segment,
  segmentEnd,
} from "./image.ts";
import type { KernelPlan, KernelRequest } from "./kernel_data.ts";
import { planBzImage, planLinuxElf } from "./linux.ts";
import { type LoaderRequest, planLoader } from "./loader.ts";
import { mpTableSegments } from "../firmware/mptable.ts";
import { isMultiboot, type MultibootModule, planMultiboot } from "./multiboot.ts";
import { planPvh } from "./pvh.ts";

/**
 * Boot protocol of a kernel (`-machine x-boot=`): `auto` takes multiboot for a kernel with its header
 * that is no 64-bit ELF image, PVH where the kernel has a PVH
 * note, as QEMU does, and the Linux 64-bit protocol where it has none.
 */
export type BootProtocol = "auto" | "pvh" | "linux64";

/** Everything that decides about how a machine starts. */
export interface BootRequest {
  /** Bytes of guest RAM. */
  readonly ramSize: number;
  /** APIC ids, one a vCPU. */
  readonly apicIds: readonly number[];
  /** CPUID leaf 1 EAX, for the MP table. */
  readonly cpuSignature?: number;
  /** CPUID leaf 1 EDX, for the MP table. */
  readonly cpuFeatures?: number;
  /** `-kernel` */
  readonly kernel?: ImageFile;
  /** `-initrd` */
  readonly initrd?: ImageFile;
  /** The files of `-initrd`, of a multiboot kernel. */
  readonly modules?: readonly MultibootModule[];
  /** `-append` */
  readonly append?: string;
  /** What `auto-kernel-cmdline=on` appends: one `virtio_mmio.device=...` a transport. */
  readonly autoCmdline?: readonly string[];
  /** What ACPI tables tell the kernel; undefined without ACPI. */
  readonly acpi?: AcpiOptions;
  /** `-bios` */
  readonly bios?: ImageFile;
  /** Every `-device loader` */
  readonly loaders?: readonly LoaderRequest[];
  /** `-machine x-boot=`; default `auto`. */
  readonly boot?: BootProtocol;
}

/** How to start a machine. */
export interface BootPlan {
  /** What to write into RAM, in order of address; no two overlap, all are inside of RAM. */
  readonly segments: readonly Segment[];
  /** Firmware: a region of its own that the guest can only read. */
  readonly rom?: Rom;
  /**
   * How vCPUs start, by index. CPU 0 is always there; every CPU that is not waits for INIT and
   * SIPI, as after reset.
   */
  readonly starts: ReadonlyMap<number, CpuStart>;
}

/**
 * Plans how a machine starts.
 *
 * A kernel is started directly, with no firmware in between: a `-bios` next to it is there as ROM
 * but does not run, and has no copy below 1 MiB.
 *
 * @throws {BootError} if options contradict each other or name nothing to boot, an image is not
 * valid, or it does not fit into RAM
 */
export function planBoot(request: BootRequest): BootPlan {
  checkOptions(request);
  const segments: Segment[] = [];
  const starts = new Map<number, CpuStart>();
  const firmware = request.bios && planFirmware(request.bios);
  if (request.kernel) {
    const kernel = planKernel(request, request.kernel);
    segments.push(...kernel.segments, ...mpTableSegments(request));
    if (request.acpi) segments.push(...acpiSegments(request.acpi));
    starts.set(0, kernel.start);
  } else if (firmware) {
    segments.push(firmware.lowCopy);
  }
  for (const loader of request.loaders ?? []) {
    const plan = planLoader(loader, request.apicIds.length);
    segments.push(...plan.segments);
    if (!plan.start) continue;
    const { cpu, state } = plan.start;
    if (starts.has(cpu)) {
      throw new BootError(
        `CPU#${cpu} has two start addresses: give cpu-num=${cpu} only once, and 0 not with -kernel`,
      );
    }
    starts.set(cpu, state);
  }
  // What the user loads there is the user's own reset vector.
  if (request.kernel && !segments.some((segment) => overlaps(segment, resetCode))) {
    segments.push(resetCode);
  }
  if (!starts.has(0)) {
    if (!firmware) {
      throw new BootError(
        "there is nothing to boot: give -kernel, -bios or -device loader,file=...,cpu-num=0",
      );
    }
    starts.set(0, resetStart());
  }
  return { segments: checkPlacement(segments, request.ramSize), rom: firmware?.rom, starts };
}

/** QEMU's texts for options that only mean something to a kernel. */
function checkOptions({ kernel, append, initrd }: BootRequest): void {
  if (kernel) return;
  if (append) throw new BootError("-append only allowed with -kernel option");
  if (initrd) throw new BootError("-initrd only allowed with -kernel option");
}

function planKernel(request: BootRequest, kernel: ImageFile): KernelPlan {
  const { append = "", autoCmdline = [], boot = "auto", initrd, ramSize } = request;
  const cmdline = [append, ...autoCmdline].filter((part) => part !== "").join(" ");
  const kernelRequest: KernelRequest = {
    kernel,
    initrd,
    cmdline,
    ramSize,
    rsdp: request.acpi && RSDP_ADDRESS,
  };
  if (boot === "auto" && isMultiboot(kernel)) {
    return planMultiboot({ kernel, append: cmdline, modules: request.modules ?? [], ramSize });
  }
  if (isElf(kernel)) {
    const elf = parseElf(kernel);
    const isPvh = boot === "pvh" || boot === "auto" && findPvhEntry(elf) !== undefined;
    if (isPvh) return planPvh(kernelRequest, elf);
    if (elf.bits === 64) return planLinuxElf(kernelRequest, elf);
    throw new BootError(
      `${kernel.path} is a 32-bit ELF image with neither a multiboot header nor a PVH note`,
    );
  }
  if (!isBzImage(kernel)) {
    throw new BootError(
      `invalid kernel header: ${kernel.path} is neither an ELF image nor a bzImage nor a multiboot kernel`,
    );
  }
  if (boot === "pvh") {
    throw new BootError(`x-boot=pvh needs an ELF kernel, but ${kernel.path} is a bzImage`);
  }
  return planBzImage(kernelRequest);
}

function overlaps(a: Segment, b: Segment): boolean {
  return a.gpa < segmentEnd(b) && b.gpa < segmentEnd(a);
}

/** Checks that everything is inside of RAM and nothing over something else; sorts by address. */
function checkPlacement(segments: readonly Segment[], ramSize: number): Segment[] {
  const sorted = segments.filter((segment) => segmentEnd(segment) > segment.gpa)
    .sort((a, b) => a.gpa - b.gpa);
  const ranges = ramRanges(ramSize);
  for (const segment of sorted) {
    const isInside = ranges.some(({ addr, size }) =>
      segment.gpa >= addr && segmentEnd(segment) <= addr + size
    );
    if (!isInside) {
      throw new BootError(
        `${describeSegment(segment)} does not fit into RAM, which has ${
          hex(ramSize)
        } bytes: give more with -m`,
      );
    }
  }
  // Sorted by start, any overlap shows between neighbours.
  sorted.slice(1).forEach((segment, i) => {
    if (segmentEnd(sorted[i]) > segment.gpa) {
      throw new BootError(
        `Some ROM regions are overlapping: ${describeSegment(sorted[i])} and ${
          describeSegment(segment)
        }`,
      );
    }
  });
  return sorted;
}
