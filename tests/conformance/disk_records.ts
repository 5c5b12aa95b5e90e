/**
 * What the guest program `virtio_blk` writes to its disk, seen from outside.
 *
 * @module
 */
import assert from "node:assert/strict";
import { layout } from "../guests/programs.ts";
import { type Qmp, until } from "./program.ts";

const SECTOR = 512;
const MAGIC = 0x64726f636572n;
/** 2⁶⁴ over the golden ratio, as in `virtio_blk.c`. */
const FACTOR = 0x9e37_79b9_7f4a_7c15n;

/** What is in a sector with a record: 0 stands for zeros. */
function sectorWith(record: bigint, sector: number): BigUint64Array {
  const words = new BigUint64Array(SECTOR / 8);
  if (record === 0n) return words;
  // The array cuts each off at 64 bits.
  const word = (i: number) => record * FACTOR + BigInt(sector * 64 + i);
  return words.map((_, i) => word(i)).fill(MAGIC, 0, 1).fill(BigInt(sector), 1, 2)
    .fill(record, 2, 3);
}

/**
 * Fails unless an image has in each sector what a guest that is stopped wrote there last. Sectors that
 * a request is about may have what was there before or what will be, but no other record.
 *
 * @param path the image
 * @param qmp the guest's monitor
 * @returns how many sectors were compared with what the guest knows
 */
export async function assertRecords(path: string, qmp: Qmp): Promise<number> {
  return await assertRecordsIn(Deno.readFileSync(path), qmp);
}

/** The same for a disk's bytes, however they were read. */
export async function assertRecordsIn(
  bytes: Uint8Array<ArrayBuffer>,
  qmp: Qmp,
): Promise<number> {
  const image = new BigUint64Array(bytes.buffer);
  const seen = new Map<bigint, number>();
  let compared = 0;
  for (let sector = 0; sector < layout.diskSectors; sector++) {
    const found = image.subarray(sector * SECTOR / 8, (sector + 1) * SECTOR / 8);
    const record = found[2];
    assert.deepEqual(found, sectorWith(record, sector), `sector ${sector} has part of a record`);
    assert.ok(!seen.has(record), `record ${record} is in sectors ${seen.get(record)}, ${sector}`);
    if (record !== 0n) seen.set(record, sector);
    if (await isBusy(sector, qmp)) continue;
    const wanted = await qmp.word(layout.diskRecords + 8 * sector);
    assert.equal(record, BigInt(wanted), `sector ${sector} has not the last record`);
    compared++;
  }
  assert.ok(seen.size > 10, `there are ${seen.size} records`);
  return compared;
}

async function isBusy(sector: number, qmp: Qmp): Promise<boolean> {
  const text = await qmp.hmp(`xp /1bx 0x${(layout.diskBusy + sector).toString(16)}`);
  return !/ 0x00\s*$/.test(text);
}

/** Fails unless each of the guest's slots goes on: a request that is lost would be its last. */
export async function assertNoneLost(qmp: Qmp): Promise<void> {
  for (let slot = 0; slot < layout.diskSlots; slot++) {
    const address = layout.diskDone + 8 * slot;
    const before = await qmp.word(address);
    await until(
      async () => await qmp.word(address) >= before + 2,
      () => `slot ${slot}, whose request is lost`,
    );
  }
}
