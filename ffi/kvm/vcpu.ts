/**
 * The vCPU ioctls. Any thread may issue them while the vCPU is not inside KVM_RUN.
 *
 * @module
 */
import { Errno, errno, OsError } from "../errno.ts";
import type { OwnedFd } from "../fd.ts";
import { libc } from "../libc.ts";
import { addressOf, type MappedRegion, mapShared } from "../memory.ts";
import { ioctlBuffer, ioctlValue, KVM } from "./ioctl.ts";
import { IoctlProgram, type PreparedIoctl } from "./ioctl_program.ts";
import { withPendingKick } from "../process.ts";
import { RunPage, RunResult } from "./run.ts";
import { kvmDeviceAttr, kvmPreFaultMemory } from "./structs.ts";
import { type CpuidEntry, encodeCpuid } from "./cpuid.ts";

/** A constant, so that the compiler can call it directly from the vCPU loop. */
const { ioctl } = libc;

/**
 * Enters the guest.
 *
 * @param fd the vCPU's descriptor
 * @returns EXIT with the reason in the run page; INTERRUPTED by a signal or `immediateExit`; AGAIN
 *   when an application processor was woken by INIT
 * @throws {OsError}
 */
export function runVcpu(fd: number): number {
  if (ioctl(fd, KVM.RUN, 0n) === 0) return RunResult.EXIT;
  const error = errno();
  if (error === Errno.EINTR) return RunResult.INTERRUPTED;
  if (error === Errno.EAGAIN) return RunResult.AGAIN;
  throw new OsError("KVM_RUN", error);
}

/**
 * The argument of KVM_GET_DEVICE_ATTR and KVM_SET_DEVICE_ATTR for by how much a guest's TSC is ahead of
 * the host's: group KVM_VCPU_TSC_CTRL, attribute KVM_VCPU_TSC_OFFSET, both 0
 * (Documentation/virt/kvm/devices/vcpu.rst).
 *
 * @param offset the offset, a u64; it lives as long as the argument is used
 */
export function tscOffsetAttribute(offset: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return kvmDeviceAttr.alloc({ addr: addressOf(offset) }).bytes;
}

/** A vCPU and its run page. */
export class KvmVcpu implements Disposable {
  /** The vCPU's descriptor. */
  readonly fd: OwnedFd;
  /** The mapping of its kvm_run page. */
  readonly runMapping: MappedRegion;
  /** The kvm_run page. */
  readonly run: RunPage;

  /**
   * Takes over a vCPU's descriptor and maps its run page.
   *
   * @param mmapSize KVM_GET_VCPU_MMAP_SIZE
   */
  constructor(fd: OwnedFd, mmapSize: number) {
    this.fd = fd;
    this.runMapping = mapShared(fd.fd, mmapSize);
    this.run = new RunPage(this.runMapping.address, mmapSize);
  }

  /** Sets the CPUID leaves that the guest sees. */
  setCpuid(entries: readonly CpuidEntry[]): void {
    ioctlBuffer(this.fd.fd, KVM.SET_CPUID2, encodeCpuid(entries));
  }

  /** Fills `state` by a KVM_GET_* ioctl of {@linkcode KVM}, or sets it by a KVM_SET_* one. */
  transfer(request: number, state: ArrayBufferView<ArrayBuffer>): number {
    return ioctlBuffer(this.fd.fd, request, state);
  }

  /** The guest's TSC frequency in kHz. */
  get tscKhz(): number {
    return ioctlValue(this.fd.fd, KVM.GET_TSC_KHZ);
  }

  /** Sets the guest's TSC frequency. @throws {OsError} where the host cannot scale to it */
  set tscKhz(khz: number) {
    ioctlValue(this.fd.fd, KVM.SET_TSC_KHZ, khz);
  }

  /** Whether the guest's TSC has an offset that can be read and set. */
  hasTscOffset(): boolean {
    const attribute = tscOffsetAttribute(new Uint8Array(8));
    return libc.ioctl_buffer(this.fd.fd, KVM.HAS_DEVICE_ATTR, attribute) === 0;
  }

  /** Prepares ioctls on the vCPU. */
  prepare(ioctls: readonly PreparedIoctl[]): IoctlProgram {
    return new IoctlProgram(this.fd.fd, ioctls);
  }

  /** Injects an NMI. */
  nmi(): void {
    ioctlValue(this.fd.fd, KVM.NMI);
  }

  /** Tells the guest that it was paused, so that its watchdogs hold still; no-op without kvmclock. */
  noteKvmclockPause(): void {
    // EINVAL where the guest has not set up a kvmclock.
    libc.ioctl(this.fd.fd, KVM.KVMCLOCK_CTRL, 0n);
  }

  /**
   * Puts a timer interrupt that KVM has noted, but not yet put into the LAPIC, into the LAPIC, where
   * KVM_GET_LAPIC shows it. KVM does so on the way through KVM_RUN; a signal that is pending there
   * makes it turn back before the first guest instruction. The vCPU is parked.
   */
  settleTimer(): void {
    // struct kvm_signal_mask: u32 len, u8 sigset[len]; an empty one lets every signal in.
    const mask = new Uint8Array(12);
    new DataView(mask.buffer).setUint32(0, 8, true);
    // Left by whoever stopped the vCPU; KVM would turn back before it looks at the timer.
    this.run.immediateExit = false;
    withPendingKick(() => {
      this.transfer(KVM.SET_SIGNAL_MASK, mask);
      try {
        runVcpu(this.fd.fd);
      } finally {
        ioctlValue(this.fd.fd, KVM.SET_SIGNAL_MASK);
      }
    });
  }

  /**
   * Fills the page tables that map guest memory (KVM_PRE_FAULT_MEMORY, Documentation/virt/kvm/api.rst).
   * The vCPU is parked and runnable.
   *
   * @param gpa guest physical address, a multiple of 4096
   * @param size bytes, a multiple of 4096
   */
  prefault(gpa: number, size: number): void {
    const { bytes, view } = kvmPreFaultMemory.alloc({ gpa: BigInt(gpa), size: BigInt(size) });
    // What is left is written back: it may come in parts.
    while (view.size > 0n) ioctlBuffer(this.fd.fd, KVM.PRE_FAULT_MEMORY, bytes);
  }

  /** Guest physical address behind a virtual one, or undefined where nothing is mapped. */
  translate(linear: bigint): bigint | undefined {
    // struct kvm_translation: u64 linear_address, u64 physical_address, u8 valid, writeable, usermode
    const translation = new BigUint64Array([linear, 0n, 0n]);
    ioctlBuffer(this.fd.fd, KVM.TRANSLATE, translation);
    return translation[2] & 0xffn ? translation[1] : undefined;
  }

  /** Unmaps the run page and closes the descriptor. */
  close(): void {
    this.runMapping.close();
    this.fd.close();
  }

  /** Closes the vCPU at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.close();
  }
}
