/**
 * A VM in KVM whose guest an anchor runs (`ffi/anchor.ts`), as the program sees it that takes the guest
 * out of there: what is done to the VM the anchor does, which alone can.
 *
 * @module
 */
import { affinityOf, setAffinity } from "../../../ffi/affinity.ts";
import { Anchor, AnchorPhase } from "../../../ffi/anchor.ts";
import { type AnchorProgram, ioctlCall } from "../../../ffi/anchor_program.ts";
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
import { type Hardware, HardwareState, type StateSource } from "../hardware.ts";
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
 * @throws {Error} if the accelerator is not KVM
 * @throws {OsError} if it cannot be made
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
  threads.forEach((tid, i) => setAffinity(anchor.threadId(i), affinityOf(tid)));
  return anchor;
}

/** The leader's line in the mailbox; those of the vCPUs follow. */
const LEADER = 0;

/** VM, chips and vCPUs in an anchor. The vCPUs are stopped for everything but `resume` and `stop`. */
export class AnchoredHardware implements StateSource {
  readonly anchor: Anchor;
  readonly layout: VcpuStateLayout;
  readonly hasPit: boolean;
  readonly vcpus: readonly AnchoredVcpu[];
  readonly vm: Pick<AcceleratorVm, "read">;
  /** The lines and messages of its chips. */
  readonly interrupts: InterruptLines;
  readonly #pages: readonly RunPage[];
  readonly #own: Hardware;

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
    this.vm = new AnchoredVm(anchor);
    this.interrupts = new AnchoredLines(anchor);
  }

  /** Buffers for the whole state, to be read. */
  makeState(): HardwareState {
    return new HardwareState(this, this.#own);
  }

  readClock(into: Uint8Array<ArrayBuffer>): void {
    this.vm.read("clock", into);
  }

  /** Lets the guest go on in the anchor. */
  resume(): void {
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
  readonly #anchor: Anchor;
  readonly #getXsave: number;
  readonly #enter: AnchorProgram;
  readonly #turn: readonly [AnchorProgram, AnchorProgram];

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
   * @param serve serves the exit that the run page tells of
   */
  finish(serve: () => void): void {
    for (let waits = true; waits;) {
      serve();
      this.run.immediateExit = true;
      this.#anchor.noteExit(this.index, false);
      waits = this.#enter.run() === 0 && this.#enter.result === 0;
      this.#anchor.noteExit(this.index, waits);
    }
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
    const program = anchor.prepare(
      line,
      transfer.map(([part, buffer], i) => {
        const request = part === "xsave" ? this.#getXsave : stateRequests[part].get;
        let { address } = places[i];
        if (part === "tsc_offset") {
          const attribute = anchor.allocate(line, kvmDeviceAttr.size);
          attribute.bytes.set(kvmDeviceAttr.alloc({ addr: BigInt(address) }).bytes);
          address = attribute.address;
        }
        return ioctlCall(fd, request, address, expectedResult(part, buffer));
      }),
    );
    return () => {
      const done = program.run();
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

const vmParts: Record<VmPart, number> = {
  irqchip: kvmIrqchip.size,
  pit: kvmPitState2.size,
  clock: kvmClockData.size,
};

/** The VM itself. */
class AnchoredVm implements Pick<AcceleratorVm, "read"> {
  readonly #parts: Record<VmPart, { bytes: Uint8Array<ArrayBuffer>; program: AnchorProgram }>;

  constructor(anchor: Anchor) {
    const prepare = (part: VmPart) => {
      const { bytes, address } = anchor.allocate(LEADER, vmParts[part]);
      const call = ioctlCall(anchor.vmFd, vmRequests[part].get, address);
      return { bytes, program: anchor.prepare(LEADER, [call]) };
    };
    this.#parts = { irqchip: prepare("irqchip"), pit: prepare("pit"), clock: prepare("clock") };
  }

  read(part: VmPart, into: Uint8Array<ArrayBuffer>): void {
    const { bytes, program } = this.#parts[part];
    bytes.set(into);
    runOne(program, vmRequests[part].get);
    into.set(bytes);
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
