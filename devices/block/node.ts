/**
 * Block nodes as the main thread has them: opened, locked, resized, closed.
 *
 * @module
 */
import { OsError } from "../../ffi/errno.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type {
  BlockNodeCommon,
  BlockNodeConfig,
  FileNodeConfig,
  NullNodeConfig,
  Qcow2NodeConfig,
  RawNodeConfig,
} from "./config.ts";
import { type DiskDescription, diskSize } from "./disk.ts";
import {
  allocatedBytes,
  directAlignment,
  fullName,
  imageSize,
  openImageFile,
  resizeImage,
  usesIoUring,
} from "./file.ts";
import {
  allPermissions,
  changeLocks,
  noPermissions,
  permissionNames,
  type Permissions,
} from "./permissions.ts";
import { SECTOR, SHARED_SIZE, SharedWord } from "./words.ts";

/** A node that a disk can be made of. */
export interface BlockNode {
  readonly config: BlockNodeConfig;
  /** Whether it cannot be written, asked for or not. */
  readonly readOnly: boolean;
  /** The file's name, or a `json:` name for what is no file. */
  readonly filename: string;
  /** What any thread needs to open it. */
  readonly description: DiskDescription;
  /** The node that it is made of. */
  readonly child?: BlockNode;
  /** The node that shows where it has nothing. */
  readonly backing?: BlockNode;
  /** The node at the bottom, whose users must go together. */
  readonly base: BaseNode;
  /** Bytes that it takes on the host, where that is known. */
  readonly allocated: number | undefined;
  /**
   * Changes its size.
   *
   * @throws {Error} in QEMU's words
   */
  resize(size: number): void;
  /** Closes what it has open. */
  close(): void;
}

/** The locks on a node's file, which another VMM may have in its turn. */
export interface ImageLocks {
  /** What a successor gets of them: the descriptor has them. */
  readonly kept: { readonly fd: number } & KeptAs;
  /** Looks how large the file is by now. */
  measure(): void;
  /** Leaves them to others. */
  letGo(): void;
  /** Takes them. @throws {LockedImage} in QEMU's words if others have them */
  hold(): void;
}

/** Another process has an image. */
export class LockedImage extends Error {}

/** What a successor is told of a file that it is handed. */
export interface KeptAs {
  /** What its locks say: they are the open file description's. */
  readonly permissions: Permissions;
  /** Its absolute name; undefined where an older version does not say. */
  readonly filename?: string;
}

/** What was handed over of a file that a predecessor has open. */
export interface KeptFile extends KeptAs {
  readonly file: OwnedFd;
}

/** A node whose users are not those of what it is made of. */
export abstract class BaseNode implements BlockNode {
  abstract readonly config: FileNodeConfig | NullNodeConfig | Qcow2NodeConfig;
  readonly child?: BlockNode;
  abstract readonly readOnly: boolean;
  abstract readonly filename: string;
  abstract readonly description: DiskDescription;
  abstract readonly allocated: number | undefined;
  readonly #users = new Map<string, Permissions>();

  get base(): BaseNode {
    return this;
  }

