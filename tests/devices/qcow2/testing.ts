/** Images for tests, a model of what they must hold, and Debian's qemu-img to ask about them. */
import assert from "node:assert/strict";
import { Disk } from "../../../devices/block/disk.ts";
import { parseBlockdev } from "../../../vmm/options/blockdev.ts";
import { BlockSet } from "../../../vmm/block_set.ts";
import { openBase } from "../../../devices/block/image.ts";
import { type CreateOptions, createQcow2 } from "../../../devices/block/qcow2/create.ts";
import { Storage } from "../../../devices/block/qcow2/storage.ts";
import { openQcow2 } from "../../../devices/block/open_image.ts";
import { check, type CheckResult, type Fix } from "../../../devices/block/qcow2/check.ts";
import { readSnapshots } from "../../../devices/block/qcow2/snapshots.ts";
import { O, openFile } from "../../../ffi/fd.ts";
import { IoVector } from "../../../ffi/iovec.ts";
import { mapAnonymous, type MappedRegion } from "../../../ffi/memory.ts";

/** Whether Debian's qemu-utils are here. */
export const hasQemuImg: boolean = await (async () => {
  try {
    return (await new Deno.Command("qemu-img", { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
})();

/** Runs qemu-img. */
export async function qemuImg(...args: string[]): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await new Deno.Command("qemu-img", { args }).output();
  const text = [stdout, stderr].map((one) => new TextDecoder().decode(one)).join("");
  return { code, text };
}

/** Runs qemu-img, which must succeed. */
export async function qemuImgOk(...args: string[]): Promise<string> {
  const { code, text } = await qemuImg(...args);
  assert.equal(code, 0, `qemu-img ${args.join(" ")}: ${text}`);
  return text;
}

/** Numbers that look random and are the same each time (a 32-bit xorshift). */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 88675123) >>> 0 || 1;
  }

  /** A number from 0 on that is less than `end`. */
  below(end: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return Math.floor(this.#state / 2 ** 32 * end);
  }
}

/** Writes a new image to a file. */
export function create(path: string, options: Partial<CreateOptions> & { size: number }): void {
  using file = openFile(path, O.RDWR | O.CREAT | O.TRUNC, 0o600);
  const image = openBase({
    ...{ kind: "file", fd: file.fd, alignment: 1, uring: false },
    mutex: new SharedArrayBuffer(4),
  });
  createQcow2(new Storage(image, 0, undefined, true), {
    ...{ version: 3, clusterBits: 16, refcountOrder: 4, compression: "zlib", lazyRefcounts: false },
    ...options,
  });
}

/** An open image, and memory to read and write it by. */
export class OpenImage implements Disposable {
  readonly set = new BlockSet();
  readonly disk: Disk;
  readonly memory: MappedRegion = mapAnonymous(4 << 20);
  readonly #vector = new IoVector();

  /** @param options of the node, besides its file */
  constructor(path: string, options: Record<string, unknown> = {}, file = {}) {
    try {
      this.set.open(
        parseBlockdev({
          driver: "qcow2",
          "node-name": "disk",
          file: { driver: "file", filename: path, ...file },
          ...options,
        }),
        [],
      );
      this.disk = new Disk(this.set.nodes[0].description);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    assert.equal(this.disk.read(this.#pieces(length), offset), 0);
    return this.memory.read(0, length);
  }

  write(offset: number, data: Uint8Array<ArrayBuffer>): number {
    this.memory.write(0, data);
    return this.disk.write(this.#pieces(data.length), offset);
  }

  /** Pieces of memory, of sizes that are no powers of two. */
  #pieces(length: number): IoVector {
    this.#vector.clear();
    for (let at = 0, size = 512; at < length; at += size, size = size * 3 % 7168 + 512) {
      this.#vector.push(this.memory.address + at, Math.min(size, length - at));
    }
    return this.#vector;
  }

  [Symbol.dispose](): void {
    this.set.close();
    this.memory.close();
  }
}

/** Checks an image that is open. */
export function checkImage(
  { disk }: OpenImage,
  report: (text: string) => void = () => {},
  fix: Fix = "none",
): CheckResult {
  const { image } = disk.description;
  assert.ok(image.kind === "qcow2");
  const { layer } = openQcow2(image);
  const { snapshots } = readSnapshots(layer.storage, layer.format);
  layer.settle();
  return check(layer, snapshots, fix, report);
}

/** What an image must hold: it is written along with it. */
export class Model {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #dice: Dice;

  constructor(size: number, seed: number) {
    this.bytes = new Uint8Array(size);
    this.#dice = new Dice(seed);
  }

  /** Bytes that are not zeros. */
  data(length: number): Uint8Array<ArrayBuffer> {
    const seed = this.#dice.below(255);
    return Uint8Array.from({ length }, (_, i) => 1 + (seed + i * 7) % 255);
  }

  /** A range of sectors. */
  range(most: number): { offset: number; length: number } {
    const sectors = this.bytes.length / 512;
    const first = this.#dice.below(sectors);
    const length = 1 + this.#dice.below(Math.min(most / 512, sectors - first));
    return { offset: first * 512, length: length * 512 };
  }

  /** Does something to the image and to itself. */
  step(image: OpenImage, most = 1 << 17): void {
    const what = this.#dice.below(20);
    const { offset, length } = this.range(most);
    if (what < 12) {
      const data = this.data(length);
      assert.equal(image.write(offset, data), 0);
      this.bytes.set(data, offset);
    } else if (what < 15) {
      assert.equal(image.disk.writeZeroes(offset, length, what === 13), 0);
      this.bytes.fill(0, offset, offset + length);
    } else if (what < 16) {
      assert.equal(image.disk.flush(), 0);
    } else {
      assert.deepEqual(image.read(offset, length), this.bytes.slice(offset, offset + length));
    }
  }

  /** Fails unless the image holds what it must. */
  assertHeld(image: OpenImage, what = ""): void {
    const step = 1 << 20;
    for (let at = 0; at < this.bytes.length; at += step) {
      const length = Math.min(step, this.bytes.length - at);
      const [is, must] = [image.read(at, length), this.bytes.subarray(at, at + length)];
      const first = is.findIndex((byte, i) => byte !== must[i]);
      assert.equal(first, -1, `${what}: byte ${at + first} differs`);
    }
  }
}

/** Runs `use` with a folder that is removed afterwards. */
export async function withFolder(use: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = Deno.makeTempDirSync();
  try {
    await use(folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
