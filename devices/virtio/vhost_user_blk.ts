/**
 * vhost-user-blk: a disk that a process behind a socket has (virtio 1.2, 5.2).
 *
 * @module
 */
import type { Properties } from "../device.ts";
import { BlkFeature } from "./blk_request.ts";
import { offeredFeatures, VhostUserDevice, vhostUserState } from "./vhost_user.ts";
import { defineVirtioDevice } from "./virtio_device.ts";

const MAX_QUEUE_SIZE = 1024;
const MAX_QUEUES = 1024;
/** struct virtio_blk_config as far as all back-ends have it: to write_zeroes_may_unmap and its padding. */
const CONFIG_SIZE = 60;
/** Offset of the only field that a driver may write. */
const WRITEBACK = 32;
/** Offset of the number of queues. */
const NUM_QUEUES = 34;

/** VIRTIO_BLK_F_SIZE_MAX, which our own disks have no need of. */
const SIZE_MAX = 1;

/** @throws {Error} in QEMU's words */
function checkProperties(properties: Properties): void {
  const queues = Number(properties["num-queues"]);
  if (queues === 0 || queues > MAX_QUEUES) {
    throw new Error(`invalid number of IO queues: ${queues}, expected 1 to ${MAX_QUEUES}`);
  }
  const size = Number(properties["queue-size"]);
  if (size === 0) throw new Error("queue size must be non-zero");
  if (size > MAX_QUEUE_SIZE || (size & (size - 1)) !== 0) {
    throw new Error(`queue size must be a power of 2 (max ${MAX_QUEUE_SIZE}), not ${size}`);
  }
}

/** The disk. */
export const vhostUserBlk = defineVirtioDevice({
  name: "vhost-user-blk-device",
  help: "Disk of a vhost-user back-end",
  deviceId: 2,
  pciClass: 0x01_0000,
  version: 1,
  state: vhostUserState,
  properties: {
    chardev: { type: "chardev", help: "ID of the socket behind which the back-end is" },
    "num-queues": { type: "uint16", default: 1, help: "number of queues" },
    "queue-size": { type: "uint32", default: 128, help: "entries of a queue" },
    "config-wce": { type: "bool", default: true, help: "the guest may change the write cache" },
    packed: { type: "bool", default: false, internal: true, help: "offer packed rings" },
    queue_reset: { type: "bool", default: false, internal: true, help: "offer resets of queues" },
  },
  check(properties) {
    if (properties.chardev === undefined) throw new Error("chardev is mandatory");
    checkProperties(properties);
  },
  features(properties) {
    checkProperties(properties);
    const { SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES } = BlkFeature;
    return [
      ...[SIZE_MAX, SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, DISCARD, WRITE_ZEROES],
      ...properties["config-wce"] ? [BlkFeature.CONFIG_WCE] : [],
      ...Number(properties["num-queues"]) > 1 ? [BlkFeature.MQ] : [],
    ].reduce((bits, bit) => bits | 1n << BigInt(bit), 0n);
  },
  offered: offeredFeatures,
  queueSizes(properties) {
    checkProperties(properties);
    return Array(Number(properties["num-queues"])).fill(Number(properties["queue-size"]));
  },
  vhostUser: (properties) => ({
    queues: Number(properties["num-queues"]),
    queueSize: Number(properties["queue-size"]),
    configSize: CONFIG_SIZE,
  }),
  create(state, virtio, context, properties) {
    const device = new VhostUserDevice(state, virtio, context);
    return {
      handleQueue: (index) => device.handleQueue(index),
      halt: () => device.halt(),
      quiesce: () => device.quiesce(),
      connected: () => device.connected(),
      restored: () => device.restored(),
      readConfig(offset, size) {
        // How many queues there are is said here, not by the back-end.
        if (offset === NUM_QUEUES && size === 2) return Number(properties["num-queues"]);
        return device.readConfig(offset, size);
      },
      writeConfig(offset, size, value) {
        if (offset !== WRITEBACK || size !== 1) return;
        if (virtio.hasFeature(BlkFeature.CONFIG_WCE)) {
          device.changeConfig(WRITEBACK, Number(value !== 0));
        }
      },
    };
  },
});
