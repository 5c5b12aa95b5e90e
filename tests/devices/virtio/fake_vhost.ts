/**
 * What takes the kernel's place behind a vhost device: it writes down what it is told.
 *
 * @module
 */
import { Errno } from "../../../ffi/errno.ts";
import {
  type VhostIoctl,
  vhostMemory,
  VhostVsock,
  vringAddress,
  vringFile,
  vringState,
} from "../../../ffi/vhost.ts";

/** Names of requests, and how what they are told is shown. */
const requests = new Map<number, readonly [name: string, show: (bytes: Uint8Array) => string]>([
  [0x8008_af00, ["GET_FEATURES", () => ""]],
  [0x4008_af00, ["SET_FEATURES", (bytes) => `0x${wordOf(bytes).toString(16)}`]],
  [0xaf01, ["SET_OWNER", () => ""]],
  [0xaf02, ["RESET_OWNER", () => ""]],
  [0x4008_af03, ["SET_MEM_TABLE", showMemory]],
  [0x4008_af10, ["SET_VRING_NUM", showState]],
  [0x4028_af11, ["SET_VRING_ADDR", showAddress]],
  [0x4008_af12, ["SET_VRING_BASE", showState]],
  [0xc008_af12, ["GET_VRING_BASE", (bytes) => `${vringState.view(bytes.buffer).index}`]],
  [0x4008_af20, ["SET_VRING_KICK", showFile]],
  [0x4008_af21, ["SET_VRING_CALL", showFile]],
  [0x4008_af30, ["NET_SET_BACKEND", showFile]],
  [0x4008_af60, ["VSOCK_SET_GUEST_CID", (bytes) => `${wordOf(bytes)}`]],
  [0x4004_af61, ["VSOCK_SET_RUNNING", ([isRunning]) => `${isRunning}`]],
]);

function wordOf(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer).getBigUint64(0, true);
}

function showMemory(bytes: Uint8Array): string {
  const { nregions, regions } = vhostMemory.view(bytes.buffer);
  const hex = (value: bigint) => `0x${value.toString(16)}`;
  return Array.from({ length: nregions }, (_, i) => regions.at(i)).map((one) =>
    `${hex(one.guest_phys_addr)}+${hex(one.memory_size)}=${hex(one.userspace_addr)}`
  ).join(" ");
}

function showState(bytes: Uint8Array): string {
  const { index, num } = vringState.view(bytes.buffer);
  return `${index} ${num}`;
}

function showFile(bytes: Uint8Array): string {
  const { index, fd } = vringFile.view(bytes.buffer);
  return `${index} ${fd}`;
}

function showAddress(bytes: Uint8Array): string {
  const { index, desc_user_addr, avail_user_addr, used_user_addr } = vringAddress.view(
    bytes.buffer,
  );
  return [index, desc_user_addr, avail_user_addr, used_user_addr].join(" ");
}

/** A kernel with one vhost device. */
export class FakeVhost {
  /** All that was called since they were last looked at. */
  readonly #calls: string[] = [];
  /** The request that fails, and how. */
  failing: { readonly name: string; readonly errno: number } | undefined;
  /** How far each ring is. */
  readonly bases: number[] = [];
  isOwned = false;

  /** @param features what it has */
  constructor(readonly features: bigint) {}

  /** Of the device, with a descriptor of a number that there is not. */
  readonly device = new VhostVsock(1_000_100, this.#ioctl());

  /** What was called since, without those that only ask. */
  take(): string[] {
    return this.#calls.splice(0).filter((call) => !call.startsWith("GET_FEATURES"));
  }

  #ioctl(): VhostIoctl {
    return (_fd, request, bytes = new Uint8Array()) => {
      const [name, show] = requests.get(request)!;
      this.#calls.push(`${name} ${show(bytes)}`.trim());
      if (this.failing?.name === name) return -this.failing.errno;
      return this.#carryOut(name, bytes);
    };
  }

  /** Only an owner may do more than ask, and only one is there. */
  #carryOut(name: string, bytes: Uint8Array): number {
    const asksOnly = ["GET_FEATURES", "SET_FEATURES", "VSOCK_SET_GUEST_CID"].includes(name);
    if (name === "SET_OWNER") {
      if (this.isOwned) return -Errno.EBUSY;
      this.isOwned = true;
    } else if (!this.isOwned && !asksOnly) return -Errno.EPERM;
    if (name === "RESET_OWNER") this.isOwned = false;
    if (name === "GET_FEATURES") {
      new DataView(bytes.buffer).setBigUint64(0, this.features, true);
    }
    if (name === "GET_VRING_BASE") {
      const view = vringState.view(bytes.buffer);
      view.num = this.bases[view.index] ?? 0;
    }
    return 0;
  }
}
