/**
 * A software vCPU on its own thread: the CPU, its chips, and the exits that it serves on the way.
 *
 * @module
 */
import { monotonicNow } from "../../../ffi/event.ts";
import { decodeCpuid } from "../../../ffi/kvm/cpuid.ts";
import { Exit, RunPage, RunResult } from "../../../ffi/kvm/run.ts";
import { mapOver } from "../../../ffi/memory.ts";
import { readTsc } from "../../../ffi/tsc.ts";
import type { VcpuRunner } from "../accelerator.ts";
import { LapicEvent } from "./chips/state.ts";
import type { VcpuChips } from "./chips/vcpu_chips.ts";
import { Core, type CoreHost, coreMemory } from "./core.ts";
import {
  ATTENTION,
  COMMON_ADDRESS,
  COMMON_SIZE,
  cpuState,
  KVM_RUN_ADDRESS,
  RAM_ADDRESS,
  SHARED_SIZE,
  STOP,
} from "./cpu_state.ts";
import { type ChipBus, chipBus } from "./chip_bus.ts";
import type { SharedSlot, SoftwareRunnerDescription } from "./description.ts";
import { MachineChips } from "./machine_chips.ts";

/** About how many instructions pass between two looks at the clock: some 100 µs. */
const SLICE = 20_000;
/** The longest sleep of a halted vCPU, in milliseconds; it looks and sleeps on. */
const LONGEST_SLEEP = 1000;
/** Room for a slot that comes while vCPUs run, beyond those that there are at the start. */
const SPARE_ROOM = 1 << 20;
/** KVM_MP_STATE_*. */
const MpState = { RUNNABLE: 0, UNINITIALIZED: 1, INIT_RECEIVED: 2 } as const;
/** IRQ 13: how an x87 exception came to a PC's processor. */
const FPU_LINE = 13;

/** Runs one vCPU. */
export class SoftwareRunner implements VcpuRunner {
  readonly run: RunPage;
  readonly #index: number;
  readonly #core: Core;
  /** The CPU's memory, which is private to this thread. */
  readonly #memory: ArrayBuffer;
  readonly #chips: VcpuChips;
  readonly #machine: MachineChips;
  readonly #room: number;
  #generation = -1;

