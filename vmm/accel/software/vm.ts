/**
 * A VM of software CPUs.
 *
 * @module
 */
import { OsError } from "../../../ffi/errno.ts";
import type { OwnedFd } from "../../../ffi/fd.ts";
import { makeMemfd } from "../../../ffi/memory.ts";
import { tscKhz } from "../../../ffi/tsc.ts";
import type {
  AcceleratorVm,
  InterruptLines,
  Practice,
  VcpuStateLayout,
  VmOptions,
  VmPart,
} from "../accelerator.ts";
import type { MemorySlot } from "../memory_slot.ts";
import { chipsetSize } from "./chips/state.ts";
import { slotTableSize, type SoftwareVmDescription, wakesSize } from "./description.ts";
import { stateMsrs } from "./kvm_msrs.ts";
import { XSAVE_SIZE } from "./kvm_xsave.ts";
import { MachineChips } from "./machine_chips.ts";
import { COMMON_SIZE, RAM_ADDRESS } from "./cpu_state.ts";
import { PowerOn } from "./power_on.ts";
import { practice } from "./practice.ts";
import { SoftwareVcpu, VcpuPages } from "./vcpu.ts";

/** A vCPU's WebAssembly memory ends here. */
const MEMORY_END = 0x1_0000_0000;

/** A VM with its chips and vCPUs. */
export class SoftwareVm implements AcceleratorVm {
  readonly vcpus: readonly SoftwareVcpu[];
  readonly interrupts: InterruptLines;
  readonly interruptsDescription: SoftwareVmDescription;
  readonly practice: Practice = practice;
  readonly remains: readonly OwnedFd[] = [];
  readonly #machine: MachineChips;
  readonly #opened = new DisposableStack();

  /** Makes it. @param module the CPU */
  constructor(module: WebAssembly.Module, { pic, pit, cpus }: VmOptions) {
    const pages = cpus.map(() => this.#opened.use(new VcpuPages()));
    const common = cpus.length > 1
      ? this.#opened.use(makeMemfd("denovo-cpus", COMMON_SIZE))
      : undefined;
    this.interruptsDescription = {
      accelerator: "tcg",
      chips: new SharedArrayBuffer(chipsetSize(cpus.length)),
      slots: new SharedArrayBuffer(slotTableSize),
      wakes: new SharedArrayBuffer(wakesSize(cpus.length)),
      commonFd: common?.fd,
      pages: pages.map(({ mapping }) => mapping.address),
      pic,
      pit,
      tscKhz: tscKhz(),
    };
    this.#machine = new MachineChips(this.interruptsDescription);
    const { chipset } = this.#machine;
    chipset.reset();
    this.interrupts = this.#machine;
    const powerOn = new PowerOn(module);
    this.vcpus = cpus.map((cpu, index) =>
      new SoftwareVcpu(
        index,
        cpu,
        powerOn,
        pages[index],
        this.interruptsDescription,
        this.#machine,
        module,
      )
    );
  }

  stateLayout(): VcpuStateLayout {
    return { xsaveSize: XSAVE_SIZE, msrs: stateMsrs, tscOffset: true };
  }

  setMemory(slot: MemorySlot): void {
    if (!slot.file) {
      throw new Error(
        `Memory of ${slot.size} bytes is private: the software CPU needs memory with share=on`,
      );
    }
    this.#machine.slots.set(slot.slot, slot);
    const last = this.#machine.slots.all().at(-1)!;
    if (last.place + last.size <= MEMORY_END) return;
    throw new Error(
      `Memory of ${last.place + last.size - RAM_ADDRESS} bytes is too much for the software CPU,` +
        ` it can have ${MEMORY_END - RAM_ADDRESS}`,
    );
  }

  removeMemory({ slot }: MemorySlot): void {
    this.#machine.slots.set(slot, undefined);
  }

  /** Its page tables are the guest's own. */
  prefault(): boolean {
    return false;
  }

  /** Who serves an access is the vCPU's thread in any case. */
  connectDoorbell(): void {}

  read(part: VmPart, into: Uint8Array<ArrayBuffer>): void {
    const { chipset } = this.#machine;
    switch (part) {
      case "irqchip":
        return check("KVM_GET_IRQCHIP", chipset.saveIrqchip(into));
      case "pit":
        return chipset.savePit(into);
      case "clock":
        return chipset.clock.save(into);
    }
  }

  write(part: VmPart, from: Uint8Array<ArrayBuffer>): void {
    const { chipset } = this.#machine;
    switch (part) {
      case "irqchip":
        return check("KVM_SET_IRQCHIP", chipset.loadIrqchip(from));
      case "pit":
        return chipset.loadPit(from);
      case "clock":
        return check("KVM_SET_CLOCK", chipset.clock.load(from));
    }
  }

  close(): void {
    this.#opened.dispose();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function check(request: string, error: number): void {
  if (error !== 0) throw new OsError(request, error);
}
