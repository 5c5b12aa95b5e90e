/**
 * virtio-blk: a disk (virtio 1.2, 5.2).
 *
 * @module
 */
import { Disk } from "../block/disk.ts";
import { SECTOR } from "../block/words.ts";
import { struct, u16, u32, u64, u8 } from "../../ffi/struct.ts";
import type { Properties } from "../device.ts";
import { readLittleEndian } from "../little_endian.ts";
import { BlkFeature, BlkRequests } from "./blk_request.ts";
import { defineVirtioDevice, type VirtioBackend } from "./virtio_device.ts";

/** The most sectors of a request to discard or to zero, as QEMU has it (BDRV_REQUEST_MAX_SECTORS). */
const MAX_SECTORS = 0x3f_ffff;
const MAX_QUEUE_SIZE = 1024;
/** VIRTIO_QUEUE_MAX of QEMU. */
const MAX_QUEUES = 1024;
const MIN_BLOCK = 512;
const MAX_BLOCK = 2 << 20;

const state = struct("virtio-blk", {
  /** The guest has to flush what it wants kept; else every write is flushed. */
  writeback: u8,
});

/** struct virtio_blk_config (5.2.4). */
const config = struct("virtio_blk_config", {
  capacity: u64,
  size_max: u32,
  seg_max: u32,
  cylinders: u16,
  heads: u8,
  sectors: u8,
  blk_size: u32,
  physical_block_exp: u8,
  alignment_offset: u8,
  min_io_size: u16,
  opt_io_size: u32,
  writeback: u8,
  unused0: u8,
  num_queues: u16,
  max_discard_sectors: u32,
  max_discard_seg: u32,
  discard_sector_alignment: u32,
  max_write_zeroes_sectors: u32,
  max_write_zeroes_seg: u32,
  write_zeroes_may_unmap: u8,
});

/** Checks properties that depend on one another. @throws {Error} in QEMU's words */
function checkProperties(properties: Properties): void {
  const queues = Number(properties["num-queues"]);
  if (queues === 0) throw new Error("num-queues property must be larger than 0");
  if (queues > MAX_QUEUES) {
    throw new Error(`num-queues property must be at most ${MAX_QUEUES}, not ${queues}`);
  }
  const size = Number(properties["queue-size"]);
  if (size <= 2 || size > MAX_QUEUE_SIZE || (size & (size - 1)) !== 0) {
    throw new Error(
      `invalid queue-size property (${size}), must be a power of 2 (max ${MAX_QUEUE_SIZE})`,
    );
  }
  for (const name of ["logical_block_size", "physical_block_size"]) {
    const block = Number(properties[name]);
    if (block < MIN_BLOCK || block > MAX_BLOCK) {
      throw new Error(
        `Property .${name} doesn't take value ${block} (minimum: ${MIN_BLOCK}, ` +
          `maximum: ${MAX_BLOCK})`,
      );
    }
    if ((block & (block - 1)) !== 0) {
      throw new Error(`Property .${name} doesn't take value '${block}', it's not a power of 2`);
    }
  }
  if (Number(properties.logical_block_size) > Number(properties.physical_block_size)) {
    throw new Error("logical_block_size > physical_block_size not supported");
  }
  for (const name of ["max-discard-sectors", "max-write-zeroes-sectors"]) {
    const sectors = Number(properties[name]);
    if (sectors >= 1 && sectors <= MAX_SECTORS) continue;
    throw new Error(
      `invalid ${name} property (${sectors}), must be between 1 and ${MAX_SECTORS}`,
    );
  }
}

/** Cylinders of a disk that nobody has told its geometry, with 16 heads of 63 sectors. */
function cylindersOf(sectors: number): number {
  return Math.min(Math.max(Math.floor(sectors / (16 * 63)), 2), 16383);
}

