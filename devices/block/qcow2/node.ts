/**
 * qcow2 nodes as the main thread has them.
 *
 * @module
 */
import type { OwnedFd } from "../../../ffi/fd.ts";
import type { FdRequirement } from "../../../ffi/fd_requirement.ts";
import { addSeals, makeMemfd, type MappedRegion, mapShared, Seal } from "../../../ffi/memory.ts";
import type { Qcow2NodeConfig } from "../config.ts";
import type { DiskDescription } from "../disk.ts";
import { BaseNode, type BlockNode } from "../node.ts";
import { openQcow2 } from "../open_image.ts";
import { noPermissions, Permission } from "../permissions.ts";
import { partSize, SHARED_SIZE, SharedWord } from "../words.ts";
import { check, type CheckResult, type Fix, repair } from "./check.ts";
import { CompressedWriter } from "./compressed_writer.ts";
import { Incompatible, type Qcow2Format } from "./format.ts";
import type { Qcow2Image } from "./image.ts";
import type { Qcow2Description } from "./layer.ts";
import type { Found } from "./mapping.ts";
import { Field, METADATA_SIZE } from "./metadata.ts";
import { readFormat } from "./open.ts";
import { resizeQcow2 } from "./resize.ts";
import { applySnapshot, createSnapshot, deleteSnapshot } from "./snapshot_change.ts";
import { readSnapshots, type Snapshot } from "./snapshots.ts";

/** What the memory with an image's tables must be that a predecessor passes. */
export const tablesRequirement: FdRequirement = {
  kind: "file",
  bytes: METADATA_SIZE,
  sealed: true,
  writable: true,
};

/** `qcow2` */
export class Qcow2Node extends BaseNode {
  readonly config: Qcow2NodeConfig;
  override readonly child: BlockNode;
  readonly backing: BlockNode | undefined;
  readonly description: DiskDescription;
  readonly snapshots: readonly Snapshot[];
  /** What its header said when it was opened. */
  readonly format: Qcow2Format;
  readonly #memfd: OwnedFd;
  readonly #region: MappedRegion;
  readonly #image: Qcow2Image;
  /** Who writes to the image, if it is this VMM. */
  readonly #owner = Math.floor(Math.random() * (Number.MAX_SAFE_INTEGER - 1)) + 1;
  #away: boolean;
  #compressed: CompressedWriter | undefined;

