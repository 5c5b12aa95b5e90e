/**
 * vhost-user-fs: a folder of the host's that a process behind a socket has (virtio 1.2, 5.11).
 *
 * @module
 */
import type { Properties, PropertyValue } from "../device.ts";
import { readLittleEndian } from "../little_endian.ts";
import { offeredFeatures, VhostUserDevice, vhostUserState } from "./vhost_user.ts";
import { defineVirtioDevice } from "./virtio_device.ts";

const MAX_QUEUE_SIZE = 1024;
/** Those of requests, beside the one of high priority; as many as the others' devices have at most. */
const MAX_REQUEST_QUEUES = 1023;
/** Bytes of the tag in struct virtio_fs_config, behind which is the number of request queues. */
const TAG_SIZE = 36;
const CONFIG_SIZE = TAG_SIZE + 4;

/** @throws {Error} in QEMU's words */
function checkProperties(properties: Properties): void {
  const queues = Number(properties["num-request-queues"]);
  if (queues === 0) throw new Error("num-request-queues property must be larger than 0");
  if (queues > MAX_REQUEST_QUEUES) {
    throw new Error(`num-request-queues property must be at most ${MAX_REQUEST_QUEUES}`);
  }
  const size = Number(properties["queue-size"]);
  if (size === 0 || (size & (size - 1)) !== 0) {
    throw new Error("queue-size property must be a power of 2");
  }
  if (size > MAX_QUEUE_SIZE) {
    throw new Error(`queue-size property must be ${MAX_QUEUE_SIZE} or smaller`);
  }
}

const encodeTag = (tag: PropertyValue = "") => new TextEncoder().encode(String(tag));

/** @throws {Error} in QEMU's words */
function checkTag({ tag }: Properties): void {
  if (tag === undefined) throw new Error("missing tag property");
  if (tag === "") throw new Error("tag property cannot be empty");
  if (encodeTag(tag).length <= TAG_SIZE) return;
  throw new Error(`tag property must be ${TAG_SIZE} bytes or less`);
}

function queuesOf(properties: Properties): number {
  return 1 + Number(properties["num-request-queues"]);
}

/** The shared folder. */
export const vhostUserFs = defineVirtioDevice({
  name: "vhost-user-fs-device",
  help: "Shared folder of a vhost-user back-end",
  deviceId: 26,
  pciClass: 0x01_8000,
  version: 1,
  state: vhostUserState,
  properties: {
    chardev: { type: "chardev", help: "ID of the socket behind which the back-end is" },
    tag: { type: "string", help: "name by which the guest mounts it" },
    "num-request-queues": { type: "uint16", default: 1, help: "number of queues for requests" },
    "queue-size": { type: "uint16", default: 128, help: "entries of a queue" },
    packed: { type: "bool", default: false, internal: true, help: "offer packed rings" },
    queue_reset: { type: "bool", default: false, internal: true, help: "offer resets of queues" },
  },
  check(properties) {
    if (properties.chardev === undefined) throw new Error("missing chardev");
    checkTag(properties);
    checkProperties(properties);
  },
  features: () => 0n,
  offered: offeredFeatures,
  queueSizes(properties) {
    checkProperties(properties);
    return Array(queuesOf(properties)).fill(Number(properties["queue-size"]));
  },
  vhostUser: (properties) => ({
    queues: queuesOf(properties),
    queueSize: Number(properties["queue-size"]),
    configSize: 0,
  }),
  create(state, virtio, context, properties) {
    const device = new VhostUserDevice(state, virtio, context);
    const config = new Uint8Array(CONFIG_SIZE);
    config.set(encodeTag(properties.tag));
    new DataView(config.buffer).setUint32(TAG_SIZE, Number(properties["num-request-queues"]), true);
    return {
      handleQueue: (index) => device.handleQueue(index),
      halt: () => device.halt(),
      quiesce() {
        // Which files the guest has open is known to the back-end's process alone.
        if (!virtio.isRunning) return;
        throw new Error(
          `${virtio.parts.name}: what the guest has open in the shared folder cannot be saved;` +
            " cpr-transfer and cpr-exec keep it, for others the guest must remove its driver first",
        );
      },
      connected: () => device.connected(),
      restored: () => device.restored(),
      readConfig: (offset, size) => readLittleEndian(config, offset, size),
    };
  },
});