/** A disk. */
export const virtioBlk = defineVirtioDevice({
  name: "virtio-blk-device",
  help: "Disk",
  deviceId: 2,
  pciClass: 0x01_0000,
  version: 1,
  state,
  timers: 1,
  properties: {
    drive: { type: "drive", help: "ID of a drive, or node name of a blockdev" },
    iothread: {
      type: "link",
      to: "iothread",
      help: "thread that serves requests; the machine's own without",
    },
    serial: { type: "string", default: "", help: "serial number, of which 20 characters are seen" },
    "num-queues": { type: "uint16", default: 1, help: "number of queues" },
    "queue-size": { type: "uint16", default: 256, help: "entries of a queue" },
    logical_block_size: { type: "uint32", default: 512, help: "bytes of a block" },
    physical_block_size: { type: "uint32", default: 512, help: "bytes of a block of the medium" },
    min_io_size: { type: "uint16", default: 0, help: "bytes of the smallest good request" },
    opt_io_size: { type: "uint32", default: 0, help: "bytes of the best request" },
    "write-cache": {
      type: "string",
      default: "auto",
      help: "on, off, or as the drive says",
      unseen: true,
    },
    "config-wce": { type: "bool", default: true, help: "the guest may change write-cache" },
    discard: { type: "bool", default: true, help: "offer to discard" },
    "write-zeroes": { type: "bool", default: true, help: "offer to write zeros" },
    "max-discard-sectors": { type: "uint32", default: MAX_SECTORS, help: "most of a request" },
    "max-write-zeroes-sectors": { type: "uint32", default: MAX_SECTORS, help: "most of a request" },
    werror: {
      type: "string",
      default: "auto",
      help: "report, ignore, stop or enospc",
      unseen: true,
    },
    rerror: { type: "string", default: "auto", help: "report, ignore or stop", unseen: true },
    "share-rw": {
      type: "bool",
      default: false,
      help: "others may write to the image as well",
      unseen: true,
    },
    // What the machine has found of the drive.
    "read-only": { type: "bool", internal: true, help: "the disk cannot be written" },
    writeback: {
      type: "bool",
      internal: true,
      help: "the guest has to flush at first",
      unseen: true,
    },
  },
  features(properties) {
    checkProperties(properties);
    const bit = (feature: number, on: unknown = true) => on ? 1n << BigInt(feature) : 0n;
    return bit(BlkFeature.SEG_MAX) | bit(BlkFeature.GEOMETRY) | bit(BlkFeature.BLK_SIZE) |
      bit(BlkFeature.TOPOLOGY) |
      bit(BlkFeature.RO, properties["read-only"]) |
      bit(BlkFeature.FLUSH, properties.writeback || properties["config-wce"]) |
      bit(BlkFeature.CONFIG_WCE, properties["config-wce"]) |
      bit(BlkFeature.MQ, Number(properties["num-queues"]) > 1) |
      bit(BlkFeature.DISCARD, properties.discard) |
      bit(BlkFeature.WRITE_ZEROES, properties["write-zeroes"]);
  },
  queueSizes(properties) {
    checkProperties(properties);
    return Array(Number(properties["num-queues"])).fill(Number(properties["queue-size"]));
  },
  create(state, virtio, context, properties): VirtioBackend {
    const disk = new Disk(context.disk!.disk, context.uring);
    const requests = new BlkRequests(state, virtio, context, disk, properties);
    const block = Number(properties.logical_block_size);

    const describe = () => {
      const sectors = Math.floor(disk.sizeBytes / SECTOR);
      return config.alloc({
        capacity: BigInt(sectors),
        seg_max: Number(properties["queue-size"]) - 2,
        cylinders: cylindersOf(sectors),
        heads: 16,
        sectors: 63,
        blk_size: block,
        physical_block_exp: Math.log2(Number(properties.physical_block_size) / block),
        min_io_size: Math.floor(Number(properties.min_io_size) / block),
        opt_io_size: Math.floor(Number(properties.opt_io_size) / block),
        writeback: state.writeback,
        num_queues: Number(properties["num-queues"]),
        ...properties.discard === true && {
          max_discard_sectors: Number(properties["max-discard-sectors"]),
          max_discard_seg: 1,
          discard_sector_alignment: block / SECTOR,
        },
        ...properties["write-zeroes"] === true && {
          max_write_zeroes_sectors: Number(properties["max-write-zeroes-sectors"]),
          max_write_zeroes_seg: 1,
          write_zeroes_may_unmap: 1,
        },
      }).bytes;
    };

    const ringAll = () => context.doorbells.forEach((doorbell) => doorbell.ring());

    return {
      handleQueue: (index) => requests.serve(index),
      // A request has waited long enough.
      timer: ringAll,
      limitsChanged: ringAll,
      readConfig(offset, size) {
        return readLittleEndian(describe(), offset, size);
      },
      writeConfig(offset, size, value) {
        // The only field that a driver may write (5.2.5.2).
        if (offset !== config.offsets.writeback || size !== 1) return;
        if (virtio.hasFeature(BlkFeature.CONFIG_WCE)) state.writeback = Number(value !== 0);
      },
      reset() {
        state.writeback = Number(properties.writeback === true);
        context.timers[0].arm(0n);
      },
      restored() {
        state.writeback &= 1;
      },
    };
  },
});
