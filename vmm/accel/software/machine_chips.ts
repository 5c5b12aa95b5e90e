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
  /** For the thread that loads states. */
  readonly tscs: TscOffsets;

  /** @param description the VM */
  constructor(description: SoftwareVmDescription) {
    const { chips, slots, pages, pic, tscKhz } = description;
    this.wakes = new Wakes(description);
    this.slots = new SlotTable(slots);
    this.ram = new SlotMemory(this.slots);
    this.tscs = new TscOffsets(tscKhz);
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
    this.wakes.compareCode();
  }

  /** Who serves an access is the vCPU's thread in any case. */
  connectDoorbell(): void {}

  /** See `connectDoorbell`. */
  disconnectDoorbell(): void {}

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

/**
 * Keeps the vCPUs' TSCs in step that are set by value, one after the other: what little they differ
 * by is the time in between. KVM does so too (arch/x86/kvm/x86.c, kvm_synchronize_tsc()).
 */
export class TscOffsets {
  /** A second: what differs by more was different. */
  readonly #most: bigint;
  #first = 0n;

  /** @param tscKhz the TSC's frequency */
  constructor(tscKhz: number) {
    this.#most = BigInt(tscKhz) * 1000n;
  }

  /**
   * The offset that a vCPU gets.
   *
   * @param index the vCPU; 0 comes first
   * @param wanted what its value asks for, u64
   */
  offset(index: number, wanted: bigint): bigint {
    if (index === 0) this.#first = wanted;
    const apart = BigInt.asIntN(64, wanted - this.#first);
    return -this.#most < apart && apart < this.#most ? this.#first : wanted;
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
