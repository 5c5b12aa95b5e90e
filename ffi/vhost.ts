/**
 * The kernel's half of virtio devices: vhost (linux/vhost.h, linux/vhost_types.h).
 *
 * A descriptor of /dev/vhost-net or /dev/vhost-vsock is one device. What serves its rings belongs to the
 * process that has become its owner, and reads and writes guest RAM at that process's addresses.
 *
 * @module
 */
import { errno, OsError } from "./errno.ts";
import { O, openFile, type OwnedFd } from "./fd.ts";
import { libc } from "./libc.ts";
import { array, i32, type Struct, struct, u32, u64 } from "./struct.ts";

const GET_FEATURES = 0x8008_af00;
const SET_FEATURES = 0x4008_af00;
const SET_OWNER = 0xaf01;
const RESET_OWNER = 0xaf02;
const SET_MEM_TABLE = 0x4008_af03;
const SET_VRING_NUM = 0x4008_af10;
const SET_VRING_ADDR = 0x4028_af11;
const SET_VRING_BASE = 0x4008_af12;
const GET_VRING_BASE = 0xc008_af12;
const SET_VRING_KICK = 0x4008_af20;
const SET_VRING_CALL = 0x4008_af21;
const NET_SET_BACKEND = 0x4008_af30;
const VSOCK_SET_GUEST_CID = 0x4008_af60;
const VSOCK_SET_RUNNING = 0x4004_af61;

/** The most ranges of memory that every kernel takes (VHOST_MEMORY_DEFAULT_NREGIONS). */
export const MOST_RANGES = 64;
/** VHOST_NET_F_VIRTIO_NET_HDR: the kernel, and no backend, has the header before each frame. */
export const VHOST_NET_HEADER = 1n << 27n;
/** What takes the place of a backend's descriptor where there is none. */
export const NO_BACKEND = -1;

const featureBits = struct("vhost features", { bits: u64 });
const guestCid = struct("vhost-vsock guest cid", { cid: u64 });
const running = struct("vhost-vsock running", { isRunning: i32 });
const range = struct("vhost_memory_region", {
  guest_phys_addr: u64,
  memory_size: u64,
  userspace_addr: u64,
  flags_padding: u64,
});
const rangesFields = { nregions: u32, padding: u32, regions: array(range, MOST_RANGES) };
/** struct vhost_memory with room for all ranges; the kernel reads as many as it says. */
export const vhostMemory: Struct<typeof rangesFields> = struct("vhost_memory", rangesFields);
const stateFields = { index: u32, num: u32 };
/** struct vhost_vring_state */
export const vringState: Struct<typeof stateFields> = struct("vhost_vring_state", stateFields);
const fileFields = { index: u32, fd: i32 };
/** struct vhost_vring_file */
export const vringFile: Struct<typeof fileFields> = struct("vhost_vring_file", fileFields);
const addressFields = {
  index: u32,
  flags: u32,
  desc_user_addr: u64,
  used_user_addr: u64,
  avail_user_addr: u64,
  log_guest_addr: u64,
};
/** struct vhost_vring_addr */
export const vringAddress: Struct<typeof addressFields> = struct("vhost_vring_addr", addressFields);

/** A ring, which is a split one. */
export interface VhostRing {
  /** Its number within the vhost device. */
  readonly index: number;
  /** Entries. */
  readonly size: number;
  /** The next entry that the driver will make available. */
  readonly base: number;
  // Addresses in this process.
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** An eventfd: there are requests. */
  readonly kick: number;
  /** An eventfd: the driver wants to know that there are answers. */
  readonly call: number;
}

/**
 * ioctl(2) of a vhost device.
 *
 * @param argument is read or written; undefined where there is none
 * @returns a negative errno where it fails
 */
export type VhostIoctl = (fd: number, request: number, argument?: Uint8Array) => number;

const kernelIoctl: VhostIoctl = (fd, request, argument) => {
  const result = argument
    ? libc.ioctl_buffer(fd, request, argument as Uint8Array<ArrayBuffer>)
    : libc.ioctl(fd, request, 0n);
  return result === -1 ? -errno() : result;
};

/** Opens a vhost device. @throws {Error} in QEMU's words */
export function openVhost(path: string): OwnedFd {
  try {
    return openFile(path, O.RDWR | O.NONBLOCK);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    throw new Error(`Could not open '${path}': ${error.reason}`, { cause: error });
  }
}

