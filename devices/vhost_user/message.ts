/**
 * Messages of the vhost-user protocol (QEMU's "Vhost-user Protocol" specification), as the front-end
 * sends and receives them.
 *
 * @module
 */
/** Requests of the front-end. */
export const Request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
} as const;

/** VHOST_USER_F_PROTOCOL_FEATURES, among the device's feature bits. */
export const F_PROTOCOL_FEATURES = 30;

/** Bits of the protocol's own features. */
export const ProtocolFeature = { MQ: 0, CONFIG: 9, INFLIGHT_SHMFD: 12 } as const;

/** Bytes of a message before its payload: request, flags, size of the payload. */
export const HEADER = 12;
/** The largest payload that a back-end may send: configuration space, which has 256 bytes at most. */
export const MAX_PAYLOAD = 1024;

const VERSION = 1;
const VERSION_MASK = 3;
const REPLY = 4;

/** A message as bytes. */
export function encode(request: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER + payload.length);
  bytes.set(payload, HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, request, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, payload.length, true);
  return bytes;
}

/**
 * Reads the header of a reply.
 *
 * @returns the size of its payload
 * @throws {Error} if it is none, or another request's
 */
export function replySize(header: Uint8Array, request: number): number {
  const view = new DataView(header.buffer, header.byteOffset, HEADER);
  const [answered, flags, size] = [0, 4, 8].map((at) => view.getUint32(at, true));
  if (answered !== request || (flags & (VERSION_MASK | REPLY)) !== (VERSION | REPLY)) {
    throw new Error(`it answers request ${request} by message ${answered} with flags ${flags}`);
  }
  if (size > MAX_PAYLOAD) throw new Error(`its answer to request ${request} has ${size} bytes`);
  return size;
}

/** A payload of one number of 64 bits. */
export function wideNumber(value: bigint): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

/** A payload that says a number of a ring. */
export function ringNumber(index: number, number: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.of(index, number).buffer);
}

/** Where a ring's areas are, in this process's addresses. */
export function ringPlace(
  index: number,
  { desc, used, avail }: { readonly desc: number; readonly used: number; readonly avail: number },
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(40);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, index, true);
  [desc, used, avail].forEach((one, i) => view.setBigUint64(8 + 8 * i, BigInt(one), true));
  return bytes;
}

/** A range of guest memory. */
export interface SharedRange {
  /** First guest physical address. */
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** The address of the first byte in this process. */
  readonly address: number;
  /** Where in its file it begins. */
  readonly file?: { readonly offset: number };
}

/** Guest memory, of which there are at most 8 ranges; the descriptors of its regions go with the message. */
export function memoryTable(regions: readonly SharedRange[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8 + 32 * regions.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, regions.length, true);
  regions.forEach(({ gpa, size, address, file }, i) =>
    [gpa, size, address, file?.offset ?? 0].forEach((value, word) =>
      view.setBigUint64(8 + 32 * i + 8 * word, BigInt(value), true)
    )
  );
  return bytes;
}

/** A range of configuration space, with its bytes or room for them. */
export function configRange(offset: number, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, offset, true);
  view.setUint32(4, data.length, true);
  bytes.set(data, 12);
  return bytes;
}

/** Reads the answer to GET_CONFIG. @throws {Error} if it has other than `length` bytes */
export function readConfig(payload: Uint8Array, length: number): Uint8Array {
  if (payload.length !== 12 + length) {
    throw new Error(
      payload.length === 0
        ? "it has no configuration space of this kind of device"
        : `it answers with ${payload.length} bytes of configuration, not ${12 + length}`,
    );
  }
  return payload.subarray(12);
}

/** The region in which a back-end notes what it is at. */
export interface InflightRegion {
  readonly size: number;
  /** In its file. */
  readonly offset: number;
  readonly queues: number;
  readonly queueSize: number;
}

/** Bytes of a description of such a region; some back-ends leave the padding out. */
const INFLIGHT = 24;
const INFLIGHT_UNPADDED = 20;

/** A payload that describes such a region. */
export function inflightRegion(region: InflightRegion): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(INFLIGHT);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(region.size), true);
  view.setBigUint64(8, BigInt(region.offset), true);
  view.setUint16(16, region.queues, true);
  view.setUint16(18, region.queueSize, true);
  return bytes;
}

/** Reads the answer to GET_INFLIGHT_FD. @throws {Error} if it makes no sense */
export function readInflight(payload: Uint8Array, asked: InflightRegion): InflightRegion {
  if (payload.length !== INFLIGHT && payload.length !== INFLIGHT_UNPADDED) {
    throw new Error(`it describes requests in flight by ${payload.length} bytes`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const [size, offset] = [0, 8].map((at) => Number(view.getBigUint64(at, true)));
  if (size === 0 || size > MAX_INFLIGHT || offset > MAX_INFLIGHT) {
    throw new Error(`it has ${size} bytes for requests in flight, at ${offset}`);
  }
  return { ...asked, size, offset };
}

/** Of 1024 queues of 1024 entries it has 16 MiB; no back-end needs several times that. */
const MAX_INFLIGHT = 256 << 20;

/** Reads a number of 64 bits. @throws {Error} if the payload is another one */
export function readWide(payload: Uint8Array): bigint {
  if (payload.length !== 8) throw new Error(`it answers with ${payload.length} bytes, not 8`);
  return new DataView(payload.buffer, payload.byteOffset, 8).getBigUint64(0, true);
}

/** Reads a ring's number. @throws {Error} if the payload is another one, or another ring's */
export function readRingNumber(payload: Uint8Array, index: number): number {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  if (payload.length === 8 && view.getUint32(0, true) === index) return view.getUint32(4, true);
  throw new Error(`it does not answer for ring ${index}`);
}