  /**
   * @param child the node with its bytes
   * @param backing the node that shows where it has nothing
   * @param kept its tables in memory, which a predecessor still uses, until the guest is here
   * @param waits whether its file is a predecessor's until {@linkcode takeOver}
   * @throws {Error} in QEMU's words if it is no image
   */
  constructor(
    config: Qcow2NodeConfig,
    child: BlockNode,
    backing: BlockNode | undefined,
    kept: OwnedFd | undefined,
    waits: boolean,
  ) {
    super();
    this.config = config;
    this.child = child;
    this.backing = backing;
    this.#memfd = kept ?? makeTables(config.nodeName);
    this.#away = waits && !kept;
    try {
      this.format = readFormat(child);
      this.#refuseWriting();
      this.#use();
      this.#region = mapShared(this.#memfd.fd, METADATA_SIZE);
    } catch (error) {
      this.#stopUsing();
      this.#memfd.close();
      throw error;
    }
    try {
      const { description, snapshots } = this.#describe();
      this.description = description;
      this.snapshots = snapshots;
      this.#image = openQcow2(description.image as Qcow2Description);
      const { metadata } = this.#image.layer;
      if (kept) metadata.checkKept(this.format, config.nodeName);
      else this.#load(this.format);
      this.measure();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get readOnly(): boolean {
    return this.config.readOnly || this.child.readOnly;
  }

  get filename(): string {
    return this.child.filename;
  }

  get allocated(): number | undefined {
    return this.child.allocated;
  }

  /** The memory with its tables, which a successor gets. */
  get tables(): number {
    return this.#memfd.fd;
  }

  /** Whether something was found in which it contradicts itself. */
  get corrupt(): boolean {
    return this.format.corrupt || this.#image?.layer.metadata.fields[Field.FAILED] !== 0;
  }

  /** In what it contradicts itself, if that was found, and nobody has asked before. */
  takeFailure(): string | undefined {
    return this.#image.layer.metadata.takeFailure();
  }

  /** Looks how large the disk is by now. */
  measure(): void {
    const size = this.#image.layer.metadata.fields[Field.SIZE];
    Atomics.store(new BigInt64Array(this.description.shared), SharedWord.SIZE, BigInt(size));
  }

  /** The guest is about to be here: the file, if it was another program's, is read again. */
  arrive(): void {
    if (this.#away) {
      this.#away = false;
      try {
        this.#load(readFormat(this.child));
      } catch (error) {
        this.#away = true;
        throw error;
      }
    }
    this.measure();
  }

  /** The guest is here: what is newer than the file is this VMM's to write. */
  takeOver(): void {
    if (!this.readOnly) this.#image.layer.metadata.fields[Field.OWNER] = this.#owner;
  }

  /** Whether the image is another program's, which finds all of it in its file. */
  get away(): boolean {
    return this.#away;
  }

  /** Writes all that is newer than the file, which another program reads next. @throws {Error} */
  letGo(): void {
    if (this.#away) return;
    this.#settle();
    this.#away = true;
  }

  /** Lets go of it whatever happens: the guest has not written to it since {@linkcode arrive}. */
  abandon(): void {
    this.#settleOrSay();
    this.#away = true;
  }

  resize(size: number): void {
    if (this.readOnly) throw new Error("Image is read-only");
    resizeQcow2(this.#image, size, this.backing && partSize(this.backing.description));
    this.measure();
  }

  /**
   * Looks where the disk's bytes are from an offset on.
   *
   * @param length how many are asked about
   * @returns what the first of them are, and how many go together
   * @throws {Error} if the image contradicts itself there
   */
  extent(offset: number, length: number): { readonly found: Found; readonly length: number } {
    return this.#must(() => {
      const extent = this.#image.extent(offset, length);
      return { found: { ...extent.found }, length: extent.length };
    });
  }

  /**
   * Compares refcounts with what is used, while nobody uses the image.
   *
   * @param report is called with each thing that is wrong, in QEMU's words
   * @throws {Error} if it cannot be read, or written
   */
  check(fix: Fix, report: (text: string) => void): CheckResult {
    const { layer } = this.#image;
    return this.#must(() => {
      const result = check(layer, this.snapshots, fix, report);
      const isRight = result.corruptions === 0 || fix === "all";
      if (fix !== "none" && isRight) {
        layer.setIncompatible(Incompatible.DIRTY | Incompatible.CORRUPT, false);
      }
      return result;
    });
  }

  /**
   * Makes a snapshot, while nobody uses the image.
   *
   * @throws {Error} if there is no room for it
   */
  createSnapshot(name: string): void {
    const now = BigInt(Date.now()) * 1_000_000n;
    this.#must(() => createSnapshot(this.#image.layer, this.snapshots, name, now));
  }

  /** Lets the disk be as it was when a snapshot was made, while nobody uses the image. @throws {Error} */
  applySnapshot(snapshot: Snapshot): void {
    this.#must(() => applySnapshot(this.#image.layer, snapshot));
    this.measure();
  }

  /** Deletes a snapshot, while nobody uses the image. @throws {Error} */
  deleteSnapshot(snapshot: Snapshot): void {
    this.#must(() => deleteSnapshot(this.#image.layer, this.snapshots, snapshot));
  }

  /**
   * Writes a compressed cluster, while nobody else writes to the image.
   *
   * @param offset of the cluster in the disk
   * @param bytes of it; what is not there is zeros
   * @returns false if it would not be smaller: it is to be written as it is
   * @throws {Error} if it cannot be written
   */
  writeCompressed(offset: number, bytes: Uint8Array<ArrayBuffer>): boolean {
    const writer = this.#compressed ??= new CompressedWriter(this.#image.layer);
    return this.#must(() => writer.write(offset, bytes));
  }

  /**
   * Gives every cluster of a disk in which nothing is yet a place in the file.
   *
   * @returns bytes of the file that has all of them: it is to be as long
   * @throws {Error} if there is no room
   */
  allocateAll(): number {
    return this.#must(() => this.#image.allocateAll());
  }

  /** Lets what is behind the image show everywhere. @throws {Error} if it cannot be written */
  makeEmpty(): void {
    this.#must(() => this.#image.makeEmpty());
  }

