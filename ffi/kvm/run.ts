/**
 * The kvm_run page that a vCPU shares with the kernel: why the guest stopped, and the data of
 * that exit (linux/kvm.h, struct kvm_run).
 *
 * @module
 */
import { viewMemory } from "../memory.ts";

/** KVM_EXIT_* names, in the order of their numbers. */
export const exitReasons = [
  "UNKNOWN",
  "EXCEPTION",
  "IO",
  "HYPERCALL",
  "DEBUG",
  "HLT",
  "MMIO",
  "IRQ_WINDOW_OPEN",
  "SHUTDOWN",
  "FAIL_ENTRY",
  "INTR",
  "SET_TPR",
  "TPR_ACCESS",
  "S390_SIEIC",
  "S390_RESET",
  "DCR",
  "NMI",
  "INTERNAL_ERROR",
  "OSI",
  "PAPR_HCALL",
  "S390_UCONTROL",
  "WATCHDOG",
  "S390_TSCH",
  "EPR",
  "SYSTEM_EVENT",
  "S390_STSI",
  "IOAPIC_EOI",
  "HYPERV",
  "ARM_NISV",
  "X86_RDMSR",
  "X86_WRMSR",
  "DIRTY_RING_FULL",
  "AP_RESET_HOLD",
  "X86_BUS_LOCK",
  "XEN",
  "RISCV_SBI",
  "RISCV_CSR",
  "NOTIFY",
  "LOONGARCH_IOCSR",
  "MEMORY_FAULT",
  "TDX",
] as const;

/** The exit numbers that the vCPU loop compares with. */
export const Exit = {
  UNKNOWN: 0,
  IO: 2,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
} as const;

/** What an entry into the guest came back with. */
export const RunResult = { EXIT: 0, INTERRUPTED: 1, AGAIN: 2 } as const;

/** A KVM_EXIT_* number's name, or `exit N` for one that this version does not know. */
export function exitName(reason: number): string {
  return exitReasons[reason] ?? `exit ${reason}`;
}

// Byte offsets in struct kvm_run.
const IMMEDIATE_EXIT = 1;
const EXIT_REASON = 8 / 4;
// struct io: u8 direction, u8 size, u16 port, u32 count, u64 data_offset
const IO_WORD = 32 / 4;
const IO_COUNT = 36 / 4;
const IO_DATA_OFFSET = 40 / 4;
/** Where an access's data is that someone else than the kernel makes: the page after kvm_run. */
const IO_DATA = 0x1000;
// struct mmio: u64 phys_addr, u8 data[8], u32 len, u8 is_write
const MMIO_ADDRESS = 32 / 4;
const MMIO_DATA = 40;
const MMIO_LENGTH = 48 / 4;
const MMIO_IS_WRITE = 52;
// struct internal: u32 suberror, u32 ndata, u64 data[16]; also fail_entry: u64 reason, u32 cpu
const INTERNAL_SUBERROR = 32 / 4;
const INTERNAL_NDATA = 36 / 4;
const INTERNAL_DATA = 40 / 8;
// struct kvm_debug_exit_arch: u32 exception, u32 pad, u64 pc, u64 dr6, u64 dr7
const DEBUG_EXCEPTION = 32 / 4;
const DEBUG_DR6 = 48 / 4;

/** One vCPU's kvm_run page as this thread sees it. */
export class RunPage {
  readonly #u8: Uint8Array<ArrayBuffer>;
  readonly #u16: Uint16Array<ArrayBuffer>;
  readonly #u32: Uint32Array<ArrayBuffer>;
  readonly #u64: BigUint64Array<ArrayBuffer>;

  /**
   * @param address where the page is mapped in this process
   * @param size the mapping's size, KVM_GET_VCPU_MMAP_SIZE
   */
  constructor(address: number, size: number) {
    this.#u8 = viewMemory(address, size);
    this.#u16 = new Uint16Array(this.#u8.buffer);
    this.#u32 = new Uint32Array(this.#u8.buffer);
    this.#u64 = new BigUint64Array(this.#u8.buffer);
  }

  /** Makes the next KVM_RUN return EINTR at once, after it finished a pending access. */
  get immediateExit(): boolean {
    return this.#u8[IMMEDIATE_EXIT] !== 0;
  }

  set immediateExit(on: boolean) {
    this.#u8[IMMEDIATE_EXIT] = on ? 1 : 0;
  }

  /** KVM_EXIT_* number of the last exit. */
  get exitReason(): number {
    return this.#u32[EXIT_REASON];
  }

