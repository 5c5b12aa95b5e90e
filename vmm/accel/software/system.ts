/**
 * The software CPU as an accelerator: Denovo where there is no KVM. QEMU's name for it is `tcg`.
 *
 * @module
 */
import type { CpuidEntry } from "../../../ffi/kvm/cpuid.ts";
import { beginTscKhz } from "../../../ffi/tsc.ts";
import type { Accelerator, VmOptions } from "../accelerator.ts";
import { supportedCpuid } from "./cpuid_model.ts";
import { SoftwareVm } from "./vm.ts";

/** Each vCPU is a thread that computes. */
const MAX_VCPUS = 255;

/** Software CPUs. */
export class SoftwareAccelerator implements Accelerator {
  readonly name = "tcg";
  readonly title = "the software CPU";
  readonly maxVcpus = MAX_VCPUS;
  readonly tscDeadline = true;
  readonly mapsFiles = true;
  readonly #module: WebAssembly.Module;

  private constructor(module: WebAssembly.Module) {
    this.#module = module;
  }

  /** Loads the CPU. */
  static async open(): Promise<SoftwareAccelerator> {
    beginTscKhz();
    const file = new URL("./core.wasm", import.meta.url);
    return new SoftwareAccelerator(await WebAssembly.compile(await Deno.readFile(file)));
  }

  supportedCpuid(): CpuidEntry[] {
    return supportedCpuid();
  }

  createVm(options: VmOptions): SoftwareVm {
    return new SoftwareVm(this.#module, options);
  }

  [Symbol.dispose](): void {}
}
