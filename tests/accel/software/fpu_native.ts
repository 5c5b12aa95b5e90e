/**
 * Runs an instruction on the processor itself, once for each record: state from the record, the
 * instruction, state back. A fault of the instruction (SIGFPE, SIGSEGV, SIGILL) is noted in the record.
 */
import { libc } from "../../../ffi/libc.ts";
import { addressOf, mapCode } from "../../../ffi/memory.ts";
import { RECORD_SIZE } from "./fpu_records.ts";

const SIGILL = 4, SIGFPE = 8, SIGSEGV = 11;
const SA_SIGINFO = 4;

/**
 * The signal's handler: ucontext (rdx) has R15 at 0x60 and RIP at 0xa8 (sys/ucontext.h), and R15 is where
 * the code below wants to go on.
 */
const HANDLER = [
  ...[0x48, 0x8b, 0x42, 0x60], // mov rax, [rdx+0x60]
  ...[0x48, 0x89, 0x82, 0xa8, 0, 0, 0], // mov [rdx+0xa8], rax
  0xc3,
];

const le32 = (value: number) => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);

/** void run(records (rdi), count (rsi)): the record is at rbx while the instruction executes. */
function code(instruction: readonly number[]): Uint8Array<ArrayBuffer> {
  const before = [
    ...[0x53, 0x41, 0x54, 0x41, 0x55, 0x41, 0x57], // push rbx, r12, r13, r15
    ...[0x48, 0x83, 0xec, 0x18], // sub rsp, 24
    ...[0x0f, 0xae, 0x1c, 0x24], // stmxcsr [rsp]
    ...[0xd9, 0x7c, 0x24, 0x08], // fnstcw [rsp+8]
    ...[0x48, 0x89, 0xfb], // mov rbx, rdi
    ...[0x49, 0x89, 0xf4], // mov r12, rsi
  ];
  const enter = [
    ...[0x48, 0x0f, 0xae, 0x0b], // fxrstor64 [rbx]
    ...[0xff, 0xb3, ...le32(600), 0x9d], // push [rbx+600]; popfq
    ...[0x48, 0x8b, 0x83, ...le32(576)], // mov rax, [rbx+576]
    ...[0x48, 0x8b, 0x8b, ...le32(584)], // mov rcx, [rbx+584]
    ...[0x48, 0x8b, 0x93, ...le32(592)], // mov rdx, [rbx+592]
    ...instruction,
    ...[0x41, 0xbd, 0, 0, 0, 0], // mov r13d, 0
  ];
  const leave = [
    ...[0x48, 0x89, 0x83, ...le32(576)], // mov [rbx+576], rax
    ...[0x48, 0x89, 0x8b, ...le32(584)], // mov [rbx+584], rcx
    ...[0x48, 0x89, 0x93, ...le32(592)], // mov [rbx+592], rdx
    ...[0x9c, 0x8f, 0x83, ...le32(600)], // pushfq; pop [rbx+600]
    ...[0x4c, 0x89, 0xab, ...le32(608)], // mov [rbx+608], r13
    ...[0x48, 0x0f, 0xae, 0x03], // fxsave64 [rbx]
    ...[0x48, 0x81, 0xc3, ...le32(RECORD_SIZE)], // add rbx, RECORD_SIZE
    ...[0x49, 0xff, 0xcc], // dec r12
  ];
  const after = [
    ...[0xdb, 0xe3], // fninit
    ...[0xd9, 0x6c, 0x24, 0x08], // fldcw [rsp+8]
    ...[0x0f, 0xae, 0x14, 0x24], // ldmxcsr [rsp]
    ...[0x48, 0x83, 0xc4, 0x18], // add rsp, 24
    ...[0x41, 0x5f, 0x41, 0x5d, 0x41, 0x5c, 0x5b, 0xc3], // pop r15, r13, r12, rbx; ret
  ];
  const landing = [0x41, 0xbd, 1, 0, 0, 0]; // mov r13d, 1
  const lea = 7, jump = 5, branch = 6;
  const loop = before.length + lea;
  const save = loop + enter.length;
  const end = save + leave.length + branch;
  const land = end + after.length;
  return new Uint8Array([
    ...before,
    ...[0x4c, 0x8d, 0x3d, ...le32(land - loop)], // lea r15, [rip+land]
    ...enter,
    ...leave,
    ...[0x0f, 0x85, ...le32(loop - end)], // jnz loop
    ...after,
    ...landing,
    ...[0xe9, ...le32(save - land - landing.length - jump)], // jmp save
  ]);
}

/** The processor: catches its faults as long as it is open. */
export class NativeFpu implements Disposable {
  readonly #handler = mapCode(new Uint8Array(HANDLER));
  readonly #before: { signal: number; action: Uint8Array<ArrayBuffer> }[] = [];

  constructor() {
    for (const signal of [SIGILL, SIGFPE, SIGSEGV]) {
      // glibc's struct sigaction: handler, 128 bytes of mask, flags, restorer.
      const action = new Uint8Array(152);
      const before = new Uint8Array(152);
      const view = new DataView(action.buffer);
      view.setBigUint64(0, BigInt(this.#handler.address), true);
      view.setUint32(136, SA_SIGINFO, true);
      if (libc.sigaction(signal, action, addressOf(before)) !== 0) throw new Error("sigaction");
      this.#before.push({ signal, action: before });
    }
  }

  /** Executes an instruction (a memory operand is [rbx+512]) on each record, in place. */
  run(instruction: readonly number[], records: Uint8Array<ArrayBuffer>): void {
    const page = mapCode(code(instruction));
    try {
      const run = new Deno.UnsafeFnPointer(Deno.UnsafePointer.create(BigInt(page.address))!, {
        parameters: ["buffer", "usize"],
        result: "void",
      });
      run.call(records, BigInt(records.length / RECORD_SIZE));
    } finally {
      page.close();
    }
  }

  [Symbol.dispose](): void {
    for (const { signal, action } of this.#before) libc.sigaction(signal, action, 0);
    this.#handler.close();
  }
}
