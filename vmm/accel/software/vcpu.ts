/**
 * A software vCPU from other threads than its own: state in and out, and the kick.
 *
 * Its registers are in pages that this process maps once more, so that whoever finds the vCPU parked
 * reads and writes them where they are.
 *
 * @module
 */
import { Errno, OsError } from "../../../ffi/errno.ts";
import type { OwnedFd } from "../../../ffi/fd.ts";
import { type CpuidEntry, encodeCpuid } from "../../../ffi/kvm/cpuid.ts";
import { RunPage } from "../../../ffi/kvm/run.ts";
import { makeMemfd, type MappedRegion, mapShared } from "../../../ffi/memory.ts";
import { tscNow } from "../../../ffi/tsc.ts";
import { findCpuid } from "../../cpu/features.ts";
import type {
  AcceleratorVcpu,
  DebugControl,
  MovedPart,
  PreparedTransfer,
  VcpuTransfer,
} from "../accelerator.ts";
import { debugControlRegister } from "../debug_points.ts";
import { moveEach } from "../move_each.ts";
import type { VcpuChips } from "./chips/vcpu_chips.ts";
import { LapicEvent } from "./chips/state.ts";
import { ATTENTION, cpuState, GUEST_DEBUG, KVM_RUN_ADDRESS, SHARED_SIZE } from "./cpu_state.ts";
import type {
  LapicFeatures,
  SoftwareRunnerDescription,
  SoftwareVmDescription,
} from "./description.ts";
import { type MsrHost, readMsrs, writeMsrs } from "./kvm_msrs.ts";
import * as kvm from "./kvm_state.ts";
import { readXsave, writeXsave } from "./kvm_xsave.ts";
import { type CpuLimits, cpuLimits } from "./limits.ts";
import type { MachineChips } from "./machine_chips.ts";
import type { PowerOn } from "./power_on.ts";
import { translate } from "./translate.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** KVM_MP_STATE_*. */
const MP_STATE_INIT_RECEIVED = 2;
const MP_STATE_SIPI_RECEIVED = 4;
/** One NMI that is handled, and one that waits. */
const MAX_NMIS = 2;

/** The pages that a vCPU shares with other threads. */
export class VcpuPages implements Disposable {
  readonly fd: OwnedFd;
  readonly mapping: MappedRegion;

  /** Makes them, zeros. */
  constructor() {
    this.fd = makeMemfd("denovo-vcpu", SHARED_SIZE);
    this.mapping = mapShared(this.fd.fd, SHARED_SIZE);
  }

  [Symbol.dispose](): void {
    this.mapping.close();
    this.fd.close();
  }
}

/** A vCPU. */
export class SoftwareVcpu implements AcceleratorVcpu {
  readonly run: RunPage;
  readonly description: SoftwareRunnerDescription;
  readonly tscKhz: number;
  readonly #index: number;
  readonly #state: kvm.CpuState;
  readonly #limits: CpuLimits;
  readonly #chips: VcpuChips;
  readonly #machine: MachineChips;
  readonly #msrHost: MsrHost;
  /** Does what the INIT signal does to the registers. */
  readonly #init: () => void;

