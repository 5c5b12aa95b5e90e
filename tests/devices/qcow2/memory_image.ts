/** qcow2 images in this process's memory, of which it is known what a power cut would leave. */
import assert from "node:assert/strict";
import type { Image } from "../../../devices/block/image.ts";
import { check, type CheckResult, repair } from "../../../devices/block/qcow2/check.ts";
import { type CreateOptions, createQcow2 } from "../../../devices/block/qcow2/create.ts";
import { Qcow2Image } from "../../../devices/block/qcow2/image.ts";
import { METADATA_SIZE } from "../../../devices/block/qcow2/metadata.ts";
import { readFormatOf } from "../../../devices/block/qcow2/open.ts";
import { readSnapshots } from "../../../devices/block/qcow2/snapshots.ts";
import { Storage } from "../../../devices/block/qcow2/storage.ts";
import { Errno } from "../../../ffi/errno.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../../ffi/memory.ts";
import type { Dice } from "./testing.ts";

interface Write {
  readonly offset: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A file in memory. It fails when it would grow beyond its limit, which no sane image does. */
export class MemoryFile implements Image {
  #bytes: Uint8Array<ArrayBuffer>;
  #size: number;
  /** What would be left by a power cut in any case. */
  #stable: Uint8Array<ArrayBuffer>;
  /** Writes since, of which any may be left. */
  #writes: Write[] = [];
  /** Called after each write and flush. */
  onChange: () => void = () => {};

  constructor(readonly limit: number, content: Uint8Array<ArrayBuffer> = new Uint8Array()) {
    this.#bytes = new Uint8Array(limit);
    this.#bytes.set(content);
    this.#size = content.length;
    this.#stable = content.slice();
  }

  get content(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#size);
  }

  /** What a power cut leaves: what was flushed, and some of the rest in parts of 512 bytes. */
  afterPowerCut(dice: Dice): Uint8Array<ArrayBuffer> {
    const left = new Uint8Array(this.limit);
    left.set(this.#stable);
    let size = this.#stable.length;
    const odds = dice.below(4);
    for (const { offset, data } of this.#writes) {
      for (let at = 0; at < data.length; at += 512) {
        if (dice.below(4) < odds) continue;
        const part = data.subarray(at, at + 512);
        left.set(part, offset + at);
        size = Math.max(size, offset + at + part.length);
      }
    }
    return left.slice(0, size);
  }

  read(vector: IoVector, offset: number): number {
    while (vector.length > 0) {
      const length = Math.min(vector.length, 1 << 20);
      const part = offset >= this.limit
        ? new Uint8Array(length)
        : this.#bytes.slice(offset, offset + length);
      const n = vector.copyIn(part.length < length ? grown(part, length) : part);
      if (n < 0) return n;
      vector.skip(n);
      offset += n;
    }
    return 0;
  }

  write(vector: IoVector, offset: number): number {
    if (offset + vector.length > this.limit) return -Errno.ENOSPC;
    const data = new Uint8Array(vector.length);
    const n = vector.copyOut(data);
    if (n < 0) return n;
    vector.skip(n);
    this.#bytes.set(data, offset);
    this.#size = Math.max(this.#size, offset + data.length);
    this.#writes.push({ offset, data });
    this.onChange();
    return 0;
  }

  flush(): number {
    this.#stable = this.content;
    this.#writes = [];
    this.onChange();
    return 0;
  }

  discard(): number {
    return 0;
  }

  zero(): number {
    return -Errno.EOPNOTSUPP;
  }
}

function grown(bytes: Uint8Array<ArrayBuffer>, length: number): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(length);
  all.set(bytes);
  return all;
}

/** A new image. */
export function newImage(limit: number, options: Partial<CreateOptions> & { size: number }) {
  const file = new MemoryFile(limit);
  createQcow2(new Storage(file, 0, undefined, false), {
    ...{ version: 3, clusterBits: 9, refcountOrder: 4, compression: "zlib", lazyRefcounts: false },
    ...options,
  });
  return file;
}

/** An image that is open. */
export class MemoryDisk implements Disposable {
  readonly image: Qcow2Image;
  readonly size: number;
  readonly #tables: MappedRegion = mapAnonymous(METADATA_SIZE);
  readonly #memory: MappedRegion = mapAnonymous(1 << 20);
  readonly #vector = new IoVector(1);

  /** @throws {Error} if it is no image that can be opened */
  constructor(readonly file: MemoryFile) {
    try {
      const storage = new Storage(file, 0, undefined, false);
      const format = readFormatOf(storage);
      this.size = format.size;
      const shared = new SharedArrayBuffer(64);
      const part = {
        image: { kind: "null", readZeroes: true },
        ...{ offset: 0, shared, noFlush: false },
      } as const;
      const { snapshots, tables } = readSnapshots(storage, format);
      this.image = new Qcow2Image(
        {
          ...{ kind: "qcow2", format, storage: part, discard: false, snapshotTables: tables },
          metadata: this.#tables.address,
          mutex: new SharedArrayBuffer(4),
        },
        storage,
        undefined,
      );
      this.image.layer.metadata.begin(format, file.content.length);
      if (format.dirty) this.image.run(() => repair(this.image.layer, snapshots));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  write(offset: number, data: Uint8Array<ArrayBuffer>): number {
    this.#memory.write(0, data);
    return this.image.write(this.#piece(data.length), offset);
  }

  read(offset: number, length: number): Uint8Array<ArrayBuffer> | number {
    const error = this.image.read(this.#piece(length), offset);
    return error < 0 ? error : this.#memory.read(0, length);
  }

  /** Checks it, with what is not yet in the file. */
  check(report: (text: string) => void = () => {}, fix: "none" | "all" = "none"): CheckResult {
    let result: CheckResult | undefined;
    const { layer } = this.image;
    const { snapshots } = readSnapshots(layer.storage, layer.format);
    assert.equal(this.image.run(() => result = check(layer, snapshots, fix, report)), 0);
    return result!;
  }

  [Symbol.dispose](): void {
    this.#tables.close();
    this.#memory.close();
  }

  #piece(length: number): IoVector {
    this.#vector.clear();
    this.#vector.push(this.#memory.address, length);
    return this.#vector;
  }
}
