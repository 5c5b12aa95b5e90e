/**
 * Opens what network backends are: taps, sockets, and the program that gives a guest the host's network.
 *
 * @module
 */
import { bindUdp, bindUnixDatagram, udpDestination, unixDestination } from "../../ffi/datagram.ts";
import { OsError } from "../../ffi/errno.ts";
import { duplicate, fileStatus, type OwnedFd, readAt, setNonblocking } from "../../ffi/fd.ts";
import { whyUnfit } from "../../ffi/fd_requirement.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { spawn } from "../../ffi/process.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import {
  awaitTcp,
  connectUnix,
  isStream,
  listenTcp,
  listenUnix,
  setReceiveBuffer,
  socketPair,
} from "../../ffi/socket.ts";
import { resolveHost } from "../../ffi/socket_address.ts";
import { openTap, setTapHeaderSize, tapInfo } from "../../ffi/tap.ts";
import { openVhost, VhostDevice } from "../../ffi/vhost.ts";
import {
  type DgramConfig,
  type HostForward,
  type NetAddress,
  queuesOf,
  type StreamConfig,
  type TapConfig,
} from "./config.ts";

/** Bytes of a virtio 1 header (struct virtio_net_hdr_v1). */
export const VNET_HEADER_SIZE = 12;
/** Of a connection's frames, the longest must fit: what has come in part stays in the kernel. */
const RECEIVE_BUFFER = 1 << 20;

/** The kernel's half of network cards. */
const VHOST_NET = "/dev/vhost-net";

/** An open tap. */
export interface OpenTap {
  readonly fd: OwnedFd;
  readonly ifname: string;
  /** Bytes before each frame. */
  readonly headerSize: number;
}

/**
 * Opens a queue of a tap's interface, or takes the descriptor that the VMM was started with.
 *
 * @param queue its number
 * @throws {Error}
 */
export function openTapBackend(config: TapConfig, queue = 0): OpenTap {
  const { id, ifname = "", vnetHdr = true } = config;
  const fd = config.fds?.[queue] ?? config.fd;
  if (fd !== undefined) return adoptTap(ownCopy(id, fd), id, vnetHdr);
  try {
    return adoptTap(openTap(ifname, vnetHdr, queuesOf(config) > 1), id, vnetHdr);
  } catch (error) {
    if (!(error instanceof OsError)) throw error;
    const what = error.syscall === "TUNSETIFF"
      ? `configure /dev/net/tun (${ifname})`
      : "open /dev/net/tun";
    throw new Error(`could not ${what}: ${error.reason}`, { cause: error });
  }
}

/**
 * Takes a tap over.
 *
 * @param vnetHdr whether a header may come before frames, where the descriptor has one
 * @throws {Error} if the descriptor is none; it is closed then
 */
export function adoptTap(fd: OwnedFd, id: string, vnetHdr: boolean): OpenTap {
  const info = tapInfo(fd.fd);
  if (!info) {
    fd.close();
    throw new Error(`File descriptor of netdev '${id}' is no tap`);
  }
  if (info.vnetHeader && !vnetHdr) {
    fd.close();
    throw new Error(`netdev '${id}': vnet_hdr=off, but the tap '${info.name}' was opened with it`);
  }
  if (info.vnetHeader) setTapHeaderSize(fd.fd, VNET_HEADER_SIZE);
  return { fd, ifname: info.name, headerSize: info.vnetHeader ? VNET_HEADER_SIZE : 0 };
}

/** A vhost device for a network card. */
export interface OpenVhostNet {
  readonly fd: OwnedFd;
  /** Feature bits that the kernel has. */
  readonly features: bigint;
}

/**
 * Opens the vhost device of a tap's queue, or takes the descriptor that the VMM was started with.
 *
 * @param queue its number
 * @param kept that of a predecessor, which is taken over
 * @throws {Error} in QEMU's words
 */
export function openVhostNet(config: TapConfig, queue: number, kept?: OwnedFd): OpenVhostNet {
  const given = config.vhostfds?.[queue];
  const fd = kept ?? (given === undefined ? openVhost(VHOST_NET) : ownCopy(config.id, given));
  try {
    return { fd, features: new VhostDevice(fd.fd).features };
  } catch (error) {
    fd.close();
    throw new Error("vhost-net requested but could not be initialized", { cause: error });
  }
}

/** A socket for datagrams, and where they go. @throws {Error} */
export async function openDgram(
  { id, local, remote }: DgramConfig,
): Promise<{ readonly fd: OwnedFd; readonly destination?: Uint8Array<ArrayBuffer> }> {
  const destination = remote && await destinationOf(remote);
  switch (local.type) {
    case "fd":
      return { fd: ownSocket(id, local.fd, "datagrams"), destination };
    case "unix":
      return { fd: bindUnixDatagram(local.path), destination };
    case "inet": {
      const [host] = await resolveHost(local.host, local.port);
      return { fd: bindUdp(host, local.port), destination };
    }
  }
}

