/**
 * A vCPU's architectural state as KVM keeps it, in the order in which it is written.
 *
 * The restore order is KVM's (Documentation/virt/kvm/api.rst): what depends on CPUID after CPUID,
 * the LAPIC before the MSRs (the TSC deadline arms its timer), pending events last.
 *
 * @module
 */
import type { OsError } from "../../ffi/errno.ts";
import {
  kvmDebugregs,
  kvmLapicState,
  kvmMpState,
  kvmRegs,
  kvmSregs,
  kvmVcpuEvents,
  kvmXcrs,
} from "../../ffi/kvm/structs.ts";
import type { View } from "../../ffi/struct.ts";
import {
  type AcceleratorVcpu,
  type MovedPart,
  type PreparedTransfer,
  type VcpuPart,
  vcpuParts,
  type VcpuStateLayout,
} from "./accelerator.ts";
import { msrBuffer, msrCount, msrEntry } from "./msrs.ts";

/** LAPIC registers (SDM 3A, 10.5): the timer's vector with mode and mask, its counts. */
const LVT_TIMER = 0x320;
const LVT_MASKED_OR_MODE = 0x7_0000;
const INITIAL_COUNT = 0x380;
const CURRENT_COUNT = 0x390;
const LVT_VECTOR = 0xff;
/** The first of eight registers, 16 bytes apart: interrupts that were accepted and wait. */
const IRR = 0x200;
/** How often KVM is given the chance to bring in a timer's interrupt; the first moves the timer. */
const TIMER_LOOKS = 2;
/** KVM_MP_STATE_RUNNABLE. */
const MP_STATE_RUNNABLE = 0;

/**
 * The order in which the parts are read: the LAPIC last. A TSC deadline that runs out in between is
 * then in both the MSR and the LAPIC, which gives one interrupt, rather than in neither.
 */
const readingOrder: readonly VcpuPart[] = [
  ...vcpuParts.filter((part) => part !== "lapic"),
  "lapic",
];

/** The accelerator does not take a part of a vCPU's state; `cause` is its error. */
export class PartRefused extends Error {
  override readonly name = "PartRefused";

  /**
   * @param state the vCPU's state
   * @param part the part that was refused
   * @param cause the accelerator's error
   */
  constructor(
    readonly state: VcpuState,
    readonly part: MovedPart,
    override readonly cause: OsError,
  ) {
    super(cause.message, { cause });
  }
}

/** What a vCPU's state is read from. */
export type VcpuStateSource = Pick<AcceleratorVcpu, "prepareRead" | "settleTimer">;

/** One vCPU's state in buffers that are made once and filled again and again. */
export class VcpuState {
  /** The bytes of each part, as the kernel's structs lay them out. */
  readonly parts: Readonly<Record<VcpuPart, Uint8Array<ArrayBuffer>>>;
  /** The guest's TSC less the host's: u64, in a host that tells it. */
  readonly tscOffset: Uint8Array<ArrayBuffer> | undefined;
  readonly #lapic: DataView;
  readonly #events: View<typeof kvmVcpuEvents.fields>;
  readonly #mpState: View<typeof kvmMpState.fields>;
  readonly #from: VcpuStateSource;
  readonly #to: AcceleratorVcpu;
  readonly #read: PreparedTransfer;
  readonly #write: PreparedTransfer;
  readonly #writeTscOffset: PreparedTransfer | undefined;
  /** Writes other MSRs instead of the own ones, for a state that another accelerator has saved. */
  #writeAdopted: PreparedTransfer | undefined;

