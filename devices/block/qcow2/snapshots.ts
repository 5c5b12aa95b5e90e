/**
 * The snapshots in a qcow2 image, as its table tells of them.
 *
 * @module
 */
import { clusterSize, type Qcow2Format, type Range, readU64 } from "./format.ts";
import { CorruptImage, type Storage } from "./storage.ts";

/** One snapshot. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  /** Entries. */
  readonly l1Size: number;
  /** When it was taken, seconds since 1970. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** What the guest's clock said, in nanoseconds. */
  readonly vmClockNs: bigint;
  /** Bytes of the machine's saved state. */
  readonly vmStateSize: number;
  /** Bytes of the guest's disk. */
  readonly diskSize: number;
  /** How many instructions the guest had executed, where that was counted. */
  readonly icount?: bigint;
  /** Its entry in the table, as it is in the file. */
  readonly raw: Uint8Array<ArrayBuffer>;
}

const HEADER_SIZE = 40;
/** The most bytes of each part, as QEMU has it. */
const MAX_EXTRA = 1024;
const MAX_TABLE = 64 << 20;
const MAX_L1_BYTES = 32 << 20;

/** Reads the table of snapshots. @throws {Error} if it makes no sense */
export function readSnapshots(
  storage: Storage,
  format: Qcow2Format,
): { readonly snapshots: readonly Snapshot[]; readonly tables: readonly Range[] } {
  const snapshots: Snapshot[] = [];
  const tables: Range[] = [];
  let at = format.snapshotsOffset;
  for (let i = 0; i < format.snapshots; i++) {
    const { snapshot, end } = readSnapshot(storage, format, at);
    snapshots.push(snapshot);
    tables.push({
      what: "inactive L1 table",
      offset: snapshot.l1Offset,
      length: snapshot.l1Size * 8,
    });
    at = end;
    if (at - format.snapshotsOffset > MAX_TABLE) throw new CorruptImage("Snapshot table too large");
  }
  const length = at - format.snapshotsOffset;
  if (length > 0) tables.push({ what: "snapshot table", offset: format.snapshotsOffset, length });
  return { snapshots, tables };
}

function readSnapshot(
  storage: Storage,
  format: Qcow2Format,
  at: number,
): { snapshot: Snapshot; end: number } {
  const header = storage.loadBytes(at, HEADER_SIZE);
  const view = new DataView(header.buffer);
  const l1Offset = readU64(view, 0, "Snapshot L1 table offset");
  const l1Size = view.getUint32(8);
  const [idLength, nameLength, extraLength] = [
    view.getUint16(12),
    view.getUint16(14),
    view.getUint32(36),
  ];
  if (extraLength > MAX_EXTRA) throw new CorruptImage("Too much extra metadata in snapshot table");
  if (l1Size * 8 > MAX_L1_BYTES) throw new CorruptImage("Snapshot L1 table too large");
  if (l1Offset % clusterSize(format) !== 0) {
    throw new CorruptImage("Snapshot L1 table offset invalid");
  }
  const rest = storage.loadBytes(at + HEADER_SIZE, extraLength + idLength + nameLength);
  const extra = new DataView(rest.buffer, 0, extraLength);
  const text = (from: number, length: number) =>
    new TextDecoder().decode(rest.subarray(from, from + length));
  const size = HEADER_SIZE + extraLength + idLength + nameLength;
  const raw = new Uint8Array(size);
  raw.set(header);
  raw.set(rest, HEADER_SIZE);
  return {
    snapshot: {
      id: text(extraLength, idLength),
      name: text(extraLength + idLength, nameLength),
      ...{ l1Offset, l1Size, raw },
      seconds: view.getUint32(16),
      nanoseconds: view.getUint32(20),
      vmClockNs: view.getBigUint64(24),
      vmStateSize: extraLength >= 8 ? readU64(extra, 0, "VM state size") : view.getUint32(32),
      diskSize: extraLength >= 16 ? readU64(extra, 8, "Snapshot's disk size") : format.size,
      ...extraLength >= 24 && icountOf(extra),
    },
    end: at + Math.ceil(size / 8) * 8,
  };
}

/** All ones where it was not counted. */
function icountOf(extra: DataView): { icount?: bigint } {
  const icount = extra.getBigUint64(16);
  return icount === 2n ** 64n - 1n ? {} : { icount };
}