  /** What all users need. */
  get permissions(): Permissions {
    return allPermissions(this.#users.values());
  }

  /**
   * Changes what one of the users needs; nothing, and it is none any more.
   *
   * @param user what messages call it
   * @throws {Error} in QEMU's words if other users, or other processes, are in the way
   */
  setUser(user: string, permissions: Permissions): void {
    const others = [...this.#users].filter(([name]) => name !== user);
    for (const [name, other] of others) {
      this.#refuseConflict(user, permissions, name, other);
      this.#refuseConflict(name, other, user, permissions);
    }
    this.lock(allPermissions([...others.map(([, other]) => other), permissions]));
    if (permissions.used === 0 && permissions.unshared === 0) this.#users.delete(user);
    else this.#users.set(user, permissions);
  }

  /** Tells other processes what all users together need. @throws {Error} if one is in the way */
  protected abstract lock(permissions: Permissions): void;
  abstract resize(size: number): void;
  abstract close(): void;

  #refuseConflict(user: string, { used }: Permissions, name: string, { unshared }: Permissions) {
    const both = used & unshared;
    if (both === 0) return;
    throw new Error(
      `Permission conflict on node '${this.config.nodeName}': permissions '${
        permissionNames(both)
      }' are both required by ${user} and unshared by ${name}`,
    );
  }
}

/** `file` and `host_device`. */
export class FileNode extends BaseNode implements ImageLocks {
  readonly config: FileNodeConfig;
  readonly readOnly: boolean;
  readonly description: DiskDescription;
  readonly #file: OwnedFd;
  readonly #name: string;
  /** What a predecessor's users need: its locks are this description's, too, and stay. */
  #inherited: Permissions;
  #locked: Permissions;
  #locks: boolean;
  /** Whether the locks are this VMM's to have now. */
  #holds: boolean;

  constructor(config: FileNodeConfig, kept: KeptFile | undefined, waits: boolean) {
    super();
    this.#holds = !waits;
    const { file, driver, readOnly } = openImageFile(
      config,
      kept?.file,
      kept?.filename,
    );
    this.config = { ...config, driver };
    this.#file = file;
    this.#name = fullName(config);
    this.readOnly = readOnly;
    this.#inherited = this.#locked = kept?.permissions ?? noPermissions;
    this.#locks = config.locking !== "off";
    try {
      this.description = this.#describe();
    } catch (error) {
      file.close();
      throw error;
    }
  }

  get filename(): string {
    return this.config.filename;
  }

