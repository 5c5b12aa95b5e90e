/**
 * /dev/kvm: the system ioctls.
 *
 * @module
 */
import { Errno, OsError } from "../errno.ts";
import { O, openFile, OwnedFd } from "../fd.ts";
import { type CpuidEntry, decodeCpuid } from "./cpuid.ts";
import { ioctlBuffer, ioctlValue, KVM } from "./ioctl.ts";
import { kvmCpuidEntry2 } from "./structs.ts";

const KVM_PATH = "/dev/kvm";
const API_VERSION = 12;
const MAX_CPUID_ENTRIES = 256;

/** An open /dev/kvm. */
export class KvmSystem implements Disposable {
  /** The descriptor of /dev/kvm. */
  readonly fd: OwnedFd;

  /** Opens /dev/kvm. @throws {NoKvm} if it cannot be opened or speaks another API version */
  constructor() {
    this.fd = openKvm();
  }

  /** KVM_CHECK_EXTENSION of a {@linkcode Capability}. */
  capability(number: number): number {
    return ioctlValue(this.fd.fd, KVM.CHECK_EXTENSION, number);
  }

  /** Makes a VM; its descriptor has CLOEXEC. */
  createVm(): OwnedFd {
    return new OwnedFd(ioctlValue(this.fd.fd, KVM.CREATE_VM));
  }

  /** Size in bytes of a vCPU's kvm_run mapping. */
  vcpuMmapSize(): number {
    return ioctlValue(this.fd.fd, KVM.GET_VCPU_MMAP_SIZE);
  }

  /** The CPUID leaves that this host's KVM can give a guest. */
  supportedCpuid(): CpuidEntry[] {
    const buffer = new Uint8Array(8 + MAX_CPUID_ENTRIES * kvmCpuidEntry2.size);
    const head = new Uint32Array(buffer.buffer, 0, 1);
    head[0] = MAX_CPUID_ENTRIES;
    ioctlBuffer(this.fd.fd, KVM.GET_SUPPORTED_CPUID, buffer);
    return decodeCpuid(buffer);
  }

  /** The MSRs that make up a vCPU's state (KVM_GET_MSR_INDEX_LIST). */
  msrIndexList(): Uint32Array {
    const buffer = new Uint32Array(1 + 1024);
    buffer[0] = 1024;
    ioctlBuffer(this.fd.fd, KVM.GET_MSR_INDEX_LIST, buffer);
    return buffer.slice(1, 1 + buffer[0]);
  }

  /** Closes /dev/kvm. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}

/** KVM cannot be used here; the message says in one sentence why, and what to do. */
export class NoKvm extends Error {
  override readonly name = "NoKvm";

  /** @param cause what went wrong with /dev/kvm */
  constructor(cause: OsError | string) {
    const reason = typeof cause === "string" ? cause : `${cause.reason}: ${remedy(cause.errno)}`;
    super(`Could not access KVM kernel module: ${KVM_PATH}: ${reason}`, { cause });
  }
}

function remedy(errno: number): string {
  switch (errno) {
    case Errno.EACCES:
    case Errno.EPERM:
      return "add this user to the group kvm";
    case Errno.ENOTTY:
      return "it is not the device that the kernel module kvm makes";
    default:
      return "load the kernel module kvm_intel or kvm_amd; in a virtual machine, that needs nested " +
        "virtualization on its host";
  }
}

/** Opens /dev/kvm: the one place that finds out whether there is a KVM. @throws {NoKvm} */
function openKvm(): OwnedFd {
  let file: OwnedFd | undefined;
  try {
    file = openFile(KVM_PATH, O.RDWR);
    const version = ioctlValue(file.fd, KVM.GET_API_VERSION);
    if (version === API_VERSION) return file;
    throw new NoKvm(`the API version is ${version}, Denovo needs ${API_VERSION}`);
  } catch (error) {
    file?.close();
    throw error instanceof OsError ? new NoKvm(error) : error;
  }
}

/** Says in one sentence why KVM cannot be used, or undefined when it can. */
export function whyNoKvm(): string | undefined {
  try {
    using _kvm = new KvmSystem();
    return undefined;
  } catch (error) {
    if (error instanceof NoKvm) return error.message;
    throw error;
  }
}
