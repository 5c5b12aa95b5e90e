/**
 * The virtual machine as a debugger uses it.
 *
 * @module
 */
import { type DebugPoint, MAX_DEBUG_POINTS } from "../accel/accelerator.ts";
import type { VirtualMachine } from "../virtual_machine.ts";
import { Registers } from "./registers.ts";

const PAGE = 4096n;

/** How a vCPU goes on. */
export type Resume = "continue" | "step" | "hold";

/** Why the guest has stopped. */
export interface StopReason {
  /** The vCPU that came to where it was to stop; undefined if someone stopped the VM. */
  readonly cpuIndex?: number;
  /** The point that was hit, if it was one. */
  readonly point?: DebugPoint;
}

/** What a debugger does with a VM. It stops when the debugger comes, and goes on when that goes. */
export class DebugTarget implements Disposable {
  readonly #vm: VirtualMachine;
  readonly #onStop: (reason: StopReason) => void;
  readonly #unsubscribe: () => void;
  readonly #points: DebugPoint[] = [];
  #goOnAtEnd: boolean;
  #ended = false;

  /**
   * Stops the VM.
   *
   * @param onStop called whenever the VM stops after the debugger has let it run
   */
  constructor(vm: VirtualMachine, onStop: (reason: StopReason) => void) {
    this.#vm = vm;
    this.#onStop = onStop;
    this.#goOnAtEnd = vm.running;
    vm.stop();
    this.#unsubscribe = vm.events.subscribe(({ name }) => name === "STOP" && this.#stopped());
  }

  /** Number of vCPUs. */
  get cpus(): number {
    return this.#vm.machine.vcpus.length;
  }

  /** Whether the guest runs. */
  get running(): boolean {
    return this.#vm.running;
  }

  /** Resolves with the exit status when the VM has ended. */
  get exited(): Promise<number> {
    return this.#vm.exited;
  }

  /** Stops the guest. */
  stop(): void {
    this.#vm.stop();
  }

  /** Ends the VM. */
  kill(): void {
    this.#vm.quit();
  }

  /**
   * Lets the guest go on.
   *
   * @param actions what each vCPU does
   * @throws {Error} if it must not
   */
  resume(actions: readonly Resume[]): void {
    this.#applyPoints(actions);
    const held = new Set(actions.flatMap((action, i) => action === "hold" ? [i] : []));
    this.#vm.debugStop = undefined;
    this.#goOnAtEnd = true;
    this.#vm.cont(held);
  }

  /** A vCPU's registers. The guest does not run. */
  registers(cpuIndex: number): Registers {
    const { hardware, vcpus } = this.#vm.machine;
    return new Registers(vcpus[cpuIndex].hardware, hardware.layout.xsaveSize);
  }

  /** A copy of memory at a linear address of a vCPU; undefined if not all of it is there. */
  readMemory(cpuIndex: number, address: bigint, length: number): Uint8Array | undefined {
    const copy = new Uint8Array(length);
    const isThere = this.#pieces(cpuIndex, address, length, (gpa, from, to) => {
      copy.set(this.#vm.machine.memory.read(gpa, to - from), from);
    });
    return isThere ? copy : undefined;
  }

  /** Writes memory at a linear address of a vCPU; false, and nothing is written, if it is not there. */
  writeMemory(cpuIndex: number, address: bigint, data: Uint8Array<ArrayBuffer>): boolean {
    if (!this.#pieces(cpuIndex, address, data.length, () => {})) return false;
    return this.#pieces(cpuIndex, address, data.length, (gpa, from, to) => {
      this.#vm.machine.memory.write(gpa, data.slice(from, to));
    });
  }

  /** Adds a point; false if the processor has no more, or cannot have one there. */
  addPoint(point: DebugPoint): boolean {
    if (this.#points.some((other) => isSame(other, point))) return true;
    const { address, length } = point;
    if (![1, 2, 4, 8].includes(length) || address % BigInt(length) !== 0n) return false;
    if (this.#points.length === MAX_DEBUG_POINTS) return false;
    this.#points.push(point);
    return true;
  }

  /** Removes a point; without effect if it is not there. */
  removePoint(point: DebugPoint): void {
    const index = this.#points.findIndex((other) => isSame(other, point));
    if (index >= 0) this.#points.splice(index, 1);
  }

  /** The debugger goes: nothing of it stays, and a guest that it has stopped goes on. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#unsubscribe();
    if (this.#vm.ending.aborted) return;
    this.#vm.whileParked(() => {
      for (const { hardware } of this.#vm.machine.vcpus) hardware.debug(undefined);
    });
    // One that has ended, failed or left meanwhile stays as it is.
    const isMine = this.#vm.runState === "debug" || this.#vm.runState === "paused";
    if (this.#goOnAtEnd && isMine && this.#vm.guard?.() === undefined) this.#vm.cont();
  }

  #stopped(): void {
    const { debugStop } = this.#vm;
    if (!debugStop) return this.#onStop({});
    const { cpuIndex, status } = debugStop;
    const point = this.#points.find((_, i) => (status >> i) & 1);
    this.#onStop({ cpuIndex, point });
  }

  #applyPoints(actions: readonly Resume[]): void {
    this.#vm.machine.vcpus.forEach(({ hardware }, i) => {
      const singleStep = actions[i] === "step";
      const wanted = singleStep || this.#points.length > 0;
      hardware.debug(wanted ? { singleStep, points: this.#points } : undefined);
    });
  }

  /**
   * Walks through the pages of a range.
   *
   * @param visit called with each piece's guest physical address and its place in the range
   * @returns false at the first piece that is not memory
   */
  #pieces(
    cpuIndex: number,
    address: bigint,
    length: number,
    visit: (gpa: number, from: number, to: number) => void,
  ): boolean {
    const { memory, vcpus } = this.#vm.machine;
    for (let from = 0; from < length;) {
      const linear = BigInt.asUintN(64, address + BigInt(from));
      const to = Math.min(length, from + Number(PAGE - linear % PAGE));
      const physical = vcpus[cpuIndex].hardware.translate(linear);
      if (physical === undefined || !memory.contains(Number(physical), to - from)) return false;
      visit(Number(physical), from, to);
      from = to;
    }
    return true;
  }
}

function isSame(a: DebugPoint, b: DebugPoint): boolean {
  return a.on === b.on && a.address === b.address && a.length === b.length;
}
