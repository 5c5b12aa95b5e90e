/**
 * The VM's disks as the host has them: block nodes by name, drives by id, and who uses them.
 *
 * A file's descriptor is handed to a successor, and with it its locks, which belong to the open file
 * description: between two VMMs there is no moment in which a third process could take them.
 *
 * @module
 */
import type {
  BlockNodeConfig,
  DriveConfig,
  DriveThrottle,
  Qcow2NodeConfig,
} from "../devices/block/config.ts";
import type { AttachedDisk } from "../devices/block/disk.ts";
import { type BlockNode, type ImageLocks, LockedImage } from "../devices/block/node.ts";
import { locksOf, openNode } from "../devices/block/open_node.ts";
import { diskPermissions, noPermissions, Permission } from "../devices/block/permissions.ts";
import { Qcow2Node, tablesRequirement } from "../devices/block/qcow2/node.ts";
import { backingNodes, readFormat } from "../devices/block/qcow2/open.ts";
import type { ThrottleLimits } from "../devices/block/throttle.ts";
import { type BlockCorruption, findCorruptions } from "./block_corruptions.ts";
import { checkThrottleNode, describeLimits, groupOf, ownGroupOf } from "./block_limits.ts";
import { type DiskError, DiskStatistics, STATISTICS_SIZE } from "../devices/block/statistics.ts";
import type { ThrottleGroupConfig } from "./config.ts";
import {
  describeKey,
  type HandedFd,
  type HandedValue,
  type Handover,
  type Inheritance,
  type Keeper,
} from "./inheritance.ts";
import { BLOCK, encodeKept, takeKept } from "./kept_image.ts";
import { ThrottleSet } from "./throttle_set.ts";

/** What the memory with an image's tables is handed over as. */
const TABLES = "block/tables";

/** How a device uses a disk. */
export interface DiskUser {
  /** What messages call the device: its id, or its place in the machine. */
  readonly device: string;
  /** Whether others may write to the disk as well. */
  readonly shareWrites: boolean;
}

/** A drive, or a node that a device uses without one (QEMU's BlockBackend). */
export interface BlockBackend {
  /** Empty for a node without a drive. */
  readonly drive: DriveConfig | undefined;
  readonly node: BlockNode | undefined;
  readonly user: DiskUser | undefined;
  /** Its limits, if it has any. */
  readonly throttle: DriveThrottle | undefined;
  readonly statistics: DiskStatistics;
}

/** All images, or those whose files are not handed over. */
type Images = "all" | "not kept";

/** An error that the host has had with a guest's request, and the disk. */
export interface BlockError extends DiskError {
  /** The device's place in the machine. */
  readonly qomPath: string;
  /** The drive's id; empty for a node without one. */
  readonly drive: string;
  readonly nodeName: string;
}

/** Nodes and drives. */
export class BlockSet implements Keeper {
  readonly #nodes = new Map<string, BlockNode>();
  readonly #drives = new Map<string, DriveConfig>();
  /** By the name that devices know a disk by. */
  readonly #attached = new Map<string, { readonly user: DiskUser; readonly disk: AttachedDisk }>();
  /** Locks that are a predecessor's, until the guest is here. */
  readonly #waiting = new Set<ImageLocks>();
  /** What was taken from a predecessor that may want it back. */
  #claimed: readonly ImageLocks[] = [];
  #arrived: readonly Qcow2Node[] = [];
  /** Nodes whose images were let go of. */
  readonly #left = new Set<BlockNode>();
  /** Their limits. */
  readonly throttles: ThrottleSet = new ThrottleSet();
  readonly #unused = new DiskStatistics(new SharedArrayBuffer(STATISTICS_SIZE));

