/**
 * The chips of a software VM on one thread, with the host's clocks.
 *
 * @module
 */
import { monotonicNow, realtimeNs } from "../../../ffi/event.ts";
import type { InterruptLines } from "../accelerator.ts";
import { readTsc, tscNow } from "../../../ffi/tsc.ts";
import { Chipset } from "./chips/chipset.ts";
import { VcpuChips } from "./chips/vcpu_chips.ts";
import { type LapicFeatures, SlotTable, type SoftwareVmDescription, Wakes } from "./description.ts";
import { SlotMemory } from "./slot_memory.ts";
import type { CpuState } from "./kvm_state.ts";

/** The chips and what they are connected to. */
export class MachineChips implements InterruptLines {
  readonly chipset: Chipset;
  readonly wakes: Wakes;
  readonly slots: SlotTable;
  readonly ram: SlotMemory;

  /** @param description the VM */
  constructor(description: SoftwareVmDescription) {
    const { chips, slots, pages, pic, tscKhz } = description;
    this.wakes = new Wakes(description);
    this.slots = new SlotTable(slots);
    this.ram = new SlotMemory(this.slots);
    this.chipset = new Chipset({
      buffer: chips,
      vcpus: pages.length,
      pic,
      clock: { monotonicNs: monotonicNow, realtimeNs, tsc: tscNow, tscKhz },
      kick: (vcpu) => this.wakes.kick(vcpu),
    });
  }

  setLine(gsi: number, level: boolean): void {
    this.chipset.setLine(gsi, level);
  }

  sendMsi(address: number, data: number): void {
    this.chipset.sendMsi(address, data);
  }

  ramWritten(): void {
    this.wakes.flushAll();
  }

  /** A vCPU's own chips. */
  vcpu(index: number, state: CpuState, features: LapicFeatures): VcpuChips {
    return new VcpuChips(this.chipset, {
      index,
      tsc: new VcpuTsc(state),
      memory: this.ram,
      features,
    });
  }
}

const counter = new Uint32Array(2);

/** A vCPU's TSC: the host's and an offset. */
class VcpuTsc {
  readonly #state: CpuState;

  constructor(state: CpuState) {
    this.#state = state;
  }

  read(into: Uint32Array): void {
    readTsc(counter);
    const offset = this.#state.tsc_offset;
    const low = counter[0] + Number(offset & 0xffff_ffffn);
    into[0] = low;
    into[1] = counter[1] + Number(offset >> 32n) + (low > 0xffff_ffff ? 1 : 0);
  }

  offset(): bigint {
    return this.#state.tsc_offset;
  }
}
