/**
 * Changing the size of the disk in a qcow2 image.
 *
 * @module
 */
import { clusterSize, HeaderField, l1EntriesFor, largestSize } from "./format.ts";
import type { Qcow2Image } from "./image.ts";
import type { Qcow2Layer } from "./layer.ts";
import { Field } from "./metadata.ts";

const SECTOR = 512;

/**
 * Changes the size of the disk.
 *
 * @param backingSize bytes of what is behind the image, which must not show where the disk grows
 * @throws {Error} in QEMU's words
 */
export function resizeQcow2(image: Qcow2Image, size: number, backingSize = 0): void {
  const { layer } = image;
  const { format, metadata: { fields } } = layer;
  if (size % SECTOR !== 0) throw new Error(`The new size must be a multiple of ${SECTOR}`);
  if (format.snapshots > 0 && format.version < 3) {
    throw new Error("Can't resize a v2 image which has snapshots");
  }
  if (size > largestSize(format.clusterBits)) throw new Error("Image is too big");
  const old = fields[Field.SIZE];
  const must = (result: number) => {
    if (result < 0) throw new Error(`Failed to resize the image (errno ${-result})`);
  };
  must(image.run(() => growL1(layer, l1EntriesFor(size, format.clusterBits))));
  const shown = Math.min(size, backingSize);
  if (shown > old) must(image.zero(old, shown - old, false));
  if (size < old) must(image.zero(size, old - size, true));
  must(image.run(() => {
    layer.sync();
    const field = new DataView(new ArrayBuffer(8));
    field.setBigUint64(0, BigInt(size));
    layer.storage.storeBytes(new Uint8Array(field.buffer), HeaderField.SIZE);
    layer.storage.barrier();
    fields[Field.SIZE] = size;
  }));
}

/** Makes a larger L1 table if there are not enough entries. */
function growL1(layer: Qcow2Layer, entries: number): void {
  const { metadata, refcounts, regions, storage, format } = layer;
  const { fields } = metadata;
  const old = { offset: fields[Field.L1_OFFSET], size: fields[Field.L1_SIZE] };
  if (entries <= old.size) return;
  const cluster = clusterSize(format);
  const clusters = Math.ceil(entries * 8 / cluster);
  const run = refcounts.allocateTogether(clusters);
  try {
    regions.check(run.first * cluster, clusters * cluster);
    metadata.drop(run.first * cluster, clusters * cluster);
    // The file's table is the one that is copied, and the new one's place is counted.
    layer.settle();
    const table = new Uint8Array(clusters * cluster);
    metadata.copyOut(old.offset, table.subarray(0, old.size * 8));
    storage.storeBytes(table, run.first * cluster);
    storage.barrier();
    const header = new DataView(new ArrayBuffer(12));
    header.setUint32(0, entries);
    header.setBigUint64(4, BigInt(run.first * cluster));
    storage.storeBytes(new Uint8Array(header.buffer), HeaderField.L1_SIZE);
    storage.barrier();
  } catch (error) {
    refcounts.release(run);
    throw error;
  }
  fields[Field.L1_OFFSET] = run.first * cluster;
  fields[Field.L1_SIZE] = entries;
  fields[Field.GENERATION]++;
  const had = Math.ceil(old.size * 8 / cluster);
  metadata.drop(old.offset, had * cluster);
  // Nothing rests on the old table, as the header is on the disk.
  for (let i = 0; i < had; i++) refcounts.put(old.offset / cluster + i, 0);
  if (had > 0) fields[Field.FREE_HINT] = Math.min(fields[Field.FREE_HINT], old.offset / cluster);
}
