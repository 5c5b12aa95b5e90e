/**
 * A software CPU without a VM around it, for tests: the module, its state, and some RAM.
 *
 * @module
 */
import { cpuState, RAM_ADDRESS, region, STOP } from "../../../vmm/accel/software/cpu_state.ts";
import { encodeCpuid } from "../../../ffi/kvm/cpuid.ts";
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";

const PAGE = 0x1_0000;

/** What core.wasm exports, as far as tests call it. */
export interface CpuExports {
  refresh(): void;
  deliverFault(): number;
  powerOn(bootProcessor: number, signature: number): void;
  init(): void;
  startUp(vector: number): void;
  cpuidTable(): number;
  cpuidChanged(count: number): void;
}

/** What a guest exception leaves WebAssembly by. */
class Raised extends Error {}

/** A CPU at its reset, with so many bytes of RAM from address 0. */
export class TestCpu {
  readonly memory: WebAssembly.Memory;
  readonly core: CpuExports;
  readonly state;
  /** The RAM, and the same as a DataView. */
  readonly ram: Uint8Array;
  readonly data: DataView;
  readonly #raised = new Raised("guest exception");

  constructor(module: WebAssembly.Module, cpuid: readonly CpuidEntry[], ramSize = 0x10_0000) {
    const pages = (RAM_ADDRESS + ramSize) / PAGE;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: 0x1_0000 });
    const instance = new WebAssembly.Instance(module, {
      env: {
        memory: this.memory,
        raise: () => {
          throw this.#raised;
        },
        mmioRead: () => 0xffff_ffff,
        mmioWrite: () => {},
        cr8Changed: () => {},
        readTsc: () => {},
        interruptVector: () => -1,
        msrRead: () => 0,
        msrWrite: () => 0,
      },
    });
    this.core = instance.exports as unknown as CpuExports;
    this.state = cpuState.view(this.memory.buffer);
    this.ram = new Uint8Array(this.memory.buffer, RAM_ADDRESS, ramSize);
    this.data = new DataView(this.memory.buffer, RAM_ADDRESS, ramSize);
    this.#mapRam(ramSize);
    this.setCpuid(cpuid);
    this.core.powerOn(1, cpuid.find((entry) => entry.function === 1)?.eax ?? 0);
    this.core.refresh();
  }

  #mapRam(size: number): void {
    const ram = region.view(this.memory.buffer, cpuState.offsets.regions);
    Object.assign(ram, { gpa: 0n, size: BigInt(size), address: RAM_ADDRESS, readonly: 0 });
    this.state.region_count = 1;
  }

  setCpuid(entries: readonly CpuidEntry[]): void {
    const table = encodeCpuid(entries).subarray(8);
    new Uint8Array(this.memory.buffer).set(table, this.core.cpuidTable());
    this.core.cpuidChanged(entries.length);
  }

  /** Has the CPU deliver an exception, and what follows from it: a STOP. */
  fault(vector: number, errorCode?: number): number {
    this.state.fault_vector = vector;
    this.state.fault_error_code = errorCode ?? 0;
    this.state.fault_has_error_code = errorCode === undefined ? 0 : 1;
    // A third fault is the last.
    for (let faults = 0; faults < 4; faults++) {
      try {
        return this.core.deliverFault();
      } catch (error) {
        if (error !== this.#raised) throw error;
      }
    }
    throw new Error("the CPU raises exceptions without end");
  }
}

/** The module, compiled once. */
export async function coreModule(): Promise<WebAssembly.Module> {
  const file = new URL("../../../vmm/accel/software/core.wasm", import.meta.url);
  return await WebAssembly.compile(await Deno.readFile(file));
}

export { STOP };