/** Where datagrams go: a struct sockaddr. @throws {Error} if the host is not known */
export async function destinationOf(
  address: NetAddress,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  switch (address.type) {
    case "fd":
      return undefined;
    case "unix":
      return unixDestination(address.path);
    case "inet": {
      const [host] = await resolveHost(address.host, address.port);
      return udpDestination(host, address.port);
    }
  }
}

/** Listens for the client of a stream. @throws {Error} in QEMU's words */
export async function listenForStream({ id, addr: address }: StreamConfig): Promise<OwnedFd> {
  switch (address.type) {
    case "fd":
      return ownSocket(id, address.fd, "listener");
    case "unix":
      return listenUnix(address.path, { nonblocking: true });
    case "inet": {
      const [host] = await resolveHost(address.host, address.port);
      return listenTcp(host, address.port, { nonblocking: true });
    }
  }
}

/** Connects a stream. @throws {Error} in QEMU's words */
export async function connectStream(
  { id, addr: address }: StreamConfig,
  reactor: Reactor,
  abort?: AbortSignal,
): Promise<OwnedFd> {
  switch (address.type) {
    case "fd":
      return ownSocket(id, address.fd, "connection");
    case "unix":
      return connectUnix(address.path, { nonblocking: true });
    case "inet": {
      const [host] = await resolveHost(address.host, address.port);
      return prepareStream(await awaitTcp(host, address.port, reactor, abort));
    }
  }
}

/** Readies a connection: a frame is taken out of the kernel when all of it is there. */
export function prepareStream(connection: OwnedFd): OwnedFd {
  setNonblocking(connection.fd, true);
  setReceiveBuffer(connection.fd, RECEIVE_BUFFER);
  return connection;
}

/** What the guest finds in a network of its own: QEMU's addresses. */
const NETWORK = [
  ...["--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2"],
  ...["--dns", "10.0.2.3", "--dns-forward", "10.0.2.3", "--mtu", "1500"],
];

/**
 * Starts passt, which connects the guest to the host's network without a privilege; it goes when the
 * connection does.
 *
 * @returns the connection
 * @throws {Error} if there is no such program, or it does not start
 */
export async function startPasst(id: string, forwards: readonly HostForward[]): Promise<OwnedFd> {
  const [ours, theirs] = socketPair();
  using peer = theirs;
  try {
    const command = [
      "passt",
      "--quiet",
      "--fd",
      `${peer.fd}`,
      ...NETWORK,
      ...forwards.flatMap(passed),
    ];
    // What it says is of interest where it does not start.
    using said = makeMemfd("passt", 0);
    using child = spawn(command, { fds: [[peer.fd, peer.fd], [said.fd, 1], [said.fd, 2]] });
    // It goes into the background once it is ready.
    while (child.poll() === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    const status = child.wait();
    if (!("code" in status && status.code === 0)) {
      const words = lastLine(said.fd);
      throw new Error(`passt did not start${words === "" ? "" : `: ${words}`}`);
    }
    return prepareStream(ours);
  } catch (error) {
    ours.close();
    const reason = error instanceof OsError ? error.reason : (error as Error).message;
    throw new Error(`netdev '${id}': could not run passt, which type=user needs: ${reason}`, {
      cause: error,
    });
  }
}

/** The last line of a file, as far as it is short. */
function lastLine(fd: number): string {
  const end = new Uint8Array(1024);
  const length = readAt(fd, end, Math.max(0, fileStatus(fd).size - end.length));
  return new TextDecoder().decode(end.subarray(0, length)).trim().split("\n").at(-1)!;
}

/** A forwarded port as passt takes it. */
function passed({ protocol, host, hostPort, guestPort }: HostForward): string[] {
  const address = host === "" ? "" : `${host}/`;
  return [`--${protocol}-ports`, `${address}${hostPort}:${guestPort}`];
}

/** A descriptor of the VMM's that stays open for whoever else uses it. @throws {Error} if not open */
function ownCopy(id: string, fd: number): OwnedFd {
  try {
    const copy = duplicate(fd);
    setNonblocking(copy.fd, true);
    return copy;
  } catch (error) {
    throw new Error(`netdev '${id}': File descriptor ${fd} is not open`, { cause: error });
  }
}

/** The same of a socket. @throws {Error} if it is none, or not of the kind */
function ownSocket(
  id: string,
  fd: number,
  kind: "datagrams" | "connection" | "listener",
): OwnedFd {
  const copy = ownCopy(id, fd);
  const reason = whyUnfit(copy.fd, { kind: "socket", listening: kind === "listener" }) ??
    (isStream(copy.fd) === (kind !== "datagrams")
      ? undefined
      : `is a socket of another type: it must be for ${kind === "datagrams" ? kind : "a stream"}`);
  if (reason === undefined) return copy;
  copy.close();
  throw new Error(`netdev '${id}': File descriptor ${fd} ${reason}`);
}
