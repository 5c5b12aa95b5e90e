/**
 * A VM in KVM whose guest an anchor runs (`ffi/anchor.ts`), as the program sees it that takes the guest
 * out of there: what is done to the VM the anchor does, which alone can.
 *
 * @module
 */
import { affinityOf, setAffinity } from "../../../ffi/affinity.ts";
import { Anchor, AnchorPhase } from "../../../ffi/anchor.ts";
import { type AnchorProgram, ioctlCall } from "../../../ffi/anchor_program.ts";
import type { EncodedCall } from "../../../ffi/call_program.ts";
import { Errno, OsError } from "../../../ffi/errno.ts";
import { KVM, requestName } from "../../../ffi/kvm/ioctl.ts";
import type { RunPage } from "../../../ffi/kvm/run.ts";
import {
  kvmClockData,
  kvmDeviceAttr,
  kvmIrqchip,
  kvmIrqLevel,
  kvmMsi,
  kvmPitState2,
} from "../../../ffi/kvm/structs.ts";
import type {
  AcceleratorVm,
  InterruptLines,
  KvmRunnerDescription,
  PreparedTransfer,
  VcpuStateLayout,
  VcpuTransfer,
  VmPart,
} from "../accelerator.ts";
import { type Hardware, HardwareState, irqchips, type StateSource } from "../hardware.ts";
import type { VcpuStateSource } from "../vcpu_state.ts";
import { expectedResult, stateRequests, transferFailure } from "./state_ioctls.ts";
import { KvmAcceleratorVcpu } from "./vcpu.ts";
import { KvmAcceleratorVm, vmRequests } from "./vm.ts";

/**
 * Makes an anchor for a machine's vCPUs, on the processors where they are. They stay where they are
 * until they are parked and the anchor is told to resume them.
 *
 * @param hardware the machine's
 * @param threads the threads that run the vCPUs now
 * @param limitMs milliseconds for which the guest may run without a VMM
 * @throws {Error} if the accelerator is not KVM, or it cannot be made
 */
export function startAnchor(
  hardware: Hardware,
  threads: readonly number[],
  limitMs: number,
): Anchor {
  const { vm, vcpus } = hardware;
  if (!(vm instanceof KvmAcceleratorVm)) throw new Error("the guest does not run in KVM");
  const anchor = Anchor.start(
    vm.interruptsDescription.vmFd,
    vcpus.map(({ description }) => description as KvmRunnerDescription),
    limitMs,
  );
  try {
    threads.forEach((tid, i) => setAffinity(anchor.threadId(i), affinityOf(tid)));
    return anchor;
  } catch (error) {
    anchor.end();
    anchor[Symbol.dispose]();
    throw error;
  }
}

/** The leader's line in the mailbox; those of the vCPUs follow. */
const LEADER = 0;
/** Calls of a program that reads everything: 40 KiB of the leader's arena. */
const MAX_AHEAD = 640;

/** What is read of the VM, in the mailbox. */
interface Reading {
  /** The calls that read it. */
  readonly calls: readonly EncodedCall[];
  /** Whether it has been read already. */
  isFresh: boolean;
}

/** How everything is read in one go. */
interface Ahead {
  readonly program: AnchorProgram | undefined;
  readonly parts: readonly Reading[];
  readonly calls: number;
}

/** VM, chips and vCPUs in an anchor. The vCPUs are stopped for everything but `resume` and `stop`. */
export class AnchoredHardware implements StateSource {
  readonly anchor: Anchor;
  readonly layout: VcpuStateLayout;
  readonly hasPit: boolean;
  readonly vcpus: readonly AnchoredVcpu[];
  readonly vm: AnchoredVm;
  /** The lines and messages of its chips. */
  readonly interrupts: InterruptLines;
  readonly #pages: readonly RunPage[];
  readonly #own: Hardware;
  #ahead: Ahead | undefined;

  /**
   * @param anchor the anchor
   * @param pages the vCPUs' kvm_run pages
   * @param own the hardware, of the same kind, that the state is for
   * @throws {Error} if that is not KVM's
   */
  constructor(anchor: Anchor, pages: readonly RunPage[], own: Hardware) {
    this.anchor = anchor;
    this.#pages = pages;
    this.#own = own;
    this.layout = own.layout;
    this.hasPit = own.hasPit;
    this.vcpus = own.vcpus.map((vcpu, i) => {
      if (vcpu instanceof KvmAcceleratorVcpu) {
        return new AnchoredVcpu(anchor, i, pages[i], vcpu.getXsave);
      }
      throw new Error("A guest that an anchor runs can only be taken by a VMM with -accel kvm");
    });
    this.vm = new AnchoredVm(anchor, own.hasPit);
    this.interrupts = new AnchoredLines(anchor);
  }

