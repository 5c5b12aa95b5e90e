/**
 * The other end of vhost-user connections, for tests: it answers as a test says, and notes what it hears.
 *
 * @module
 */
import { encode, HEADER, inflightRegion, Request } from "../devices/vhost_user/message.ts";
import { Epoll } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import { makeMemfd } from "../ffi/memory.ts";
import type { Reactor } from "../ffi/reactor.ts";
import { accept, listenUnix } from "../ffi/socket.ts";
import { receiveMessage, sendMessage } from "../ffi/socket_message.ts";

const REPLY = 4;
/** More descriptors than any request has. */
const MAX_FDS = 16;

/** A reply's bytes. */
export function encodeReply(request: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = encode(request, payload);
  new DataView(bytes.buffer).setUint32(4, 1 | REPLY, true);
  return bytes;
}

/** A number of 64 bits as a reply. */
function numberReply(request: number, value: bigint): Uint8Array<ArrayBuffer> {
  return encodeReply(request, new Uint8Array(BigUint64Array.of(value).buffer));
}

/** What it has heard. */
export interface Heard {
  readonly request: number;
  readonly payload: Uint8Array;
  /** Closed with the peer. */
  readonly fds: readonly OwnedFd[];
}

/** A reply: bytes, and descriptors. */
type Answer = { readonly bytes: Uint8Array<ArrayBuffer>; readonly fds?: readonly number[] };

/** A back-end that listens. */
export class VhostUserPeer implements Disposable {
  /** VIRTIO_F_VERSION_1, rings' features, VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_BLK_F_FLUSH. */
  features: bigint = 1n << 32n | 1n << 28n | 1n << 29n | 1n << 30n | 1n << 9n;
  /** MQ, CONFIG, INFLIGHT_SHMFD. */
  protocolFeatures: bigint = 1n << 0n | 1n << 9n | 1n << 12n;
  queues = 4n;
  readonly config: Uint8Array = Uint8Array.from({ length: 60 }, (_, i) => i);
  readonly inflight: OwnedFd = makeMemfd("inflight", 8192, { sealing: true });
  /** Requests that are answered otherwise; by nothing at all if undefined. */
  readonly answers = new Map<number, Answer | undefined>();
  /** Of all connections. */
  readonly heard: Heard[] = [];
  /** How many have come. */
  connections = 0;
  readonly #reactor: Reactor;
  readonly #listener: OwnedFd;
  #connection: OwnedFd | undefined;

  /** Begins to listen. */
  constructor(path: string, reactor: Reactor) {
    this.#reactor = reactor;
    this.#listener = listenUnix(path, { nonblocking: true });
    reactor.add(this.#listener.fd, Epoll.IN, () => {
      const connection = accept(this.#listener.fd, { nonblocking: true });
      if (!connection) return;
      this.hangUp();
      this.connections++;
      this.#connection = connection;
      reactor.add(connection.fd, Epoll.IN, () => this.#read(connection));
    });
  }

  /** Writes bytes, whether or not somebody has asked. */
  write(bytes: Uint8Array<ArrayBuffer>, fds: readonly number[] = []): void {
    sendMessage(this.#connection!.fd, bytes, fds);
  }

  /** The requests that it has heard, in their order. */
  get requests(): number[] {
    return this.heard.map(({ request }) => request);
  }

  /** Whether nobody is connected. */
  get hasHungUp(): boolean {
    return this.#connection === undefined;
  }

  /** Ends the connection. */
  hangUp(): void {
    if (!this.#connection) return;
    this.#reactor.remove(this.#connection.fd);
    this.#connection.close();
    this.#connection = undefined;
  }

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.hangUp();
    this.#reactor.remove(this.#listener.fd);
    this.#listener.close();
    this.inflight.close();
    for (const fd of this.heard.flatMap(({ fds }) => fds)) fd.close();
  }

  #read(connection: OwnedFd): void {
    while (this.#connection === connection) {
      const header = new Uint8Array(HEADER);
      const message = receiveMessage(connection.fd, header, MAX_FDS);
      if (!message) return;
      if (message.length === 0) return this.hangUp();
      const [request, , size] = new Uint32Array(header.buffer);
      const payload = new Uint8Array(size);
      if (size > 0) receiveMessage(connection.fd, payload, 0);
      this.heard.push({ request, payload, fds: message.fds });
      const answer = this.answers.has(request)
        ? this.answers.get(request)
        : this.#answer(request, payload);
      if (answer) this.write(answer.bytes, answer.fds);
    }
  }

  #answer(request: number, payload: Uint8Array<ArrayBuffer>): Answer | undefined {
    switch (request) {
      case Request.GET_FEATURES:
        return { bytes: numberReply(request, this.features) };
      case Request.GET_PROTOCOL_FEATURES:
        return { bytes: numberReply(request, this.protocolFeatures) };
      case Request.GET_QUEUE_NUM:
        return { bytes: numberReply(request, this.queues) };
      case Request.GET_CONFIG: {
        const reply = payload.slice();
        reply.set(this.config.subarray(0, reply.length - 12), 12);
        return { bytes: encodeReply(request, reply) };
      }
      case Request.GET_INFLIGHT_FD: {
        const region = inflightRegion({ size: 4096, offset: 4096, queues: 1, queueSize: 128 });
        return { bytes: encodeReply(request, region), fds: [this.inflight.fd] };
      }
    }
  }
}
