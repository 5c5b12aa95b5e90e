/**
 * KVM ioctl numbers, computed as the kernel's `_IO`, `_IOR`, `_IOW`, `_IOWR` macros do
 * (asm-generic/ioctl.h, linux/kvm.h).
 *
 * @module
 */
import { check, Errno, errno, retry } from "../errno.ts";
import { libc } from "../libc.ts";

const KVMIO = 0xae;

const number = (direction: number, nr: number, size: number) =>
  ((direction << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;
const io = (nr: number) => number(0, nr, 0);
const iow = (nr: number, size: number) => number(1, nr, size);
const ior = (nr: number, size: number) => number(2, nr, size);
const iowr = (nr: number, size: number) => number(3, nr, size);

/** ioctl numbers by their names in linux/kvm.h, without the KVM_ prefix. */
export const KVM = {
  GET_API_VERSION: io(0x00),
  CREATE_VM: io(0x01),
  GET_MSR_INDEX_LIST: iowr(0x02, 4),
  CHECK_EXTENSION: io(0x03),
  GET_VCPU_MMAP_SIZE: io(0x04),
  GET_SUPPORTED_CPUID: iowr(0x05, 8),
  CREATE_VCPU: io(0x41),
  SET_USER_MEMORY_REGION: iow(0x46, 32),
  SET_TSS_ADDR: io(0x47),
  SET_IDENTITY_MAP_ADDR: iow(0x48, 8),
  CREATE_IRQCHIP: io(0x60),
  IRQ_LINE: iow(0x61, 8),
  GET_IRQCHIP: iowr(0x62, 520),
  SET_IRQCHIP: ior(0x63, 520),
  IRQFD: iow(0x76, 32),
  CREATE_PIT2: iow(0x77, 64),
  IOEVENTFD: iow(0x79, 64),
  SET_CLOCK: iow(0x7b, 48),
  GET_CLOCK: ior(0x7c, 48),
  GET_PIT2: ior(0x9f, 112),
  SET_PIT2: iow(0xa0, 112),
  SET_GSI_ROUTING: iow(0x6a, 8),
  RUN: io(0x80),
  GET_REGS: ior(0x81, 144),
  SET_REGS: iow(0x82, 144),
  GET_SREGS: ior(0x83, 312),
  SET_SREGS: iow(0x84, 312),
  TRANSLATE: iowr(0x85, 24),
  GET_MSRS: iowr(0x88, 8),
  SET_MSRS: iow(0x89, 8),
  SET_SIGNAL_MASK: iow(0x8b, 4),
  GET_LAPIC: ior(0x8e, 1024),
  SET_LAPIC: iow(0x8f, 1024),
  SET_CPUID2: iow(0x90, 8),
  GET_MP_STATE: ior(0x98, 4),
  SET_MP_STATE: iow(0x99, 4),
  NMI: io(0x9a),
  SIGNAL_MSI: iow(0xa5, 32),
  SET_GUEST_DEBUG: iow(0x9b, 72),
  GET_VCPU_EVENTS: ior(0x9f, 64),
  SET_VCPU_EVENTS: iow(0xa0, 64),
  GET_DEBUGREGS: ior(0xa1, 128),
  SET_DEBUGREGS: iow(0xa2, 128),
  ENABLE_CAP: iow(0xa3, 104),
  GET_XSAVE: ior(0xa4, 4096),
  SET_XSAVE: iow(0xa5, 4096),
  GET_XCRS: ior(0xa6, 392),
  SET_XCRS: iow(0xa7, 392),
  SET_TSC_KHZ: io(0xa2),
  GET_TSC_KHZ: io(0xa3),
  KVMCLOCK_CTRL: io(0xad),
  GET_XSAVE2: ior(0xcf, 4096),
  PRE_FAULT_MEMORY: iowr(0xd5, 64),
  SET_DEVICE_ATTR: iow(0xe1, 24),
  GET_DEVICE_ATTR: iow(0xe2, 24),
  HAS_DEVICE_ATTR: iow(0xe3, 24),
} as const;

/** KVM_CAP_* numbers that Denovo asks for (linux/kvm.h). */
export const Capability = {
  MAX_VCPUS: 66,
  TSC_DEADLINE_TIMER: 72,
  /** Which bits of {@linkcode GuestDebug} are known. */
  SET_GUEST_DEBUG2: 195,
  XSAVE2: 208,
  X86_TRIPLE_FAULT_EVENT: 218,
  PRE_FAULT_MEMORY: 236,
} as const;

/** KVM_GUESTDBG_* bits (linux/kvm.h, asm/kvm.h). */
export const GuestDebug = {
  ENABLE: 1,
  SINGLESTEP: 2,
  /** The debug registers are those of struct kvm_guest_debug. */
  USE_HW_BP: 0x2_0000,
  /** No interrupt is let in. */
  BLOCKIRQ: 0x10_0000,
} as const;

/** A request's name in linux/kvm.h. */
export function requestName(request: number): string {
  const known = Object.entries(KVM).find(([, value]) => value === request);
  return `KVM_${known?.[0] ?? request.toString(16)}`;
}

/** A constant, so that the compiler can call it directly where state is saved and loaded. */
const { ioctl_buffer } = libc;

/** ioctl with a plain value. @throws {OsError} named after the request */
export function ioctlValue(fd: number, request: number, value: bigint | number = 0n): number {
  const result = retry(() => libc.ioctl(fd, request, BigInt(value)));
  return result === -1 ? check(result, requestName(request)) : result;
}

/** ioctl with a struct that the kernel reads or fills. @throws {OsError} named after the request */
export function ioctlBuffer(
  fd: number,
  request: number,
  buffer: ArrayBufferView<ArrayBuffer>,
): number {
  let result = ioctl_buffer(fd, request, buffer);
  while (result === -1 && errno() === Errno.EINTR) result = ioctl_buffer(fd, request, buffer);
  return result === -1 ? check(result, requestName(request)) : result;
}