  /** Buffers for the whole state, to be read. */
  makeState(): HardwareState {
    return new HardwareState(this, this.#own);
  }

  /**
   * Reads all of the state in one go, so that the next reading of each part finds it: an order to the
   * anchor takes as long as it takes to wake a thread, and all of the reading.
   */
  readAhead(): void {
    this.#ahead ??= this.#prepareAhead();
    const { program, parts } = this.#ahead;
    // A reading that failed in its middle has left some of what was read before it.
    for (const part of parts) part.isFresh = false;
    // Where something fails, or the guest has more vCPUs than go into one program, each part is read
    // by itself, and says what is wrong.
    if (!program || program.run() < this.#ahead.calls) return;
    for (const part of parts) part.isFresh = true;
  }

  #prepareAhead(): Ahead {
    const parts = [...this.vcpus.flatMap(({ readings }) => readings), ...this.vm.readings];
    const calls = parts.flatMap((part) => part.calls);
    const program = calls.length <= MAX_AHEAD ? this.anchor.prepare(LEADER, calls) : undefined;
    return { program, parts, calls: calls.length };
  }

  readClock(into: Uint8Array<ArrayBuffer>): void {
    this.vm.read("clock", into);
  }

  /** Lets the guest go on in the anchor. */
  resume(): void {
    for (const vcpu of this.vcpus) vcpu.askAgain();
    this.anchor.resume(this.#pages);
  }

  /** Stops the guest. @throws {AnchorEnded} if it has ended */
  stop(): void {
    this.anchor.stop(this.#pages);
  }

  /** The vCPUs that have an exit to be served. */
  get waiting(): readonly AnchoredVcpu[] {
    return this.vcpus.filter(({ isWaiting }) => isWaiting);
  }
}

/** A vCPU in an anchor. */
export class AnchoredVcpu implements VcpuStateSource {
  /** Why the guest stopped. */
  readonly run: RunPage;
  readonly index: number;
  /** What has been prepared to be read. */
  readonly readings: Reading[] = [];
  readonly #anchor: Anchor;
  readonly #getXsave: number;
  readonly #enter: AnchorProgram;
  readonly #turn: readonly [AnchorProgram, AnchorProgram];
  #asked = false;

  /**
   * @param index which one it is
   * @param run its kvm_run page
   * @param getXsave the request that gets all of the XSAVE state
   */
  constructor(anchor: Anchor, index: number, run: RunPage, getXsave: number) {
    this.#anchor = anchor;
    this.index = index;
    this.run = run;
    this.#getXsave = getXsave;
    this.#enter = anchor.prepare(index + 1, [
      ioctlCall(anchor.vcpuFd(index), KVM.RUN, 0, -Errno.EINTR),
    ]);
    this.#turn = anchor.prepareTurn(index);
  }

  /** Whether the run page has an exit that nobody has served. */
  get isWaiting(): boolean {
    return this.#anchor.phase(this.index) === AnchorPhase.EXITED;
  }

  /**
   * Serves the exit, and those that follow from it: an access in several pieces exits once for each.
   *
   * @param serve serves the exit that the run page tells of; whether somebody has to decide on it
   */
  finish(serve: () => boolean): void {
    for (let waits = true; waits;) {
      this.#asked ||= serve();
      this.run.immediateExit = true;
      this.#anchor.noteExit(this.index, false);
      waits = this.#enter.run() === 0 && this.#enter.result === 0;
      this.#anchor.noteExit(this.index, waits);
    }
  }

  /**
   * Nobody has decided on what the exit asked for, a reset or the like: it is there again for the next
   * who comes, and the vCPU does not run before.
   */
  askAgain(): void {
    if (this.#asked) this.#anchor.noteExit(this.index, true);
    this.#asked = false;
  }

  prepareRead(transfer: VcpuTransfer): PreparedTransfer {
    const anchor = this.#anchor;
    const line = this.index + 1;
    const fd = anchor.vcpuFd(this.index);
    const places = transfer.map(([, buffer]) => {
      const place = anchor.allocate(line, buffer.length);
      place.bytes.set(buffer);
      return place;
    });
    const calls = transfer.map(([part, buffer], i) => {
      const request = part === "xsave" ? this.#getXsave : stateRequests[part].get;
      let { address } = places[i];
      if (part === "tsc_offset") {
        const attribute = anchor.allocate(line, kvmDeviceAttr.size);
        attribute.bytes.set(kvmDeviceAttr.alloc({ addr: BigInt(address) }).bytes);
        address = attribute.address;
      }
      return ioctlCall(fd, request, address, expectedResult(part, buffer));
    });
    const program = anchor.prepare(line, calls);
    const reading: Reading = { calls, isFresh: false };
    this.readings.push(reading);
    return () => {
      const done = reading.isFresh ? transfer.length : program.run();
      reading.isFresh = false;
      for (let i = 0; i < done; i++) transfer[i][1].set(places[i].bytes);
      if (done === transfer.length) return undefined;
      return transferFailure(transfer, done, program.result, "get");
    };
  }

  settleTimer(): void {
    const [turn, back] = this.#turn;
    // Left by whoever stopped the vCPU; KVM would turn back before it looks at the timer.
    this.run.immediateExit = false;
    try {
      turn.run();
    } finally {
      back.run();
    }
  }
}

/** A part of a VM's own state, in the mailbox. */
class AnchoredPart implements Reading {
  readonly calls: readonly EncodedCall[];
  isFresh = false;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #program: AnchorProgram;
  readonly #request: number;

  /** @param initial says which chip it is, where there are several */
  constructor(anchor: Anchor, part: VmPart, initial: Uint8Array<ArrayBuffer>) {
    const { bytes, address } = anchor.allocate(LEADER, initial.length);
    bytes.set(initial);
    this.#request = vmRequests[part].get;
    this.calls = [ioctlCall(anchor.vmFd, this.#request, address)];
    this.#program = anchor.prepare(LEADER, this.calls);
    this.#bytes = bytes;
  }

  /** @throws {OsError} */
  read(into: Uint8Array<ArrayBuffer>): void {
    if (!this.isFresh) runOne(this.#program, this.#request);
    this.isFresh = false;
    into.set(this.#bytes);
  }
}

/** The VM itself. */
class AnchoredVm implements Pick<AcceleratorVm, "read"> {
  readonly #chips: readonly AnchoredPart[];
  readonly #pit: AnchoredPart;
  readonly #clock: AnchoredPart;

  constructor(anchor: Anchor, hasPit: boolean) {
    this.#chips = irqchips.map((_, chip_id) =>
      new AnchoredPart(anchor, "irqchip", kvmIrqchip.alloc({ chip_id }).bytes)
    );
    this.#pit = new AnchoredPart(anchor, "pit", kvmPitState2.alloc().bytes);
    this.#clock = new AnchoredPart(anchor, "clock", kvmClockData.alloc().bytes);
    this.readings = [...this.#chips, ...(hasPit ? [this.#pit] : []), this.#clock];
  }

  /** What there is to be read. */
  readonly readings: readonly Reading[];

  read(part: VmPart, into: Uint8Array<ArrayBuffer>): void {
    this.#find(part, into).read(into);
  }

  #find(part: VmPart, { buffer, byteOffset }: Uint8Array<ArrayBuffer>): AnchoredPart {
    if (part === "pit") return this.#pit;
    if (part === "clock") return this.#clock;
    return this.#chips[kvmIrqchip.view(buffer, byteOffset).chip_id];
  }
}

/** The chips' lines. */
class AnchoredLines implements InterruptLines {
  readonly #line: ReturnType<typeof kvmIrqLevel.view>;
  readonly #msi: ReturnType<typeof kvmMsi.view>;
  readonly #drive: AnchorProgram;
  readonly #send: AnchorProgram;

  constructor(anchor: Anchor) {
    const line = anchor.allocate(LEADER, kvmIrqLevel.size);
    const msi = anchor.allocate(LEADER, kvmMsi.size);
    this.#line = kvmIrqLevel.view(line.bytes.buffer, line.bytes.byteOffset);
    this.#msi = kvmMsi.view(msi.bytes.buffer, msi.bytes.byteOffset);
    const prepare = (request: number, address: number) =>
      anchor.prepare(LEADER, [ioctlCall(anchor.vmFd, request, address)]);
    this.#drive = prepare(KVM.IRQ_LINE, line.address);
    this.#send = prepare(KVM.SIGNAL_MSI, msi.address);
  }

  setLine(gsi: number, level: boolean): void {
    this.#line.irq = gsi;
    this.#line.level = level ? 1 : 0;
    runOne(this.#drive, KVM.IRQ_LINE);
  }

  /** The processor sees to it. */
  ramWritten(): void {}

  /** A write that exits rings as well, and the guest is about to leave this VM. */
  connectDoorbell(): void {}

  /** There is none: the VM has doorbells that move only with `pcie=on`, which is not anchored. */
  disconnectDoorbell(): void {}

  sendMsi(address: number, data: number): void {
    this.#msi.address_lo = address;
    this.#msi.data = data;
    // It returns how many local APICs have taken it, or -1 if none has: the guest's affair.
    this.#send.run();
  }
}

/** @throws {OsError} if a program's only call fails */
function runOne(program: AnchorProgram, request: number): void {
  if (program.run() === 0) throw new OsError(requestName(request), -program.result);
}
