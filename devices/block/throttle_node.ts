/**
 * `throttle`: a node whose requests count in a throttle group, which other disks may share.
 *
 * @module
 */
import type { ThrottleNodeConfig } from "./config.ts";
import type { DiskDescription } from "./disk.ts";
import { type BaseNode, type BlockNode, describeAbove, jsonName } from "./node.ts";

/**
 * The node that a disk with such limits has. They are its device's to keep, so that it is the first
 * node of a disk: what has a format counts the guest's requests, and not what it makes of them.
 */
export class ThrottleNode implements BlockNode {
  readonly config: ThrottleNodeConfig;
  readonly child: BlockNode;
  readonly description: DiskDescription;

  /** @param child the node that is limited */
  constructor(config: ThrottleNodeConfig, child: BlockNode) {
    this.config = config;
    this.child = child;
    this.description = describeAbove(config, child);
  }

  get readOnly(): boolean {
    return this.config.readOnly || this.child.readOnly;
  }

  get base(): BaseNode {
    return this.child.base;
  }

  get filename(): string {
    const { config: { driver }, filename } = this.child;
    return jsonName({
      "throttle-group": this.config.group,
      driver: "throttle",
      file: { driver, filename },
    });
  }

  get allocated(): number | undefined {
    return this.child.allocated;
  }

  resize(size: number): void {
    if (this.readOnly) throw new Error("Image is read-only");
    this.child.resize(size);
  }

  close(): void {}
}
