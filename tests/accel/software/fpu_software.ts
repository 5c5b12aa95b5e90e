/** Runs the software CPU's x87, MMX and SSE functions on records, as its dispatch loop does. */
import { cpuState } from "../../../vmm/accel/software/cpu_state.ts";
import { fxsaveIn, fxsaveOut } from "../../../vmm/accel/software/fxsave.ts";
import type { SimdForm } from "../../../vmm/accel/software/simd_table.ts";
import { record, RECORD_SIZE } from "./fpu_records.ts";

/** What the module gives. */
export interface FpuExports {
  simd(form: number, dst: number, src: number, imm: number): number;
  x87(
    opcode: number,
    modrm: number,
    memory: number,
    rflags: number,
    ip: bigint,
    dp: bigint,
  ): number;
  x87Form(opcode: number, modrm: number): number;
  checkX87(form: number): void;
}

const GPR = cpuState.offsets.gpr;
const FXSAVE = cpuState.offsets.fxsave;
/** Where operands in memory are; the CPU's own statics begin at 64 KiB. */
const OPERAND = 0xb000;

/** CR0.NE, CR4.OSFXSR and OSXMMEXCPT. */
const CR0 = 0x21n, CR4 = 0x600n;

class Raised extends Error {}

type Records = Uint8Array<ArrayBuffer>;

/** The operand that ModRM.rm names. */
export const rmOperand = (form: SimdForm): string =>
  form.operands.find((operand) => !"VPG".includes(operand[0]))!;

/** The functions, with a memory of their own. */
export class SoftwareFpu {
  readonly exports: FpuExports;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;

  constructor(module: WebAssembly.Module) {
    const memory = new WebAssembly.Memory({ initial: 4096, maximum: 65536 });
    const unused = () => {
      throw new Error("The FPU has called an import that it does not need");
    };
    const env: Record<string, WebAssembly.ImportValue> = { memory };
    for (const { name, kind } of WebAssembly.Module.imports(module)) {
      if (kind === "function") env[name] = unused;
    }
    env.raise = () => {
      throw new Raised();
    };
    this.exports = new WebAssembly.Instance(module, { env }).exports as unknown as FpuExports;
    this.#bytes = new Uint8Array(memory.buffer) as Uint8Array<ArrayBuffer>;
    this.#view = new DataView(memory.buffer);
    this.#view.setBigUint64(cpuState.offsets.cr0, CR0, true);
    this.#view.setBigUint64(cpuState.offsets.cr4, CR4, true);
  }

  /** Executes `instruction` on each record, in place; it returns new values for RFLAGS' bits of `flags`. */
  #each(
    records: Records,
    flags: number,
    instruction: (rflags: number) => number | undefined,
  ): void {
    for (let at = 0; at < records.length; at += RECORD_SIZE) {
      const view = record.view(records.buffer, at);
      this.#bytes.set(fxsaveIn(view.fxsave), FXSAVE);
      this.#bytes.set(view.memory, OPERAND);
      [view.rax, view.rcx, view.rdx].forEach((value, i) =>
        this.#view.setBigUint64(GPR + 8 * i, value, true)
      );
      view.fault = 0n;
      try {
        const result = instruction(Number(view.rflags));
        if (flags && result !== undefined) {
          view.rflags = view.rflags & ~BigInt(flags) | BigInt(result & flags);
        }
      } catch (error) {
        if (!(error instanceof Raised)) throw error;
        view.fault = 1n;
      }
      view.fxsave = fxsaveOut(this.#bytes.subarray(FXSAVE, FXSAVE + 512));
      view.memory = this.#bytes.slice(OPERAND, OPERAND + 64);
      view.rax = this.#view.getBigUint64(GPR, true);
      view.rcx = this.#view.getBigUint64(GPR + 8, true);
      view.rdx = this.#view.getBigUint64(GPR + 16, true);
    }
  }

  #address(operand: "xmm" | "mm" | "gpr", number: number): number {
    if (operand === "xmm") return FXSAVE + 160 + 16 * number;
    if (operand === "mm") return FXSAVE + 32 + 16 * number;
    return GPR + 8 * number;
  }

  /** A SIMD instruction whose ModRM.reg is 1 and whose ModRM.rm is register 2 or memory. */
  simd(form: SimdForm, word: number, fromRegister: boolean, imm: number, records: Records): void {
    const rm = rmOperand(form);
    const place = (operand: string) => {
      if (operand === rm && !fromRegister) return OPERAND;
      const file = "VUW".includes(operand[0]) ? "xmm" : "PNQ".includes(operand[0]) ? "mm" : "gpr";
      return this.#address(file, operand === rm ? 2 : 1);
    };
    const [destination, source] = form.operands;
    const stored = destination === rm && !fromRegister ? Number(/\d+/.exec(rm)![0]) : 0;
    const buffer = OPERAND + 0x100;
    const dst = stored ? buffer : place(destination);
    const src = place(source ?? destination);
    this.#each(records, form.flags ? 0x8d5 : 0, () => {
      const result = this.exports.simd(word, dst, src, imm);
      if (stored) this.#bytes.copyWithin(OPERAND, buffer, buffer + stored);
      return result;
    });
  }

  /** An x87 instruction; see x87_table.ts for what its form says. */
  x87(opcode: number, modrm: number, records: Records): void {
    const { x87, x87Form, checkX87 } = this.exports;
    const form = x87Form(opcode, modrm);
    const size = form & 0xff;
    const store = (form & 0x100) !== 0;
    const buffer = OPERAND + 0x100;
    this.#each(records, form & 0x1000 ? 0x8d5 : 0, (rflags) => {
      checkX87(form);
      const result = x87(opcode, modrm, store ? buffer : OPERAND, rflags, 1n, 1n);
      if (store && result) this.#bytes.copyWithin(OPERAND, buffer, buffer + size);
      if (form & 0x2000) this.#view.setUint16(GPR, result, true);
      return result;
    });
  }
}