/** A vhost device, on any thread of its owner's process. All calls throw {@linkcode OsError}. */
export class VhostDevice {
  /**
   * @param fd its descriptor
   * @param ioctl in tests, what takes the kernel's place
   */
  constructor(readonly fd: number, protected readonly ioctl: VhostIoctl = kernelIoctl) {}

  /** Feature bits of the device, and of its rings, that the kernel has. */
  get features(): bigint {
    const { bytes, view } = featureBits.alloc();
    this.call("VHOST_GET_FEATURES", GET_FEATURES, bytes);
    return view.bits;
  }

  /** Says which of them are used. */
  setFeatures(bits: bigint): void {
    this.call("VHOST_SET_FEATURES", SET_FEATURES, featureBits.alloc({ bits }).bytes);
  }

  /** This process becomes the owner. */
  setOwner(): void {
    this.call("VHOST_SET_OWNER", SET_OWNER);
  }

  /** Nobody is the owner any more; the device is as new. */
  resetOwner(): void {
    this.call("VHOST_RESET_OWNER", RESET_OWNER);
  }

  /** Says where guest RAM is: `address` in this process, at most {@linkcode MOST_RANGES} of them. */
  setMemory(
    ranges: readonly { readonly gpa: number; readonly size: number; readonly address: number }[],
  ): void {
    const { bytes, view } = vhostMemory.alloc({ nregions: ranges.length });
    for (const [i, { gpa, size, address }] of ranges.entries()) {
      Object.assign(view.regions.at(i), {
        guest_phys_addr: BigInt(gpa),
        memory_size: BigInt(size),
        userspace_addr: BigInt(address),
      });
    }
    this.call("VHOST_SET_MEM_TABLE", SET_MEM_TABLE, bytes);
  }

  /** Says what a ring is; it is not served yet. */
  setRing({ index, size, base, desc, avail, used, kick, call }: VhostRing): void {
    this.call("VHOST_SET_VRING_NUM", SET_VRING_NUM, vringState.alloc({ index, num: size }).bytes);
    this.call("VHOST_SET_VRING_BASE", SET_VRING_BASE, vringState.alloc({ index, num: base }).bytes);
    const { bytes } = vringAddress.alloc({
      index,
      desc_user_addr: BigInt(desc),
      avail_user_addr: BigInt(avail),
      used_user_addr: BigInt(used),
    });
    this.call("VHOST_SET_VRING_ADDR", SET_VRING_ADDR, bytes);
    this.call("VHOST_SET_VRING_KICK", SET_VRING_KICK, vringFile.alloc({ index, fd: kick }).bytes);
    this.call("VHOST_SET_VRING_CALL", SET_VRING_CALL, vringFile.alloc({ index, fd: call }).bytes);
  }

  /** The next entry of a ring that the driver will make available; the ring is not served any more. */
  base(index: number): number {
    const { bytes, view } = vringState.alloc({ index });
    this.call("VHOST_GET_VRING_BASE", GET_VRING_BASE, bytes);
    return view.num & 0xffff;
  }

  /** Serves a ring of a network device with a tap, or no more with {@linkcode NO_BACKEND}. */
  setNetBackend(index: number, fd: number): void {
    this.call("VHOST_NET_SET_BACKEND", NET_SET_BACKEND, vringFile.alloc({ index, fd }).bytes);
  }

  /** @throws {OsError} */
  protected call(name: string, request: number, argument?: Uint8Array): void {
    const result = this.ioctl(this.fd, request, argument);
    if (result < 0) throw new OsError(name, -result, `${this.fd}`);
  }
}

/** A vhost device of sockets between guest and host. */
export class VhostVsock extends VhostDevice {
  /** Says which number the guest has, which no other device may have. */
  setGuestCid(cid: number): void {
    const { bytes } = guestCid.alloc({ cid: BigInt(cid) });
    this.call("VHOST_VSOCK_SET_GUEST_CID", VSOCK_SET_GUEST_CID, bytes);
  }

  /** Serves both rings, or no more. */
  setRunning(isRunning: boolean): void {
    const { bytes } = running.alloc({ isRunning: Number(isRunning) });
    this.call("VHOST_VSOCK_SET_RUNNING", VSOCK_SET_RUNNING, bytes);
  }
}
