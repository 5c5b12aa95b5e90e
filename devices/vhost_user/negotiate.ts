/**
 * What is agreed on with a back-end when it is connected to, before the guest's driver is there.
 *
 * @module
 */
import { fileStatus, type OwnedFd } from "../../ffi/fd.ts";
import { whyUnfit } from "../../ffi/fd_requirement.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { askLater, send } from "./connection.ts";
import {
  configRange,
  F_PROTOCOL_FEATURES,
  type InflightRegion,
  inflightRegion,
  ProtocolFeature,
  readConfig,
  readInflight,
  readWide,
  Request,
  wideNumber,
} from "./message.ts";
import type { VhostUserNeeds } from "./port.ts";

const VERSION_1 = 32;
const nothing = new Uint8Array();
const bit = (feature: number) => 1n << BigInt(feature);

/** What a back-end can do, as far as it matters to a device. */
export interface Agreed {
  /** The device's features, VHOST_USER_F_PROTOCOL_FEATURES among them. */
  readonly features: bigint;
  /** Configuration space. */
  readonly config: Uint8Array;
  /** Where it notes what it is at, if it does. */
  readonly inflight?: InflightRegion & { readonly fd: OwnedFd };
}

/** What a back-end that was there before has agreed on. */
export type Before = Pick<Agreed, "features" | "inflight">;

/**
 * Agrees with a back-end.
 *
 * @param before with one that takes another's place, which must be able to do as much
 * @param abort ends the wait for its replies
 * @throws {Error} that says what the back-end lacks, or does wrong
 */
export async function negotiate(
  fd: number,
  needs: VhostUserNeeds,
  before: Before | undefined,
  waiting: { readonly reactor: Reactor; readonly abort: AbortSignal },
): Promise<Agreed> {
  const ask = async (request: number, payload: Uint8Array = nothing) =>
    (await askLater(fd, request, payload, waiting)).payload;
  const features = readWide(await ask(Request.GET_FEATURES));
  if ((features & bit(VERSION_1)) === 0n) throw new Error("it lacks VIRTIO_F_VERSION_1");
  const missing = (before?.features ?? 0n) & ~features;
  if (missing !== 0n) {
    throw new Error(`it lacks features that the one before had: 0x${missing.toString(16)}`);
  }
  const protocol = features & bit(F_PROTOCOL_FEATURES) ? await agreeOnProtocol(fd, needs, ask) : 0n;
  send(fd, Request.SET_OWNER);
  if (protocol & bit(ProtocolFeature.MQ)) {
    const queues = readWide(await ask(Request.GET_QUEUE_NUM));
    if (queues < needs.queues) {
      throw new Error(`The maximum number of queues supported by the backend is ${queues}`);
    }
  }
  const config = await readConfigSpace(needs.configSize, protocol, ask);
  const keepsNotes = (protocol & bit(ProtocolFeature.INFLIGHT_SHMFD)) !== 0n;
  if (before?.inflight && !keepsNotes) {
    throw new Error("it lacks VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD, which the one before had");
  }
  const inflight = before || !keepsNotes ? before?.inflight : await getInflight(fd, needs, waiting);
  return { features, config, inflight };
}

type Ask = (request: number, payload?: Uint8Array) => Promise<Uint8Array>;

async function agreeOnProtocol(fd: number, needs: VhostUserNeeds, ask: Ask): Promise<bigint> {
  const { MQ, CONFIG, INFLIGHT_SHMFD } = ProtocolFeature;
  const known = bit(MQ) | bit(INFLIGHT_SHMFD) | (needs.configSize > 0 ? bit(CONFIG) : 0n);
  const agreed = readWide(await ask(Request.GET_PROTOCOL_FEATURES)) & known;
  send(fd, Request.SET_PROTOCOL_FEATURES, wideNumber(agreed));
  return agreed;
}

async function readConfigSpace(size: number, protocol: bigint, ask: Ask): Promise<Uint8Array> {
  if (size === 0) return nothing;
  if ((protocol & bit(ProtocolFeature.CONFIG)) === 0n) {
    throw new Error("it lacks VHOST_USER_PROTOCOL_F_CONFIG");
  }
  return readConfig(await ask(Request.GET_CONFIG, configRange(0, new Uint8Array(size))), size);
}

async function getInflight(
  fd: number,
  { queues, queueSize }: VhostUserNeeds,
  waiting: { readonly reactor: Reactor; readonly abort: AbortSignal },
): Promise<InflightRegion & { readonly fd: OwnedFd }> {
  const asked = { size: 0, offset: 0, queues, queueSize };
  const reply = await askLater(fd, Request.GET_INFLIGHT_FD, inflightRegion(asked), {
    ...waiting,
    fds: 1,
  });
  const [file] = reply.fds;
  try {
    const region = readInflight(reply.payload, asked);
    if (!file) throw new Error("it has sent no descriptor for requests in flight");
    const { kind, size } = fileStatus(file.fd);
    if (kind !== "file" || size < region.offset + region.size) {
      throw new Error("what it has sent for requests in flight is not as large as it says");
    }
    const unfit = whyUnfit(file.fd, { writable: true });
    if (unfit !== undefined) throw new Error(`what it has sent for requests in flight ${unfit}`);
    return { ...region, fd: file };
  } catch (error) {
    file?.close();
    throw error;
  }
}