  #must<T>(action: () => T): T {
    let result: T | undefined;
    let failure: unknown;
    const error = this.#image.run(() => {
      try {
        result = action();
      } catch (error) {
        failure = error;
        throw error;
      }
    });
    if (error === 0) return result!;
    const reason = failure instanceof Error ? failure.message : "it is marked as corrupt";
    throw new Error(`Image '${this.filename}': ${reason}`);
  }

  /** Lets a guest's requests do without locks of its own: the file's are the image's. */
  protected lock(): void {}

  close(): void {
    this.#settleOrSay();
    this.#stopUsing();
    this.#region.close();
    this.#memfd.close();
  }

  #settleOrSay(): void {
    try {
      if (!this.#away) this.#settle();
    } catch (error) {
      console.error(`Block node '${this.config.nodeName}': ${(error as Error).message}`);
    }
  }

  #settle(): void {
    const { layer } = this.#image ?? {};
    if (!layer || layer.metadata.fields[Field.OWNER] !== this.#owner) return;
    const error = this.#image.run(() => layer.settle());
    if (error < 0 && layer.metadata.fields[Field.FAILED] === 0) {
      throw new Error(`Tables of the image '${this.filename}' cannot be written (errno ${-error})`);
    }
  }

  #load(format: Qcow2Format): void {
    const { layer } = this.#image;
    layer.metadata.begin(format, partSize(this.child.description));
    if (this.#away || this.readOnly) return;
    layer.metadata.fields[Field.OWNER] = this.#owner;
    if (this.config.check) return;
    this.#must(() => {
      if (format.dirty) {
        repair(layer, this.snapshots);
        layer.setIncompatible(Incompatible.DIRTY, false);
      }
      layer.clearAutoclear();
    });
  }

  #refuseWriting(): void {
    if (this.readOnly) return;
    if (this.format.corrupt && !this.config.check) {
      throw new Error("qcow2: Image is corrupt; cannot be opened read/write");
    }
    if (this.format.bitmaps) {
      throw new Error(
        `qcow2: '${this.filename}' has dirty bitmaps, which a writer would have to keep: ` +
          "use read-only=on, or remove them with 'qemu-img bitmap --remove'",
      );
    }
  }

  /** Says what it does to what it is made of. */
  #use(): void {
    const { CONSISTENT_READ, WRITE, RESIZE } = Permission;
    const unshared = WRITE | RESIZE;
    const used = CONSISTENT_READ | (this.readOnly ? 0 : WRITE | RESIZE);
    this.child.base.setUser(this.#user, { used, unshared });
    this.backing?.base.setUser(this.#user, { used: CONSISTENT_READ, unshared });
  }

  #stopUsing(): void {
    this.child.base.setUser(this.#user, noPermissions);
    this.backing?.base.setUser(this.#user, noPermissions);
  }

  get #user(): string {
    return `node '${this.config.nodeName}'`;
  }

  #describe(): { description: DiskDescription; snapshots: readonly Snapshot[] } {
    const { nodeName, discard, detectZeroes, cache } = this.config;
    const { child, backing, format } = this;
    const storage = child.description;
    const noFlush = cache.noFlush || storage.noFlush;
    const canGrow = storage.image.kind === "file" && storage.size === undefined;
    const image = {
      kind: "qcow2",
      format,
      storage: { ...storage, noFlush },
      ...!canGrow && { limit: partSize(storage) },
      ...backing && { backing: backing.description },
      metadata: this.#region.address,
      snapshotTables: [],
      discard: discard === "unmap" && storage.discard === "unmap",
      mutex: new SharedArrayBuffer(4),
    } as const;
    const { snapshots, tables } = readSnapshots(openQcow2(image).layer.storage, format);
    const description = {
      ...{ nodeName, discard, detectZeroes, noFlush, offset: 0 },
      readOnly: this.readOnly,
      image: { ...image, snapshotTables: tables },
      shared: new SharedArrayBuffer(SHARED_SIZE),
    };
    return { description, snapshots };
  }
}

/** Memory for tables that nobody can take away from under a mapping. */
function makeTables(nodeName: string): OwnedFd {
  const memfd = makeMemfd(`qcow2-${nodeName}`.slice(0, 200), METADATA_SIZE, { sealing: true });
  addSeals(memfd.fd, Seal.SHRINK | Seal.GROW);
  return memfd;
}
