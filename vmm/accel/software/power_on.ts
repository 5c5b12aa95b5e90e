/**
 * The state in which a software CPU begins.
 *
 * @module
 */
import { findCpuid } from "../../cpu/features.ts";
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";
import { Core, type CoreHost, coreMemory } from "./core.ts";
import { cpuState } from "./cpu_state.ts";

/** Nothing is executed: nobody is asked. */
const nobody: CoreHost = {
  portIn: () => 0,
  portOut: () => {},
  mmioRead: () => 0,
  mmioWrite: () => {},
  readTsc: () => {},
  msrRead: () => 0,
  msrWrite: () => 0,
  interruptVector: () => -1,
  cr8Changed: () => {},
  fpuError: () => {},
  random: () => 0,
};

/** A CPU in no VM, which knows what it looks like at power-on. */
export class PowerOn {
  readonly #core: Core;

  /** @param module the CPU */
  constructor(module: WebAssembly.Module) {
    this.#core = new Core(module, coreMemory(0), nobody);
  }

  /** The bytes of the state of a boot processor, or of another. */
  state(isBoot: boolean, cpuid: readonly CpuidEntry[]): Uint8Array<ArrayBuffer> {
    const { exports, memory } = this.#core;
    exports.powerOn(isBoot ? 1 : 0, findCpuid(cpuid, 1)?.eax ?? 0);
    return new Uint8Array(memory.buffer).slice(0, cpuState.size);
  }

  /** Does to a state what the INIT signal does to its processor. */
  init(state: Uint8Array<ArrayBuffer>, cpuid: readonly CpuidEntry[]): void {
    const { exports, memory } = this.#core;
    // The signature, which INIT leaves in EDX, is the processor's.
    exports.powerOn(0, findCpuid(cpuid, 1)?.eax ?? 0);
    const copy = new Uint8Array(memory.buffer, 0, cpuState.size);
    copy.set(state.subarray(0, cpuState.size));
    exports.init();
    state.set(copy);
  }
}