  /**
   * Makes empty buffers.
   *
   * @param layout what can be saved on this host
   * @param from whose state is read
   * @param to where it is written
   */
  constructor(layout: VcpuStateLayout, from: VcpuStateSource, to: AcceleratorVcpu) {
    this.#from = from;
    this.#to = to;
    this.parts = {
      mp_state: new Uint8Array(kvmMpState.size),
      regs: new Uint8Array(kvmRegs.size),
      sregs: new Uint8Array(kvmSregs.size),
      xsave: new Uint8Array(layout.xsaveSize),
      xcrs: new Uint8Array(kvmXcrs.size),
      debugregs: new Uint8Array(kvmDebugregs.size),
      lapic: new Uint8Array(kvmLapicState.size),
      msrs: msrBuffer(layout.msrs),
      vcpu_events: new Uint8Array(kvmVcpuEvents.size),
    };
    this.tscOffset = layout.tscOffset ? new Uint8Array(8) : undefined;
    this.#lapic = new DataView(this.parts.lapic.buffer);
    this.#events = kvmVcpuEvents.view(this.parts.vcpu_events.buffer);
    this.#mpState = kvmMpState.view(this.parts.mp_state.buffer);
    const offset = this.tscOffset ? [["tsc_offset", this.tscOffset] as const] : [];
    const inOrder = (order: readonly VcpuPart[]) =>
      order.map((part) => [part, this.parts[part]] as const);
    this.#read = from.prepareRead([...inOrder(readingOrder), ...offset]);
    this.#write = to.prepareWrite(inOrder(vcpuParts));
    this.#writeTscOffset = this.tscOffset && to.prepareWrite(offset);
  }

  /** Reads the state; the vCPU is parked. @throws {OsError} */
  save(): void {
    this.#readAll();
    if (!this.#timerHasRunOut()) return;
    for (let look = 0; look < TIMER_LOOKS && !this.#timerIsPending(); look++) {
      this.#from.settleTimer();
      this.#readAll();
    }
    if (this.#timerIsPending() || this.#isRunnable()) this.#lapic.setUint32(INITIAL_COUNT, 0, true);
  }

  /**
   * Whether the LAPIC timer was armed by count, once, and nothing is left of the count.
   *
   * KVM_GET_LAPIC computes the count from the time. Whether the interrupt has come yet it does not
   * say, for the host's timer, on whichever processor, may be late; and KVM_SET_LAPIC starts such a
   * timer again and lets it fire at once. So the interrupt is brought into the state, and the timer
   * then is at rest in it. Where no interrupt comes, a runnable vCPU has had it: letting it enter KVM
   * has moved the host's timer to this processor, where it is overdue. A halted one may be waiting
   * for it, and keeps its count: an interrupt too many does less harm than one that never comes.
   */
  #timerHasRunOut(): boolean {
    return (this.#lapic.getUint32(LVT_TIMER, true) & LVT_MASKED_OR_MODE) === 0 &&
      this.#lapic.getUint32(INITIAL_COUNT, true) !== 0 &&
      this.#lapic.getUint32(CURRENT_COUNT, true) === 0;
  }

  /** Whether the timer's interrupt is on its way: in the LAPIC, or already taken out to be injected. */
  #timerIsPending(): boolean {
    const vector = this.#lapic.getUint32(LVT_TIMER, true) & LVT_VECTOR;
    const requested = this.#lapic.getUint32(IRR + (vector >> 5) * 16, true) >>> (vector & 31);
    const { interrupt_injected, interrupt_nr } = this.#events;
    return (requested & 1) !== 0 || (interrupt_injected !== 0 && interrupt_nr === vector);
  }

  #isRunnable(): boolean {
    return this.#mpState.mp_state === MP_STATE_RUNNABLE;
  }

  #readAll(): void {
    const failure = this.#read();
    if (failure) throw failure.error;
  }

  /**
   * Writes the state; the vCPU is parked.
   *
   * @param tscOffsets give the TSC its offset instead of its value: it goes on as if nothing were
   * @throws {PartRefused}
   */
  restore(tscOffsets: boolean): void {
    const write = this.#writeAdopted ?? this.#write;
    const failure = write() ?? (tscOffsets ? this.#writeTscOffset?.() : undefined);
    if (failure) throw new PartRefused(this, failure.part, failure.error);
  }

  /**
   * Has MSRs written that are not this host's list, until the next call; with undefined its own again.
   * Those of the list that are not among them stay as they are in the vCPU.
   */
  adoptMsrs(msrs: Uint8Array<ArrayBuffer> | undefined): void {
    const parts = msrs && { ...this.parts, msrs };
    this.#writeAdopted = parts &&
      this.#to.prepareWrite(vcpuParts.map((part) => [part, parts[part]]));
  }

  /** The value of an MSR that was saved, or undefined. */
  msr(index: number): bigint | undefined {
    const { msrs } = this.parts;
    for (let position = 0; position < msrCount(msrs); position++) {
      const entry = msrEntry(msrs, position);
      if (entry.index === index) return entry.data;
    }
  }
}
