/**
 * Tap interfaces: Ethernet frames of the host's network, one a read and one a write
 * (Linux Documentation/networking/tuntap.rst, linux/if_tun.h).
 *
 * @module
 */
import { check, Errno, OsError } from "./errno.ts";
import { O, openFile, type OwnedFd } from "./fd.ts";
import { libc } from "./libc.ts";
import { bytes, struct, u16 } from "./struct.ts";
import { decodeText, encodeText } from "./text.ts";

const TUNSETIFF = 0x4004_54ca;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNGETIFF = 0x8004_54d2;
const TUNSETVNETHDRSZ = 0x4004_54d8;
const TUNSETQUEUE = 0x4004_54d9;

const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_ATTACH_QUEUE = 0x0200;
const IFF_DETACH_QUEUE = 0x0400;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

/** IFNAMSIZ, with the NUL at its end. */
const NAME_SIZE = 16;

/** struct ifreq, of which the rest is not used here. */
const ifreq = struct("ifreq", { name: bytes(NAME_SIZE), flags: u16, rest: bytes(22) });

/** TUN_F_*: what the guest takes in one packet that the host has not finished. */
export const TapOffload = { CSUM: 1, TSO4: 2, TSO6: 4, TSO_ECN: 8, UFO: 16 } as const;

/** What a tap's descriptor is. */
export interface TapInfo {
  /** The interface. */
  readonly name: string;
  /** Whether a struct virtio_net_hdr comes before each frame. */
  readonly vnetHeader: boolean;
  /** Whether it is one of several queues of its interface. */
  readonly multiQueue: boolean;
}

/**
 * Opens a tap interface; one that does not exist is made, and is gone with the descriptor.
 *
 * @param name its name; the kernel chooses one for an empty name
 * @param vnetHeader whether a struct virtio_net_hdr shall come before each frame
 * @param multiQueue whether it is one of several queues: another one is opened by the same name
 * @returns the descriptor, non-blocking
 * @throws {OsError}
 */
export function openTap(name: string, vnetHeader: boolean, multiQueue = false): OwnedFd {
  const encoded = encodeText(name);
  if (encoded.length >= NAME_SIZE) throw new OsError("TUNSETIFF", Errno.EINVAL, `'${name}'`);
  const tap = openFile("/dev/net/tun", O.RDWR | O.NONBLOCK);
  try {
    const { bytes, view } = ifreq.alloc();
    view.name.set(encoded);
    view.flags = IFF_TAP | IFF_NO_PI | (vnetHeader ? IFF_VNET_HDR : 0) |
      (multiQueue ? IFF_MULTI_QUEUE : 0);
    check(libc.ioctl_buffer(tap.fd, TUNSETIFF, bytes), "TUNSETIFF", `'${name}'`);
    return tap;
  } catch (error) {
    tap.close();
    throw error;
  }
}

/** What a descriptor is, if it is a tap's. */
export function tapInfo(fd: number): TapInfo | undefined {
  const { bytes, view } = ifreq.alloc();
  if (libc.ioctl_buffer(fd, TUNGETIFF, bytes) === -1 || (view.flags & IFF_TAP) === 0) return;
  const name = view.name.subarray(0, Math.max(0, view.name.indexOf(0)));
  return {
    name: decodeText(name),
    vnetHeader: (view.flags & IFF_VNET_HDR) !== 0,
    multiQueue: (view.flags & IFF_MULTI_QUEUE) !== 0,
  };
}

/**
 * Takes a queue of an interface with several into use, or out of it: the host gives it no frames then.
 *
 * @returns false if it was so already, or is no such queue
 */
export function setTapQueue(fd: number, isUsed: boolean): boolean {
  const { bytes } = ifreq.alloc({ flags: isUsed ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE });
  return libc.ioctl_buffer(fd, TUNSETQUEUE, bytes) === 0;
}

/** Says how many bytes come before each frame. @throws {OsError} */
export function setTapHeaderSize(fd: number, size: number): void {
  const value = new Uint8Array(new Int32Array([size]).buffer);
  check(libc.ioctl_buffer(fd, TUNSETVNETHDRSZ, value), "TUNSETVNETHDRSZ", `${fd}`);
}

/**
 * Says what the guest takes unfinished.
 *
 * @param offload {@linkcode TapOffload} bits
 * @returns false if this host cannot do some of it
 */
export function setTapOffload(fd: number, offload: number): boolean {
  return libc.ioctl(fd, TUNSETOFFLOAD, BigInt(offload)) === 0;
}