  /**
   * Makes it, in its power-on state.
   *
   * @param index 0 for the boot processor
   * @param powerOn knows the power-on state, and what INIT does
   */
  constructor(
    index: number,
    { apicId, cpuid }: { readonly apicId: number; readonly cpuid: readonly CpuidEntry[] },
    powerOn: PowerOn,
    pages: VcpuPages,
    vm: SoftwareVmDescription,
    machine: MachineChips,
    module: WebAssembly.Module,
  ) {
    const { bytes, address } = pages.mapping;
    this.#index = index;
    this.#machine = machine;
    bytes.set(powerOn.state(index === 0, cpuid));
    this.#init = () => powerOn.init(bytes, cpuid);
    this.#state = cpuState.view(bytes.buffer, bytes.byteOffset);
    this.#limits = cpuLimits(cpuid);
    this.tscKhz = vm.tscKhz;
    this.run = new RunPage(address + KVM_RUN_ADDRESS, SHARED_SIZE - KVM_RUN_ADDRESS);
    const features = lapicFeatures(cpuid, this.#limits);
    this.#chips = machine.vcpu(index, this.#state, features);
    this.#chips.lapic.reset(apicId, index === 0);
    this.#msrHost = new ChipMsrs(this.#chips, machine, index);
    this.description = {
      accelerator: "tcg",
      vm,
      index,
      pagesFd: pages.fd.fd,
      module,
      cpuid: encodeCpuid(cpuid),
      features,
    };
    machine.wakes.noteChange(index);
  }

  read(part: MovedPart, into: Bytes): number {
    const state = this.#state;
    switch (part) {
      case "mp_state":
        this.#settleEvents();
        kvm.readMpState(state, into);
        break;
      case "regs":
        kvm.readRegs(state, into);
        break;
      case "sregs": {
        this.#mirrorApicBase();
        kvm.readSregs(state, into);
        break;
      }
      case "xsave":
        readXsave(state, into);
        break;
      case "xcrs":
        kvm.readXcrs(state, into);
        break;
      case "debugregs":
        kvm.readDebugregs(state, into);
        break;
      case "lapic":
        this.#chips.lapic.save(into);
        break;
      case "msrs":
        return readMsrs(state, into, this.#msrHost);
      case "vcpu_events":
        kvm.readVcpuEvents(state, into);
        break;
      case "tsc_offset":
        new DataView(into.buffer, into.byteOffset).setBigUint64(0, state.tsc_offset, true);
    }
    return 0;
  }

  write(part: MovedPart, from: Bytes): number {
    const state = this.#state;
    this.#machine.wakes.noteChange(this.#index);
    switch (part) {
      case "mp_state":
        // What was sent to the vCPU that it was is not meant for the one that it becomes.
        this.#chips.lapic.take(LapicEvent.ALL);
        kvm.writeMpState(state, from);
        break;
      case "regs":
        kvm.writeRegs(state, from);
        break;
      case "sregs":
        this.#writeSregs(from);
        break;
      case "xsave":
        writeXsave(state, from);
        break;
      case "xcrs":
        kvm.writeXcrs(state, from, this.#limits);
        break;
      case "debugregs":
        kvm.writeDebugregs(state, from);
        break;
      case "lapic":
        this.#chips.lapic.load(from);
        state.cr8 = BigInt(this.#chips.lapic.cr8);
        break;
      case "msrs":
        return writeMsrs(state, from, this.#limits, this.#msrHost);
      case "vcpu_events":
        kvm.writeVcpuEvents(state, from);
        break;
      case "tsc_offset":
        state.tsc_offset = new DataView(from.buffer, from.byteOffset).getBigUint64(0, true);
    }
    return 0;
  }

  #mirrorApicBase(): void {
    const { baseLow, baseHigh } = this.#chips.lapic;
    this.#state.apic_base = BigInt(baseHigh) << 32n | BigInt(baseLow);
  }

  /**
   * What others have sent since the vCPU was parked is part of its state, as for KVM_GET_MP_STATE:
   * its siblings are parked a little later.
   */
  #settleEvents(): void {
    const { lapic } = this.#chips;
    if (lapic.events === 0) return;
    const state = this.#state;
    if (lapic.take(LapicEvent.NMI)) {
      state.nmi_pending = Math.min(MAX_NMIS, state.nmi_pending + 1);
      state.attention |= ATTENTION.nmi;
    }
    if (lapic.take(LapicEvent.INIT)) {
      this.#mirrorApicBase();
      lapic.init();
      this.#init();
    }
    if (lapic.take(LapicEvent.SIPI) && state.mp_state === MP_STATE_INIT_RECEIVED) {
      state.sipi_vector = lapic.sipiVector;
      state.mp_state = MP_STATE_SIPI_RECEIVED;
      state.attention |= ATTENTION.state;
    }
    this.#machine.wakes.noteChange(this.#index);
  }

  #writeSregs(from: Bytes): void {
    kvm.writeSregs(this.#state, from, this.#limits);
    const { apic_base, cr8 } = this.#state;
    const [low, high] = [Number(apic_base & 0xffff_ffffn), Number(apic_base >> 32n)];
    if (!this.#chips.lapic.setBase(low, high, true)) {
      throw new OsError("KVM_SET_SREGS", Errno.EINVAL, `apic_base 0x${apic_base.toString(16)}`);
    }
    this.#chips.lapic.cr8 = Number(cr8);
  }

  prepareRead(transfer: VcpuTransfer): PreparedTransfer {
    return () => moveEach(transfer, "KVM_GET_MSRS", (part, into) => this.read(part, into));
  }

  prepareWrite(transfer: VcpuTransfer): PreparedTransfer {
    return () => moveEach(transfer, "KVM_SET_MSRS", (part, from) => this.write(part, from));
  }

  /** Reading the LAPIC does it. */
  settleTimer(): void {}

  noteKvmclockPause(): void {
    this.#machine.chipset.clock.notePause(this.#index);
  }

  nmi(): void {
    this.#machine.chipset.bus.nmi(this.#index);
  }

  debug(control: DebugControl | undefined): void {
    const { singleStep = false, points = [] } = control ?? {};
    const state = this.#state;
    state.guest_debug = (singleStep ? GUEST_DEBUG.step : 0) |
      (points.length > 0 ? GUEST_DEBUG.points : 0);
    points.forEach(({ address }, i) => state.debugger_dr.put(i, address));
    state.debugger_dr7 = debugControlRegister(points);
    state.debugger_dr6 = 0n;
    this.#machine.wakes.noteChange(this.#index);
  }

  translate(linear: bigint): bigint | undefined {
    return translate(this.#state, this.#machine.ram, linear);
  }

  allow(): void {
    this.run.immediateExit = false;
  }

  halt(): void {
    this.run.immediateExit = true;
    this.#machine.wakes.kick(this.#index);
  }

  interrupt(): void {
    this.#machine.wakes.leave(this.#index);
  }
}

const CPUID_X2APIC = 1 << 21;
const CPUID_TSC_DEADLINE = 1 << 24;
const MSR_TSC_DEADLINE = 0x6e0;

function lapicFeatures(
  cpuid: readonly CpuidEntry[],
  { physicalBits }: CpuLimits,
): LapicFeatures {
  const ecx = findCpuid(cpuid, 1)?.ecx ?? 0;
  return {
    x2apic: (ecx & CPUID_X2APIC) !== 0,
    tscDeadline: (ecx & CPUID_TSC_DEADLINE) !== 0,
    physicalBits,
  };
}

/** The MSRs that are not the CPU's own; without the timer's TSC mode its deadline is 0, as in KVM. */
class ChipMsrs implements MsrHost {
  readonly #chips: VcpuChips;
  readonly #machine: MachineChips;
  readonly #index: number;

  constructor(chips: VcpuChips, machine: MachineChips, index: number) {
    this.#chips = chips;
    this.#machine = machine;
    this.#index = index;
  }

  tsc(): bigint {
    return tscNow();
  }

  tscOffset(value: bigint): bigint {
    return this.#machine.tscs.offset(this.#index, BigInt.asUintN(64, value - tscNow()));
  }

  read(index: number): bigint | undefined {
    if (!this.#chips.readMsr(index)) return index === MSR_TSC_DEADLINE ? 0n : undefined;
    return BigInt(this.#chips.msrHigh >>> 0) << 32n | BigInt(this.#chips.msrLow >>> 0);
  }

  write(index: number, value: bigint): boolean {
    const taken = this.#chips.writeMsr(
      index,
      Number(value & 0xffff_ffffn),
      Number(value >> 32n),
      true,
    );
    return taken || (index === MSR_TSC_DEADLINE && value === 0n);
  }
}