  /** All nodes, the last to come first, as QEMU lists them. */
  get nodes(): readonly BlockNode[] {
    return [...this.#nodes.values()].reverse();
  }

  /** All drives, then the nodes that devices use without one. */
  get backends(): readonly BlockBackend[] {
    const names = [...this.#drives.keys(), ...this.#attached.keys()];
    return [...new Set(names)].map((name) => {
      const drive = this.#drives.get(name);
      const attached = this.#attached.get(name);
      const node = this.#nodeOf(name, drive);
      return {
        drive,
        node,
        user: attached?.user,
        throttle: describeLimits(name, drive, node, this.throttles),
        statistics: attached ? new DiskStatistics(attached.disk.statistics) : this.#unused,
      };
    });
  }

  /**
   * Opens what the configuration asks for.
   *
   * @param configs nodes, each after the one that it is made of
   * @param inheritance what a predecessor left
   * @param successor whether a predecessor may still have what it has not left
   * @param throttleGroups limits that are objects
   * @throws {Error} in QEMU's words; those opened by then stay open until `close`
   */
  open(
    configs: readonly BlockNodeConfig[],
    drives: readonly DriveConfig[],
    inheritance?: Inheritance,
    successor = false,
    throttleGroups: readonly ThrottleGroupConfig[] = [],
  ): void {
    this.throttles.open(drives, throttleGroups, inheritance);
    if (inheritance) refuseOtherFormats(configs, inheritance);
    for (const config of configs) this.#open(config, inheritance, successor);
    for (const id of [BLOCK, TABLES].flatMap((name) => inheritance?.idsOf(name) ?? [])) {
      throw new Error(
        `The guest has a disk ${describeKey(id, "")} that this VMM has not: give it the old VMM's` +
          " -drive or -blockdev as well",
      );
    }
    for (const drive of drives) this.#addDrive(drive);
  }

  /**
   * Opens nodes that are made of one another, or none of them.
   *
   * @throws {Error} in QEMU's words
   */
  add(configs: readonly BlockNodeConfig[]): void {
    const opened: string[] = [];
    try {
      for (const config of configs) {
        this.#open(config);
        opened.push(config.nodeName);
      }
    } catch (error) {
      for (const name of opened.reverse()) this.#close(name);
      throw error;
    }
  }

  /**
   * Closes a node that nobody uses, and those without a name that it is made of.
   *
   * @throws {Error} in QEMU's words
   */
  remove(name: string): void {
    const node = this.#nodes.get(name);
    if (!node) throw new Error(`Failed to find node with node-name='${name}'`);
    if (this.backends.some((one) => one.node === node)) throw new Error(`Node ${name} is in use`);
    if (isUnnamed(name)) throw new Error(`Node ${name} is not owned by the monitor`);
    const isPart = ({ child, backing }: BlockNode) => child === node || backing === node;
    if ([...this.#nodes.values()].some(isPart)) throw new Error(`Block device ${name} is in use`);
    this.#closeAll(node);
  }

  /**
   * Changes the size of a drive's node, or of a node.
   *
   * @param name a drive's id or a node's name
   * @throws {Error} in QEMU's words
   */
  resize(name: { readonly device?: string; readonly nodeName?: string }, size: number): void {
    const { device = "", nodeName = "" } = name;
    const node = this.#nodes.get(this.#drives.get(device)?.nodeName ?? nodeName);
    if (!node) throw new Error(`Cannot find device='${device}' nor node-name='${nodeName}'`);
    node.resize(size);
  }

  /**
   * Gives a disk to a device.
   *
   * @param name a drive's id, or a node's name
   * @throws {Error} in QEMU's words
   */
  attach(name: string, user: DiskUser): AttachedDisk {
    const drive = this.#drives.get(name);
    const node = this.#nodeOf(name, drive);
    if (!node) {
      throw new Error(
        drive ? "Device needs media, but drive is empty" : `Cannot find drive '${name}'`,
      );
    }
    if (this.#attached.has(name)) {
      throw new Error(`Drive '${name}' is already in use by another device`);
    }
    const permissions = diskPermissions(!node.readOnly, user.shareWrites);
    node.base.setUser(describeUser(name), permissions);
    const statistics = new SharedArrayBuffer(STATISTICS_SIZE);
    const { shared } = this.throttles.group(groupOf(name, drive, node));
    const disk = {
      disk: node.description,
      statistics,
      throttle: shared,
      ...drive && { drive },
    };
    this.#attached.set(name, { user, disk });
    return disk;
  }

  /** Whether there is a drive of an id, or a node of a name. */
  has(name: string): boolean {
    return this.#drives.has(name) || this.#nodes.has(name);
  }

  /** A device has its disk no more. */
  detach(name: string): void {
    this.#attached.delete(name);
    this.#nodeOf(name, this.#drives.get(name))?.base.setUser(describeUser(name), noPermissions);
  }

  /**
   * Changes a disk's limits, and so those of all disks of its group.
   *
   * @param name a drive's id, or a device's
   * @throws {Error} in QEMU's words
   */
  setLimits(
    { device, id }: { readonly device?: string; readonly id?: string },
    limits: ThrottleLimits,
    group?: string,
  ): void {
    if ((device === undefined) === (id === undefined)) {
      throw new Error("Need exactly one of 'device' and 'id'");
    }
    const [name] =
      [...this.#attached].find(([drive, { user, disk }]) =>
        id === undefined ? disk.drive?.id === device : user.device === id || drive === id
      ) ?? [];
    if (name === undefined) throw new Error(`Device '${id ?? device}' not found`);
    const drive = this.#drives.get(name);
    const node = this.#nodeOf(name, drive);
    const now = ownGroupOf(name, drive, node);
    if (group !== undefined && group !== now) {
      throw new Error(`The throttle group of '${id ?? device}' is '${now}': it cannot change`);
    }
    this.throttles.group(now).limits = limits;
  }

  /** Takes the errors that the host has had with guests' requests since, in no order. */
  takeErrors(): readonly BlockError[] {
    return [...this.#attached.values()].flatMap(({ user, disk }) =>
      new DiskStatistics(disk.statistics).takeErrors().map((error) => ({
        ...error,
        qomPath: user.device.startsWith("/") ? user.device : `/machine/peripheral/${user.device}`,
        drive: disk.drive?.id ?? "",
        nodeName: disk.disk.nodeName,
      }))
    );
  }

  /** Takes what was found since in which images contradict themselves. */
  takeCorruptions(): readonly BlockCorruption[] {
    return findCorruptions(this.nodes, this.backends);
  }

  /** The guest goes on: requests that the host could not do are tried again. */
  clearErrors(): void {
    for (const { disk } of this.#attached.values()) new DiskStatistics(disk.statistics).setOk();
  }

  handOver(): Handover {
    const fds: HandedFd[] = [];
    const values: HandedValue[] = [];
    for (const [id, node] of this.#nodes) {
      if (!isKept(node)) continue;
      if (node instanceof Qcow2Node) fds.push({ name: TABLES, id, fd: node.tables });
      const kept = locksOf(node)?.kept;
      if (!kept) continue;
      fds.push({ name: BLOCK, id, fd: kept.fd });
      values.push({ name: BLOCK, id, data: encodeKept(kept) });
    }
    return { fds, values: [...values, ...this.throttles.handOver()] };
  }

  /** Whether there are images that no predecessor has passed. */
  get waits(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * The guest is about to be here. From now on the images are this VMM's that a predecessor did not
   * pass: it has let them go, or there is none any more.
   *
   * @throws {Error} in QEMU's words if another process has one
   */
  claim(): void {
    this.#claimed = [...this.#waiting];
    this.#arrived = this.#images.filter(({ away }) => away);
    for (const locks of this.#waiting) locks.hold();
    this.#waiting.clear();
    for (const node of this.#nodes.values()) locksOf(node)?.measure();
    for (const image of this.#images) image.arrive();
  }

  /** The guest has not come after all: what was claimed, or was to be, is the predecessor's again. */
  unclaim(): void {
    for (const image of this.#arrived) image.abandon();
    for (const locks of this.#claimed) {
      locks.letGo();
      this.#waiting.add(locks);
    }
  }

  arrive(): () => void {
    // A predecessor may have resized an image since it was opened here.
    for (const node of this.#nodes.values()) locksOf(node)?.measure();
    for (const image of this.#images) image.measure();
    return () => {
      for (const image of this.#images) image.takeOver();
    };
  }

  /** Whether there are files that a successor gets by their names (`cpr=off`). */
  get leavesFiles(): boolean {
    return this.#parts("not kept").length > 0;
  }

  /**
   * The guest goes on in another process: leaves the images to it that it opens itself.
   *
   * @param which all, where it goes on from its saved state
   * @throws {Error} if what is not yet in a file cannot be written there
   */
  letGo(which: Images): void {
    const nodes = this.#parts(which);
    for (const node of nodes) this.#left.add(node);
    for (const node of nodes.toReversed()) if (node instanceof Qcow2Node) node.letGo();
    for (const node of nodes) locksOf(node)?.letGo();
  }

  /**
   * Takes the images again that were let go of.
   *
   * @returns why that cannot be, with none of them taken; undefined if all are this VMM's
   */
  whyNotHeld(): string | undefined {
    const left = [...this.#left];
    const images = left.filter((node) => node instanceof Qcow2Node);
    const away = images.filter((image) => image.away);
    let at = left[0];
    try {
      for (at of left) {
        locksOf(at)?.hold();
        locksOf(at)?.measure();
      }
      for (const image of images) {
        at = image;
        image.arrive();
        image.takeOver();
      }
      this.#left.clear();
    } catch (error) {
      for (const image of away) image.abandon();
      for (const node of left) locksOf(node)?.letGo();
      const reason = (error as Error).message;
      return error instanceof LockedImage
        ? `Another process has the disk image '${at.filename}': end it, then 'cont'`
        : `Cannot go on with the disk image '${at.filename}': ${reason}`;
    }
  }

  /** Closes all nodes. */
  close(): void {
    for (const node of this.nodes) node.close();
    this.#nodes.clear();
  }

  #open(config: BlockNodeConfig, inheritance?: Inheritance, successor = false): void {
    const { nodeName } = config;
    if (this.#nodes.has(nodeName)) {
      throw new Error(`Duplicate nodes with node-name='${nodeName}'`);
    }
    if (this.#drives.has(nodeName)) {
      throw new Error(`node-name=${nodeName} is conflicting with a device id`);
    }
    const child = "file" in config ? this.#find(config.file) : undefined;
    checkThrottleNode(config, child, this.throttles);
    const before = this.#nodes.size;
    const backing = config.driver === "qcow2"
      ? this.#openBacking(config, child!, inheritance, successor)
      : undefined;
    try {
      const tables = config.driver === "qcow2"
        ? inheritance?.takeFd(TABLES, nodeName, tablesRequirement)
        : undefined;
      const file = takeKept(config, inheritance);
      const waits = successor && !file && !tables;
      const node = openNode(config, { child, backing, file, tables, waits });
      this.#nodes.set(nodeName, node);
      const locks = locksOf(node);
      if (waits && locks) this.#waiting.add(locks);
    } catch (error) {
      for (const name of [...this.#nodes.keys()].slice(before).reverse()) this.#close(name);
      throw error;
    }
  }

  /** The node behind an image: the one that it is told, or opened as the image says. */
  #openBacking(
    config: Qcow2NodeConfig,
    child: BlockNode,
    inheritance?: Inheritance,
    successor?: boolean,
  ): BlockNode | undefined {
    if (config.backing === null) return undefined;
    if (config.backing !== undefined) return this.#find(config.backing);
    const nodes = backingNodes(config, readFormat(child), child.filename);
    for (const node of nodes) this.#open(node, inheritance, successor);
    return this.#nodes.get(nodes.at(-1)?.nodeName ?? "");
  }

  /** The first node of a disk, by its drive or its own name; undefined for an empty drive. */
  #nodeOf(name: string, drive: DriveConfig | undefined): BlockNode | undefined {
    return this.#nodes.get(drive ? drive.nodeName ?? "" : name);
  }

  #parts(which: Images): BlockNode[] {
    return [...this.#nodes.values()].filter((node) => which === "all" || !isKept(node));
  }

  get #images(): Qcow2Node[] {
    return [...this.#nodes.values()].filter((node) => node instanceof Qcow2Node);
  }

  /** Closes a node, and those that it is made of and that nobody has given a name. */
  #closeAll(node: BlockNode): void {
    this.#close(node.config.nodeName);
    for (const part of [node.child, node.backing]) {
      if (part && isUnnamed(part.config.nodeName)) this.#closeAll(part);
    }
  }

  #find(name: string): BlockNode {
    const node = this.#nodes.get(this.#drives.get(name)?.nodeName ?? name);
    if (node) return node;
    throw new Error(`Cannot find device='${name}' nor node-name='${name}'`);
  }

  #addDrive(drive: DriveConfig): void {
    this.#drives.set(drive.id, drive);
    const node = drive.nodeName === undefined ? undefined : this.#nodes.get(drive.nodeName);
    const used = Permission.CONSISTENT_READ;
    node?.base.setUser(describeUser(drive.id), { ...noPermissions, used });
  }

  #close(name: string): void {
    const node = this.#nodes.get(name);
    if (!node) return;
    node.close();
    this.#left.delete(node);
    this.#nodes.delete(name);
  }
}

/** @throws {Error} if a node that is no qcow2 image here is one in the old VMM */
function refuseOtherFormats(configs: readonly BlockNodeConfig[], inheritance: Inheritance): void {
  const images = inheritance.idsOf(TABLES);
  for (const { nodeName, driver } of configs) {
    if (driver === "qcow2" || !images.includes(nodeName)) continue;
    throw new Error(
      `Node '${nodeName}' is qcow2 in the old VMM, not ${driver}: say format=qcow2 in -drive,` +
        " driver=qcow2 in -blockdev",
    );
  }
}

function describeUser(name: string): string {
  return `block device '${name}'`;
}

/** Whether a successor gets what a node has open: a format goes with the file that it is in. */
function isKept(node: BlockNode): boolean {
  const { config } = node instanceof Qcow2Node ? node.child.base : node;
  return !("cpr" in config) || config.cpr !== false;
}

/** Whether a node got its name from the one that is made of it. */
function isUnnamed(name: string): boolean {
  return name.startsWith("#");
}
