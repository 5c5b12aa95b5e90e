/**
 * What monitors are told of images that contradict themselves (QMP's BLOCK_IMAGE_CORRUPTED).
 *
 * @module
 */
import type { DriveConfig } from "../devices/block/config.ts";
import type { BlockNode } from "../devices/block/node.ts";
import { Qcow2Node } from "../devices/block/qcow2/node.ts";

/** An image that contradicts itself: nothing is done to it any more. */
export interface BlockCorruption {
  /** The drive's id; empty for an image that is no drive's first. */
  readonly drive: string;
  readonly nodeName: string;
  /** In what. */
  readonly reason: string;
}

/**
 * Takes what was found since.
 *
 * @param nodes all nodes
 * @param backends the disks that are made of them
 */
export function findCorruptions(
  nodes: readonly BlockNode[],
  backends: readonly { readonly drive?: DriveConfig; readonly node?: BlockNode }[],
): BlockCorruption[] {
  return nodes.flatMap((node) => {
    const reason = node instanceof Qcow2Node ? node.takeFailure() : undefined;
    if (reason === undefined) return [];
    const disk = backends.find((one) => one.node?.base === node);
    return [{ drive: disk?.drive?.id ?? "", nodeName: node.config.nodeName, reason }];
  });
}