  get allocated(): number {
    return allocatedBytes(this.#file.fd);
  }

  get kept(): ImageLocks["kept"] {
    return {
      fd: this.#file.fd,
      permissions: this.#locked,
      filename: this.#name,
    };
  }

  protected lock(permissions: Permissions): void {
    if (this.#holds) this.#change(allPermissions([this.#inherited, permissions]));
  }

  measure(): void {
    setSize(this.description.shared, imageSize(this.#file.fd, this.config.driver));
  }

  letGo(): void {
    this.#inherited = noPermissions;
    this.#change(noPermissions);
    this.#holds = false;
  }

  hold(): void {
    this.#change(allPermissions([this.#inherited, this.permissions]));
    this.#holds = true;
  }

  #change(after: Permissions): void {
    if (!this.#locks) return;
    try {
      const reason = changeLocks(this.#file.fd, this.#locked, after);
      if (reason !== undefined) {
        throw new LockedImage(
          `${reason}\nIs another process using the image [${this.filename}]?`,
        );
      }
      this.#locked = after;
    } catch (error) {
      if (!(error instanceof OsError) || this.config.locking === "on") throw error;
      // There are no locks on this file system.
      this.#locks = false;
    }
  }

  resize(size: number): void {
    if (this.readOnly) throw new Error("Image is read-only");
    resizeImage(this.#file.fd, this.config, size);
    this.measure();
  }

  close(): void {
    this.#file.close();
  }

  #describe(): DiskDescription {
    const { nodeName, cache, discard, detectZeroes, driver } = this.config;
    const { fd } = this.#file;
    const shared = new SharedArrayBuffer(SHARED_SIZE);
    setSize(shared, imageSize(fd, driver));
    return {
      nodeName,
      readOnly: this.readOnly,
      discard,
      detectZeroes,
      image: {
        kind: driver === "file" ? "file" : "device",
        fd,
        alignment: cache.direct ? directAlignment(fd, driver) : 1,
        mutex: new SharedArrayBuffer(4),
        uring: usesIoUring(this.config),
      },
      offset: 0,
      noFlush: cache.noFlush,
      shared,
    };
  }
}

/** `null-co` */
export class NullNode extends BaseNode {
  readonly config: NullNodeConfig;
  readonly description: DiskDescription;
  readonly allocated = 0;

  constructor(config: NullNodeConfig) {
    super();
    this.config = config;
    const { nodeName, readOnly, discard, detectZeroes, cache, readZeroes, size } = config;
    const shared = new SharedArrayBuffer(SHARED_SIZE);
    setSize(shared, size);
    this.description = {
      nodeName,
      readOnly,
      discard,
      detectZeroes,
      image: { kind: "null", readZeroes },
      offset: 0,
      noFlush: cache.noFlush,
      shared,
    };
  }

  get readOnly(): boolean {
    return this.config.readOnly;
  }

  get filename(): string {
    const { size, readZeroes } = this.config;
    const options = { driver: "null-co", size, ...readZeroes && { "read-zeroes": true } };
    return jsonName(options);
  }

  protected lock(): void {}

  resize(): never {
    throw new Error("Image format driver does not support resize");
  }

  close(): void {}
}

/** The disk behind a node that passes requests on to another one: both have a say. */
export function describeAbove(
  { nodeName, readOnly, discard, detectZeroes, cache }: BlockNodeCommon,
  child: BlockNode,
): DiskDescription {
  const { description } = child;
  return {
    ...description,
    nodeName,
    readOnly: readOnly || child.readOnly,
    discard: discard === "unmap" ? description.discard : "ignore",
    detectZeroes: detectZeroes === "off" ? description.detectZeroes : detectZeroes,
    noFlush: cache.noFlush || description.noFlush,
  };
}

/** `raw` */
export class RawNode implements BlockNode {
  readonly config: RawNodeConfig;
  readonly child: BlockNode;
  readonly description: DiskDescription;

  constructor(config: RawNodeConfig, child: BlockNode) {
    this.config = config;
    this.child = child;
    checkPart(config, diskSize(child.description));
    const { offset, size = remaining(child, offset) } = config;
    const description = describeAbove(config, child);
    this.description = { ...description, offset: description.offset + offset, size };
  }

  get readOnly(): boolean {
    return this.config.readOnly || this.child.readOnly;
  }

  get base(): BaseNode {
    return this.child.base;
  }

  get filename(): string {
    const { offset, size } = this.config;
    if (offset === 0 && size === undefined) return this.child.filename;
    const { driver } = this.child.config;
    const file = { driver, filename: this.child.filename };
    return jsonName({ driver: "raw", offset, ...size !== undefined && { size }, file });
  }

  get allocated(): number | undefined {
    return this.child.allocated;
  }

  resize(size: number): void {
    if (this.config.size !== undefined) throw new Error("Cannot resize fixed-size raw disks");
    if (this.readOnly) throw new Error("Image is read-only");
    this.child.resize(this.config.offset + size);
  }

  close(): void {}
}

/** What is left of a part of fixed size; all the rest of an image grows with it. */
function remaining({ description: { size } }: BlockNode, offset: number): number | undefined {
  return size === undefined ? undefined : size - offset;
}

function checkPart({ offset, size }: RawNodeConfig, whole: number): void {
  if (offset > whole) {
    throw new Error(
      `Offset (${offset}) cannot be greater than size of the containing file (${whole})`,
    );
  }
  if (size !== undefined && offset + size > whole) {
    throw new Error(
      `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the ` +
        ` actual size of the containing file (${whole})`,
    );
  }
  if (size !== undefined && size % SECTOR !== 0) {
    throw new Error(`Specified size is not multiple of ${SECTOR}`);
  }
}

/** QEMU's name for a node that no file name describes. */
export function jsonName(options: Readonly<Record<string, unknown>>): string {
  return `json:${spaced(options)}`;
}

/** JSON with the spaces that QEMU writes. */
function spaced(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(([name, one]) => `${spaced(name)}: ${spaced(one)}`);
  return `{${members.join(", ")}}`;
}

function setSize(shared: SharedArrayBuffer, size: number): void {
  Atomics.store(new BigInt64Array(shared), SharedWord.SIZE, BigInt(size));
}
