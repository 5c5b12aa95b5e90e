/**
 * Executes a boot plan: images into guest RAM, registers into the vCPUs.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import { fileStatus, O, openFile, type OwnedFd, readAt } from "../../ffi/fd.ts";
import { kvmMpState, kvmRegs, kvmSregs } from "../../ffi/kvm/structs.ts";
import type { AcceleratorVcpu } from "../accel/accelerator.ts";
import { type BootPlan, type BootRequest, planBoot } from "../boot/boot.ts";
import type { CpuStart } from "../boot/cpu_start.ts";
import { isMultiboot, splitModules } from "../boot/multiboot.ts";
import { BootError, type ImageFile, type Segment, segmentLength } from "../boot/image.ts";
import type { MachineConfig } from "../config.ts";
import type { AcpiOptions } from "../firmware/acpi/acpi.ts";
import type { GuestMemory } from "./guest_memory.ts";

/** KVM_MP_STATE_RUNNABLE: a vCPU with a start address does not wait for INIT and SIPI. */
const MP_STATE_RUNNABLE = 0;

/** An image that is open while the machine is set up. */
class OpenImage implements ImageFile, Disposable {
  readonly size: number;
  readonly fd: OwnedFd;

  constructor(readonly path: string, what: string) {
    try {
      this.fd = openFile(path, O.RDONLY | O.NONBLOCK);
    } catch (error) {
      const reason = error instanceof OsError ? error.reason : String(error);
      throw new BootError(`could not open ${what} '${path}': ${reason}`);
    }
    const status = fileStatus(this.fd.fd);
    if (status.kind !== "file") {
      this.fd.close();
      throw new BootError(`could not load ${what} '${path}': it is a ${status.kind}, not a file`);
    }
    this.size = status.size;
  }

  read(offset: number, length: number): Uint8Array {
    const buffer = new Uint8Array(length);
    return buffer.subarray(0, reading(this.path, () => readAt(this.fd.fd, buffer, offset)));
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }
}

/** Reads from an image. @throws {BootError} that names it */
function reading<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof OsError) throw new BootError(`error reading ${path}: ${error.reason}`);
    throw error;
  }
}

/** An image in guest memory. */
export interface LoadedImage {
  readonly name: string;
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  readonly memory: "ram" | "rom";
}

/** What the MP table says of the processors. */
export interface Processors {
  readonly apicIds: readonly number[];
  /** CPUID leaf 1 EAX. */
  readonly signature: number;
  /** CPUID leaf 1 EDX. */
  readonly features: number;
}

/** The boot images of a machine, open, and the plan made of them. */
export class BootImages implements Disposable {
  readonly plan: BootPlan;
  readonly #open: OpenImage[] = [];

  /**
   * Opens the images and plans.
   *
   * @param config the machine
   * @param processors what the MP table says of them
   * @param acpi what ACPI tables say of the machine, if it has any
   * @param autoCmdline what the machine adds to the kernel's command line
   * @throws {BootError} that names the image and what is wrong with it
   */
  constructor(
    config: MachineConfig,
    processors: Processors,
    acpi?: AcpiOptions,
    autoCmdline: readonly string[] = [],
  ) {
    try {
      const kernel = this.#image(config.kernel, "kernel");
      this.plan = planBoot({
        ramSize: config.memory,
        apicIds: processors.apicIds,
        cpuSignature: processors.signature,
        cpuFeatures: processors.features,
        kernel,
        ...this.#initrd(config, kernel),
        append: config.append,
        autoCmdline,
        bios: this.#image(config.bios, "PC BIOS"),
        loaders: config.loaders.map((loader) => ({
          ...loader,
          file: this.#image(loader.file, "image"),
        })),
        boot: config.machine.xBoot,
        acpi,
      });
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** What `load` and `loadRom` put into memory. */
  get loaded(): LoadedImage[] {
    const { rom, segments } = this.plan;
    const inRam = segments.map((segment): LoadedImage => ({
      name: segment.name,
      address: BigInt(segment.gpa),
      size: segmentLength(segment),
      memory: "ram",
    }));
    if (!rom) return inRam;
    const name = rom.file.path;
    return [...inRam, { name, address: BigInt(rom.gpa), size: rom.size, memory: "rom" }];
  }

  /** Writes all segments into guest RAM. @throws {Error} if a file became shorter meanwhile */
  load(memory: GuestMemory): void {
    for (const segment of this.plan.segments) loadSegment(memory, segment);
  }

  /** Writes the firmware into its ROM. */
  loadRom(memory: GuestMemory): void {
    const { rom } = this.plan;
    if (!rom) return;
    const { fd } = rom.file as OpenImage;
    memory.readFrom(fd.fd, 0, rom.gpa, rom.size);
  }

  /** Closes the images. */
  [Symbol.dispose](): void {
    for (const image of this.#open) image[Symbol.dispose]();
  }

  /** What `-initrd` names: a file, or a multiboot kernel's modules. */
  #initrd(
    { initrd, machine }: MachineConfig,
    kernel: OpenImage | undefined,
  ): Pick<BootRequest, "initrd" | "modules"> {
    if (initrd === undefined) return {};
    if (!kernel || machine.xBoot !== "auto" || !isMultiboot(kernel)) {
      return { initrd: this.#image(initrd, "initrd") };
    }
    const modules = splitModules(initrd).map(({ path, text }) => ({
      file: this.#image(path, "initrd")!,
      text,
    }));
    return { modules };
  }

  #image(path: string | undefined, what: string): OpenImage | undefined {
    if (path === undefined) return undefined;
    const image = new OpenImage(path, what);
    this.#open.push(image);
    return image;
  }
}

function loadSegment(memory: GuestMemory, segment: Segment): void {
  if ("bytes" in segment) return memory.write(segment.gpa, Uint8Array.from(segment.bytes));
  const { file, gpa, offset, length, zeroTo } = segment;
  const { fd, path } = file as OpenImage;
  const done = length === 0 ? 0 : reading(path, () => memory.readFrom(fd.fd, offset, gpa, length));
  if (done !== length) {
    throw new BootError(`error reading ${path}: it ends at byte ${offset + done}`);
  }
  if (zeroTo !== undefined) memory.zero(gpa + length, zeroTo - gpa - length);
}

/** Puts a vCPU to where a plan starts it. */
export function startVcpu(vcpu: AcceleratorVcpu, start: CpuStart): void {
  const sregs = kvmSregs.alloc();
  vcpu.read("sregs", sregs.bytes);
  const { gdt, idt, cr0, cr3, cr4, efer, ...segments } = start.sregs;
  for (const [name, segment] of Object.entries(segments)) {
    Object.assign(sregs.view[name as "cs"], { ...segment, avl: 0, unusable: 0 });
  }
  Object.assign(sregs.view.gdt, gdt);
  Object.assign(sregs.view.idt, idt);
  Object.assign(sregs.view, { cr0, cr3, cr4, efer });
  vcpu.write("sregs", sregs.bytes);
  vcpu.write("regs", kvmRegs.alloc(start.regs).bytes);
  vcpu.write("mp_state", kvmMpState.alloc({ mp_state: MP_STATE_RUNNABLE }).bytes);
}
