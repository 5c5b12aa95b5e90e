/**
 * The host's end of connections to a guest's sockets (vsock(7)), for tests that may have them.
 *
 * @module
 */
import assert from "node:assert/strict";
import { check, Errno, errno } from "../ffi/errno.ts";
import { O, openFile, OwnedFd } from "../ffi/fd.ts";
import { libc } from "../ffi/libc.ts";
import { VhostVsock } from "../ffi/vhost.ts";

const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const EALREADY = 114;
const EISCONN = 106;
const DEVICE = "/dev/vhost-vsock";

/** Why guests cannot have sockets here, or undefined. */
export const noVsock: string | undefined = whyNoVsock();
if (noVsock !== undefined) console.warn(`SKIPPED: tests that need vhost-vsock: ${noVsock}`);

function whyNoVsock(): string | undefined {
  try {
    openFile(DEVICE, O.RDWR).close();
  } catch (error) {
    return (error as Error).message;
  }
}

/** A number that no guest has. */
export function freeCid(): number {
  for (let cid = 10_000 + Deno.pid % 100_000;; cid++) {
    using fd = openFile(DEVICE, O.RDWR);
    try {
      new VhostVsock(fd.fd).setGuestCid(cid);
      return cid;
    } catch (error) {
      assert.equal((error as { errno?: number }).errno, Errno.EADDRINUSE);
    }
  }
}

/** A connection, or an attempt at one. */
export class VsockPeer implements Disposable {
  readonly #socket: OwnedFd;
  readonly #address = new Uint8Array(16);
  readonly #buffer = new Uint8Array(1 << 16);

  /** Begins to connect to a guest. */
  constructor(cid: number, port: number) {
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    this.#socket = new OwnedFd(check(libc.socket(AF_VSOCK, type, 0), "socket", "AF_VSOCK"));
    // struct sockaddr_vm: u16 family, u16 reserved, u32 port, u32 cid.
    const view = new DataView(this.#address.buffer);
    view.setUint16(0, AF_VSOCK, true);
    view.setUint32(4, port, true);
    view.setUint32(8, cid, true);
  }

  /** "connected", "waits", or why there is no connection. */
  connect(): "connected" | "waits" | number {
    const result = libc.connect(this.#socket.fd, this.#address, this.#address.length);
    if (result === 0 || errno() === EISCONN) return "connected";
    return [Errno.EINPROGRESS, EALREADY].includes(errno() as 115) ? "waits" : errno();
  }

  /** Sends all of it, which is little. */
  send(data: Uint8Array<ArrayBuffer>): void {
    assert.equal(libc.write(this.#socket.fd, data, BigInt(data.length)), data.length);
  }

  /** What has come: bytes, nothing yet, or that it has ended. */
  receive(): Uint8Array | "nothing" | "ended" {
    const n = libc.read(this.#socket.fd, this.#buffer, BigInt(this.#buffer.length));
    if (n > 0) return this.#buffer.slice(0, n);
    return n === -1 && errno() === Errno.EAGAIN ? "nothing" : "ended";
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
