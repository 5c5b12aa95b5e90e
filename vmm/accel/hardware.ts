/**
 * The accelerator's side of a machine: VM, interrupt chips and vCPUs, and their state.
 *
 * @module
 */
import { kvmClockData, kvmIrqchip, kvmMpState, kvmPitState2 } from "../../ffi/kvm/structs.ts";
import type {
  Accelerator,
  AcceleratorVcpu,
  AcceleratorVm,
  VcpuStateLayout,
  VmOptions,
} from "./accelerator.ts";
import { VcpuState, type VcpuStateSource } from "./vcpu_state.ts";

/** The interrupt chips by their KVM_IRQCHIP_* numbers. */
export const irqchips = ["pic_master", "pic_slave", "ioapic"] as const;

/** A VM with its vCPUs; it has no memory until slots are set. */
export class Hardware implements Disposable {
  readonly vm: AcceleratorVm;
  readonly #accelerator: Accelerator;
  readonly #options: VmOptions;
  #layout: VcpuStateLayout | undefined;
  #frozenClock: Uint8Array<ArrayBuffer> | undefined;

  /** Makes VM, chips and vCPUs. @throws {OsError} if the accelerator refuses */
  constructor(accelerator: Accelerator, options: VmOptions) {
    this.#accelerator = accelerator;
    this.#options = options;
    this.vm = accelerator.createVm(options);
  }

  /** The vCPUs. */
  get vcpus(): readonly AcceleratorVcpu[] {
    return this.vm.vcpus;
  }

  /** What can be saved of a vCPU on this host. */
  get layout(): VcpuStateLayout {
    return this.#layout ??= this.vm.stateLayout();
  }

  /** Whether there is a PIT. */
  get hasPit(): boolean {
    return this.#options.pit;
  }

  /**
   * Buffers for the whole state.
   *
   * @param to where it is written; the same hardware as a rule
   */
  makeState(to: Hardware = this): HardwareState {
    return new HardwareState(this, to);
  }

  /** The same hardware once more, without memory: to learn its power-on state, or to rehearse on. */
  makeScratch(): Hardware {
    const scratch = new Hardware(this.#accelerator, this.#options);
    // Asking a vCPU what it can save blocks while it runs the guest: the scratch one does not.
    scratch.#layout = this.#layout ??= scratch.vm.stateLayout();
    return scratch;
  }

  /** Puts vCPUs and chips into the state that they have at power-on. */
  reset(): void {
    using scratch = this.makeScratch();
    const state = scratch.makeState(this);
    state.save();
    state.restore({ clock: false, tscOffsets: false });
  }

  /**
   * Makes all vCPUs wait for a startup interrupt: while they do, running them runs no guest code.
   *
   * @returns lets them be what they were
   */
  holdVcpus(): () => void {
    const before = this.vcpus.map((vcpu) => {
      const { bytes } = kvmMpState.alloc();
      vcpu.read("mp_state", bytes);
      vcpu.write("mp_state", kvmMpState.alloc({ mp_state: MP_STATE_UNINITIALIZED }).bytes);
      return bytes;
    });
    return () => before.forEach((bytes, i) => this.vcpus[i].write("mp_state", bytes));
  }

  /** Stops guest time: kvmclock will go on from here when it is thawed. */
  freezeClock(): void {
    const clock = new Uint8Array(kvmClockData.size);
    this.vm.read("clock", clock);
    kvmClockData.view(clock.buffer).flags = 0;
    this.#frozenClock = clock;
  }

  /** Lets guest time go on, and tells the guest that it was paused; without effect if it goes on. */
  thawClock(): void {
    if (!this.#frozenClock) return;
    this.vm.write("clock", this.#frozenClock);
    this.#frozenClock = undefined;
    for (const vcpu of this.vcpus) vcpu.noteKvmclockPause();
  }

  /** Reads kvmclock: the value at which it stands, or the running clock with the host's time. */
  readClock(into: Uint8Array<ArrayBuffer>): void {
    if (this.#frozenClock) into.set(this.#frozenClock);
    else this.vm.read("clock", into);
  }

  /** Sets kvmclock. A value without the host's time stands still until the clock is thawed. */
  writeClock(from: Uint8Array<ArrayBuffer>): void {
    const clock = kvmClockData.view(from.buffer, from.byteOffset);
    // Of the flags only this one may be given back: the others say how the value was read.
    clock.flags &= CLOCK_REALTIME;
    if (clock.flags === 0) this.#frozenClock = Uint8Array.from(from);
    else this.vm.write("clock", from);
  }

  /** Closes vCPUs and VM. No thread may be inside one. */
  close(): void {
    this.vm.close();
  }

  /** Closes vCPUs and VM at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** KVM_MP_STATE_UNINITIALIZED: an application processor before INIT and SIPI. */
const MP_STATE_UNINITIALIZED = 1;
/** KVM_CLOCK_REALTIME: the clock struct carries the wall-clock time it was read at. */
const CLOCK_REALTIME = 4;

/** What a state is read from. */
export interface StateSource {
  readonly vcpus: readonly VcpuStateSource[];
  readonly vm: Pick<AcceleratorVm, "read">;
  /** What can be saved of a vCPU. */
  readonly layout: VcpuStateLayout;
  /** Whether there is a PIT. */
  readonly hasPit: boolean;
  /** Reads kvmclock. */
  readClock(into: Uint8Array<ArrayBuffer>): void;
}

/** State of vCPUs, interrupt chips, PIT and kvmclock. */
export class HardwareState {
  readonly vcpus: readonly VcpuState[];
  /** struct kvm_irqchip of each of {@linkcode irqchips}. */
  readonly irqchips: readonly Uint8Array<ArrayBuffer>[];
  /** struct kvm_pit_state2, if the machine has a PIT. */
  readonly pit: Uint8Array<ArrayBuffer> | undefined;
  /** struct kvm_clock_data. */
  readonly clock: Uint8Array<ArrayBuffer> = new Uint8Array(kvmClockData.size);

  readonly #from: StateSource;
  readonly #to: Hardware;

  /**
   * Makes empty buffers.
   *
   * @param from whose state is read
   * @param to where it is written
   */
  constructor(from: StateSource, to: Hardware) {
    this.#from = from;
    this.#to = to;
    this.vcpus = from.vcpus.map((vcpu, i) => new VcpuState(from.layout, vcpu, to.vcpus[i]));
    this.irqchips = irqchips.map((_, id) => {
      const { bytes, view } = kvmIrqchip.alloc();
      view.chip_id = id;
      return bytes;
    });
    this.pit = from.hasPit ? new Uint8Array(kvmPitState2.size) : undefined;
  }

  /** Reads everything; all vCPUs are parked. */
  save(): void {
    const { vm } = this.#from;
    for (const vcpu of this.vcpus) vcpu.save();
    for (const chip of this.irqchips) vm.read("irqchip", chip);
    if (this.pit) vm.read("pit", this.pit);
    this.#from.readClock(this.clock);
  }

  /**
   * Writes everything; all vCPUs are parked.
   *
   * @param options.clock whether to set kvmclock too
   * @param options.tscOffsets whether to set TSCs by their offsets rather than by their values
   */
  restore(options: { clock: boolean; tscOffsets: boolean }): void {
    const { vm } = this.#to;
    if (options.clock) this.#to.writeClock(this.clock);
    for (const vcpu of this.vcpus) vcpu.restore(options.tscOffsets);
    for (const chip of this.irqchips) vm.write("irqchip", chip);
    if (this.pit) vm.write("pit", this.pit);
  }
}