  /** Who is not the kernel says why the guest stopped. */
  set exitReason(reason: number) {
    this.#u32[EXIT_REASON] = reason;
  }

  /** Makes it an access of one element to a port; a write's data is `value`. */
  setIo(write: boolean, port: number, size: number, value: number): void {
    this.#u32[EXIT_REASON] = Exit.IO;
    this.#u32[IO_WORD] = (write ? 1 : 0) | (size << 8) | (port << 16);
    this.#u32[IO_COUNT] = 1;
    this.#u32[IO_DATA_OFFSET] = IO_DATA;
    this.#u32[IO_DATA >> 2] = value;
  }

  /** Makes it an access of up to 4 bytes to memory; a write's data is `value`. */
  setMmio(write: boolean, low: number, high: number, length: number, value: number): void {
    this.#u32[EXIT_REASON] = Exit.MMIO;
    this.#u32[MMIO_ADDRESS] = low;
    this.#u32[MMIO_ADDRESS + 1] = high;
    this.#u32[MMIO_DATA / 4] = value;
    this.#u32[MMIO_LENGTH] = length;
    this.#u8[MMIO_IS_WRITE] = write ? 1 : 0;
  }

  /** Makes it a debug exit with this DR6. */
  setDebug(status: number): void {
    this.#u32[EXIT_REASON] = Exit.DEBUG;
    this.#u32[DEBUG_EXCEPTION] = 1;
    this.#u32[DEBUG_DR6] = status;
  }

  /** Whether a port access is a write (KVM_EXIT_IO_OUT). */
  get ioIsWrite(): boolean {
    return (this.#u32[IO_WORD] & 0xff) !== 0;
  }

  /** Bytes per element of a port access: 1, 2 or 4. */
  get ioSize(): number {
    return (this.#u32[IO_WORD] >>> 8) & 0xff;
  }

  /** Port number. */
  get ioPort(): number {
    return this.#u32[IO_WORD] >>> 16;
  }

  /** Elements of a string access (`rep ins`, `rep outs`); 1 otherwise. */
  get ioCount(): number {
    return this.#u32[IO_COUNT];
  }

  /** Element `index` of a port write. */
  ioGet(index: number, size: number): number {
    const at = this.#u32[IO_DATA_OFFSET] + index * size;
    if (size === 1) return this.#u8[at];
    if (size === 2) return this.#u16[at >> 1];
    return this.#u32[at >> 2];
  }

  /** Sets element `index` of a port read. */
  ioPut(index: number, size: number, value: number): void {
    const at = this.#u32[IO_DATA_OFFSET] + index * size;
    if (size === 1) this.#u8[at] = value;
    else if (size === 2) this.#u16[at >> 1] = value;
    else this.#u32[at >> 2] = value;
  }

  /** Guest physical address of a memory access. */
  get mmioAddress(): number {
    return this.#u32[MMIO_ADDRESS + 1] * 0x1_0000_0000 + this.#u32[MMIO_ADDRESS];
  }

  /** Bytes of a memory access, 1 to 8. */
  get mmioLength(): number {
    return this.#u32[MMIO_LENGTH];
  }

  /** Whether a memory access is a write. */
  get mmioIsWrite(): boolean {
    return this.#u8[MMIO_IS_WRITE] !== 0;
  }

  /** The low or high (`word` 0 or 1) 32 bits of a memory access's data. */
  mmioGet(word: number): number {
    return this.#u32[MMIO_DATA / 4 + word];
  }

  /** Sets the low or high 32 bits of a memory read's data. */
  mmioPut(word: number, value: number): void {
    this.#u32[MMIO_DATA / 4 + word] = value;
  }

  /** KVM_INTERNAL_ERROR_* number, or the low word of a failed entry's hardware reason. */
  get internalSuberror(): number {
    return this.#u32[INTERNAL_SUBERROR];
  }

  /** The extra words of an internal error; for an emulation failure flags and instruction bytes. */
  get internalData(): bigint[] {
    const count = Math.min(this.#u32[INTERNAL_NDATA], 16);
    return Array.from(this.#u64.subarray(INTERNAL_DATA, INTERNAL_DATA + count));
  }

  /** DR6 of a debug exit, bits 0 to 15 (Intel SDM volume 3, 19.2.3). */
  get debugStatus(): number {
    return this.#u32[DEBUG_DR6] & 0xffff;
  }

  /** KVM_SYSTEM_EVENT_* type of a system event. */
  get systemEventType(): number {
    return this.#u32[IO_WORD];
  }
}