  /**
   * @param description the vCPU
   * @param serve serves the exit in the run page
   */
  constructor(description: SoftwareRunnerDescription, serve: () => void) {
    const { index, vm, pagesFd, module, features } = description;
    this.#index = index;
    this.#machine = new MachineChips(vm);
    this.#room = end(this.#machine.slots.all()) + SPARE_ROOM - RAM_ADDRESS;
    const memory = coreMemory(this.#room);
    this.#memory = memory.buffer as ArrayBuffer;
    mapOver(new Uint8Array(this.#memory, 0, SHARED_SIZE), pagesFd, 0);
    if (vm.commonFd !== undefined) {
      mapOver(new Uint8Array(this.#memory, COMMON_ADDRESS, COMMON_SIZE), vm.commonFd, 0);
    }
    this.run = new RunPage(vm.pages[index] + KVM_RUN_ADDRESS, SHARED_SIZE - KVM_RUN_ADDRESS);
    const host = new Host(index, this.run, serve, this.#machine, vm.pit);
    this.#core = new Core(module, memory, host);
    if (vm.commonFd !== undefined) {
      this.#core.state.cpu_bit = 1 << (index & 7);
      this.#core.state.cpu_number = index + 1;
    }
    this.#chips = this.#machine.vcpu(index, this.#core.state, features);
    host.connect(this.#core, this.#chips);
    const cpuid = description.cpuid.subarray(8);
    new Uint8Array(this.#memory).set(cpuid, this.#core.exports.cpuidTable());
    this.#core.exports.cpuidChanged(decodeCpuid(description.cpuid).length);
  }

  enter(): number {
    const { wakes, slots } = this.#machine;
    if (this.run.immediateExit) return RunResult.INTERRUPTED;
    if (slots.generation !== this.#generation) this.#mapMemory();
    if (wakes.takeChange(this.#index)) {
      this.#core.exports.refresh();
      this.#chips.tscChanged();
    }
    for (;;) {
      const seen = wakes.count(this.#index);
      wakes.attend(this.#index);
      if (this.run.immediateExit || wakes.takeLeave(this.#index)) return RunResult.INTERRUPTED;
      this.#lookAtChips();
      switch (this.#core.run(SLICE)) {
        case STOP.halt:
          this.#sleep(seen);
          break;
        case STOP.shutdown:
          this.run.exitReason = Exit.SHUTDOWN;
          return RunResult.EXIT;
        case STOP.debug:
          return this.#debugExit();
      }
    }
  }

  /** The debugger's step is done, or one of its points is hit. */
  #debugExit(): number {
    const { state } = this.#core;
    this.run.setDebug(Number(state.debugger_dr6));
    state.debugger_dr6 = 0n;
    return RunResult.EXIT;
  }

  /** Timers that are due, and what other processors have sent. */
  #lookAtChips(): void {
    const { lapic, clock } = this.#chips;
    this.#chips.advance(monotonicNow());
    clock.service();
    if (lapic.events !== 0) this.#takeEvents();
    if (!this.#chips.hasInterrupt) return;
    const { state } = this.#core;
    state.attention |= ATTENTION.interrupt;
  }

  #takeEvents(): void {
    const { lapic } = this.#chips;
    const { exports, state } = this.#core;
    if (lapic.take(LapicEvent.NMI)) {
      state.nmi_pending = Math.min(2, state.nmi_pending + 1);
      state.attention |= ATTENTION.nmi;
    }
    if (lapic.take(LapicEvent.INIT)) {
      lapic.init();
      exports.init();
      const isBsp = (lapic.baseLow & BSP) !== 0;
      state.mp_state = isBsp ? MpState.RUNNABLE : MpState.INIT_RECEIVED;
      exports.refresh();
    }
    if (lapic.take(LapicEvent.SIPI) && state.mp_state === MpState.INIT_RECEIVED) {
      exports.startUp(lapic.sipiVector);
      state.mp_state = MpState.RUNNABLE;
      exports.refresh();
    }
  }

  /** Sleeps until a timer is due or someone kicks. */
  #sleep(seen: number): void {
    const ms = (this.#chips.deadline - monotonicNow()) / 1e6;
    if (ms > 0) this.#machine.wakes.sleep(this.#index, seen, Math.min(ms, LONGEST_SLEEP));
  }

  /** Maps guest RAM into the CPU's memory, and tells the CPU where it is. */
  #mapMemory(): void {
    const { slots } = this.#machine;
    const all = slots.all();
    if (end(all) - RAM_ADDRESS > this.#room) {
      throw new Error(`Memory slots take ${end(all) - RAM_ADDRESS} bytes, ${this.#room} are there`);
    }
    all.forEach(({ gpa, size, fd, offset, readonly, place }, i) => {
      mapOver(new Uint8Array(this.#memory, place, size), fd, offset);
      const region = this.#core.state.regions.at(i);
      region.gpa = BigInt(gpa);
      region.size = BigInt(size);
      region.address = place;
      region.readonly = readonly ? 1 : 0;
    });
    this.#core.state.region_count = all.length;
    this.#generation = slots.generation;
    this.#core.exports.refresh();
  }
}

/** IA32_APIC_BASE: this is the bootstrap processor. */
const BSP = 0x100;

function end(slots: readonly SharedSlot[]): number {
  const last = slots.at(-1);
  return last ? last.place + last.size : RAM_ADDRESS;
}

/** The machine around a CPU. */
class Host implements CoreHost {
  readonly #index: number;
  readonly #run: RunPage;
  readonly #serve: () => void;
  readonly #bus: ChipBus;
  readonly #machine: MachineChips;
  readonly #random = new Uint32Array(1);
  #chips!: VcpuChips;
  #hostTsc!: Uint32Array<ArrayBuffer>;
  /** The high word of CR8 is always 0. */
  #cr8!: Uint32Array<ArrayBuffer>;
  #msrValue!: Uint32Array<ArrayBuffer>;
  #apicBase!: Uint32Array<ArrayBuffer>;

  constructor(
    index: number,
    run: RunPage,
    serve: () => void,
    machine: MachineChips,
    pit: boolean,
  ) {
    this.#index = index;
    this.#run = run;
    this.#serve = serve;
    this.#bus = chipBus(machine.chipset, pit);
    this.#machine = machine;
  }

  /** What could not be there before the CPU was. */
  connect(core: Core, chips: VcpuChips): void {
    this.#chips = chips;
    const memory = core.memory.buffer as ArrayBuffer;
    const words = (offset: number) => new Uint32Array(memory, offset, 2);
    this.#hostTsc = words(cpuState.offsets.host_tsc);
    this.#cr8 = words(cpuState.offsets.cr8);
    this.#msrValue = words(cpuState.offsets.msr_value);
    this.#apicBase = words(cpuState.offsets.apic_base);
  }

  portIn(port: number, size: number): number {
    const { bus, hasPort } = this.#bus;
    if (hasPort(port)) return bus.readPort(port, size);
    this.#run.setIo(false, port, size, 0);
    this.#serve();
    return this.#run.ioGet(0, size);
  }

  portOut(port: number, size: number, value: number): void {
    const { bus, hasPort } = this.#bus;
    if (hasPort(port)) return bus.writePort(port, size, value);
    this.#run.setIo(true, port, size, value);
    this.#serve();
  }

  mmioRead(low: number, high: number, size: number): number {
    const address = high * 0x1_0000_0000 + low;
    const own = this.#chips.readMemory(address, size);
    if (own >= 0) return own;
    if (this.#bus.hasMemory(address)) return this.#bus.bus.readMemory(address, size);
    this.#run.setMmio(false, low, high, size, 0);
    this.#serve();
    return this.#run.mmioGet(0);
  }

  mmioWrite(low: number, high: number, size: number, value: number): void {
    const address = high * 0x1_0000_0000 + low;
    if (this.#chips.writeMemory(address, size, value)) {
      this.#cr8[0] = this.#chips.lapic.cr8;
      return;
    }
    if (this.#bus.hasMemory(address)) return this.#bus.bus.writeMemory(address, size, value);
    this.#run.setMmio(true, low, high, size, value);
    this.#serve();
  }

  readTsc(): void {
    readTsc(this.#hostTsc);
  }

  msrRead(index: number): number {
    if (!this.#chips.readMsr(index)) return 0;
    this.#msrValue[0] = this.#chips.msrLow;
    this.#msrValue[1] = this.#chips.msrHigh;
    return 1;
  }

  msrWrite(index: number): number {
    const [low, high] = this.#msrValue;
    const taken = this.#chips.writeMsr(index, low, high);
    const { lapic } = this.#chips;
    this.#cr8[0] = lapic.cr8;
    // CPUID tells of it, and INIT goes by it.
    this.#apicBase[0] = lapic.baseLow;
    this.#apicBase[1] = lapic.baseHigh;
    return taken ? 1 : 0;
  }

  interruptVector(): number {
    return this.#chips.acknowledge();
  }

  flushOthers(): void {
    this.#machine.wakes.flushOthers(this.#index);
  }

  cr8Changed(): void {
    this.#chips.lapic.cr8 = this.#cr8[0];
  }

  fpuError(): void {
    this.#machine.chipset.pulse(FPU_LINE);
  }

  random(): number {
    return crypto.getRandomValues(this.#random)[0];
  }
}
