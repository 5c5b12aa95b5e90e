/**
 * Opening block nodes of each driver.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { BlockNodeConfig } from "./config.ts";
import {
  type BlockNode,
  FileNode,
  type ImageLocks,
  type KeptFile,
  NullNode,
  RawNode,
} from "./node.ts";
import { ThrottleNode } from "./throttle_node.ts";
import { Qcow2Node } from "./qcow2/node.ts";

/** What a node is opened with. */
export interface NodeParts {
  /** The node that it is made of. */
  readonly child?: BlockNode;
  /** The node that shows where it has nothing. */
  readonly backing?: BlockNode;
  /** What a predecessor passed of a file. */
  readonly file?: KeptFile;
  /** What a predecessor passed of an image's tables. */
  readonly tables?: OwnedFd;
  /** Whether the file is somebody else's until the guest is here. */
  readonly waits?: boolean;
}

/** The locks of a node; undefined for one that has no file of its own. */
export function locksOf(node: BlockNode): ImageLocks | undefined {
  return node instanceof FileNode ? node : undefined;
}

/**
 * Opens a node.
 *
 * @throws {Error} in QEMU's words
 */
export function openNode(config: BlockNodeConfig, parts: NodeParts = {}): BlockNode {
  const { child, backing, file, tables, waits = false } = parts;
  switch (config.driver) {
    case "raw":
      return new RawNode(config, child!);
    case "qcow2":
      return new Qcow2Node(config, child!, backing, tables, waits);
    case "throttle":
      return new ThrottleNode(config, child!);
    case "null-co":
      return new NullNode(config);
    default:
      return new FileNode(config, file, waits);
  }
}
