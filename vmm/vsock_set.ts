/**
 * The guest's numbers for sockets (CIDs), which the host's kernel gives to one process at a time.
 *
 * A successor cannot go on with connections: what carries them belongs to the process that has made them
 * (VHOST_RESET_OWNER is not for sockets). It opens a device of its own, and asks for the number until the
 * predecessor has let go of it, which that does when the guest has left it and not before: an update that
 * fails costs no connection.
 *
 * @module
 */
import type { VsockPortDescription } from "../devices/virtio/vsock_port.ts";
import { DescriptorSlot } from "../devices/descriptor_slot.ts";
import { VHOST_WORDS, VhostRings } from "../devices/virtio/vhost_rings.ts";
import { Errno, OsError } from "../ffi/errno.ts";
import { makeEventfd } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import { openVhost, VhostVsock } from "../ffi/vhost.ts";

const VHOST_VSOCK = "/dev/vhost-vsock";
/** How long a number may be somebody else's before it is asked for again, and before the user hears of it. */
const AGAIN_MS = 5;
const PATIENCE_MS = 5_000;

/** What socket devices ask of the VMM. */
export interface VsockHost {
  /** Takes a line for the user. */
  notice(text: string): void;
  /** The guest's number is this VMM's. */
  claimed(id: string): void;
}

/** What opens the kernel's half; tests have another. */
export type OpenVsock = () => { readonly fd: OwnedFd; readonly device: VhostVsock };

/** Socket devices by their ids. */
export class VsockSet {
  readonly #host: VsockHost;
  readonly #open: OpenVsock;
  readonly #all = new Map<string, Vsock>();

  /**
   * @param host what they ask of the VMM
   * @param open opens the kernel's half
   */
  constructor(host: VsockHost, open: OpenVsock = openKernels) {
    this.#host = host;
    this.#open = open;
  }

  /**
   * Makes one.
   *
   * @param cid the guest's number
   * @param isSuccessor whether a predecessor has it, until {@linkcode arrive}
   * @throws {Error} in QEMU's words if there is none, or the number is somebody else's
   */
  port(id: string, cid: number, isSuccessor: boolean): VsockPortDescription {
    const vsock = new Vsock(id, cid, this.#host, this.#open);
    this.#all.set(id, vsock);
    vsock.open(!isSuccessor);
    return vsock.port;
  }

  /** The guest is here: its numbers are asked for. */
  arrive(): void {
    for (const vsock of this.#all.values()) vsock.claim();
  }

  /** The guest goes on in another process, which is to have the numbers. */
  letGo(): void {
    for (const vsock of this.#all.values()) vsock.letGo();
  }

  /** Takes them again. @throws {Error} if another process has one */
  takeBack(): void {
    for (const vsock of this.#all.values()) vsock.takeBack();
  }

  /** Closes all. */
  close(): void {
    for (const vsock of this.#all.values()) vsock.close();
    this.#all.clear();
  }
}

/** One of them. */
class Vsock {
  readonly #id: string;
  readonly #cid: number;
  readonly #host: VsockHost;
  readonly #open: OpenVsock;
  readonly #slot = DescriptorSlot.allocate();
  readonly #calls = [makeEventfd(), makeEventfd()] as const;
  readonly #words = new SharedArrayBuffer(VHOST_WORDS);
  #kernel: ReturnType<OpenVsock> | undefined;
  #features = 0n;
  #again: ReturnType<typeof setTimeout> | undefined;

  constructor(id: string, cid: number, host: VsockHost, open: OpenVsock) {
    this.#id = id;
    this.#cid = cid;
    this.#host = host;
    this.#open = open;
  }

  get port(): VsockPortDescription {
    return {
      slot: this.#slot.buffer,
      features: this.#features,
      calls: [this.#calls[0].fd, this.#calls[1].fd],
      words: this.#words,
    };
  }

  /** @param isOurs whether nobody else can have the number rightly */
  open(isOurs: boolean): void {
    this.#kernel = this.#open();
    try {
      this.#features = this.#kernel.device.features;
      if (isOurs) this.#take();
    } catch (error) {
      throw this.#describe(error);
    }
  }

  claim(): void {
    const until = performance.now() + PATIENCE_MS;
    let isTold = false;
    const attempt = () => {
      this.#again = undefined;
      if (this.#slot.fd !== undefined) return;
      try {
        this.#kernel ??= this.#open();
        this.#take();
        this.#host.claimed(this.#id);
      } catch (error) {
        const isLate = performance.now() > until;
        if (isLate && !isTold) this.#host.notice(this.#describe(error).message);
        isTold ||= isLate;
        this.#again = setTimeout(attempt, isTold ? 100 * AGAIN_MS : AGAIN_MS);
      }
    };
    attempt();
  }

  letGo(): void {
    clearTimeout(this.#again);
    this.#slot.fd = undefined;
    this.#kernel?.fd.close();
    this.#kernel = undefined;
  }

  takeBack(): void {
    if (this.#slot.fd !== undefined) return;
    this.#kernel ??= this.#open();
    this.#take();
    this.#host.claimed(this.#id);
  }

  close(): void {
    this.letGo();
    for (const call of this.#calls) call.close();
  }

  /** Becomes the owner, with the guest's number. @throws {OsError} */
  #take(): void {
    const { device, fd } = this.#kernel!;
    device.setGuestCid(this.#cid);
    device.setOwner();
    VhostRings.setOwned(this.#words);
    this.#slot.fd = fd.fd;
  }

  #describe(error: unknown): Error {
    if (!(error instanceof OsError)) return error as Error;
    const isTaken = error.errno === Errno.EADDRINUSE;
    const what = isTaken ? `unable to set guest cid ${this.#cid}` : error.syscall;
    return new Error(`vhost-vsock '${this.#id}': ${what}: ${error.reason}`, { cause: error });
  }
}

function openKernels(): ReturnType<OpenVsock> {
  const fd = openVhost(VHOST_VSOCK);
  return { fd, device: new VhostVsock(fd.fd) };
}
