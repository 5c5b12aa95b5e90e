/**
 * The host's end of a tap interface, for tests that may have one.
 *
 * @module
 */
import { check } from "../ffi/errno.ts";
import { O, openFile, OwnedFd } from "../ffi/fd.ts";
import { libc } from "../ffi/libc.ts";
import { openTap } from "../ffi/tap.ts";

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** Types of frames: the tests' own (IEEE 802, local experiments), and IPv4. */
const types = { test: 0x88b5, ipv4: 0x0800 } as const;

/** Why there can be no tap here, or undefined. */
export const noTap: string | undefined = whyNoTap();

/** Why the kernel cannot serve network cards here, or undefined. */
export const noVhostNet: string | undefined = noTap ?? whyNoVhost("/dev/vhost-net");

function whyNoVhost(path: string): string | undefined {
  try {
    openFile(path, O.RDWR).close();
  } catch (error) {
    return (error as Error).message;
  }
}

function whyNoTap(): string | undefined {
  try {
    openTap("", true).close();
  } catch (error) {
    return (error as Error).message;
  }
}

/** Switches an interface on, and opens a socket for frames of a type on it (packet(7)). */
export function openHostEnd(ifname: string, frames: keyof typeof types = "test"): OwnedFd {
  // In network order.
  const protocol = (types[frames] & 0xff) << 8 | types[frames] >> 8;
  const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const socket = new OwnedFd(check(libc.socket(AF_PACKET, type, protocol), "socket"));
  const request = new Uint8Array(40);
  new TextEncoder().encodeInto(ifname, request);
  request[16] = IFF_UP;
  check(libc.ioctl_buffer(socket.fd, SIOCSIFFLAGS, request), "SIOCSIFFLAGS", ifname);
  const index = Number(Deno.readTextFileSync(`/sys/class/net/${ifname}/ifindex`));
  // struct sockaddr_ll: u16 family, u16 protocol, i32 ifindex, and the rest.
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, protocol, true);
  view.setInt32(4, index, true);
  check(libc.bind(socket.fd, address, address.length), "bind", ifname);
  return socket;
}
