/**
 * Which throttle group a disk's requests count in: a throttle node's, or the drive's own.
 *
 * @module
 */
import type { BlockNodeConfig, DriveConfig, DriveThrottle } from "../devices/block/config.ts";
import type { BlockNode } from "../devices/block/node.ts";
import { ThrottleNode } from "../devices/block/throttle_node.ts";
import type { ThrottleSet } from "./throttle_set.ts";

function nodeGroup(node: BlockNode | undefined): string | undefined {
  return node instanceof ThrottleNode ? node.config.group : undefined;
}

/**
 * A disk's group.
 *
 * @param name the drive's id, or the node's name
 * @throws {Error} if it would be in two
 */
export function groupOf(name: string, drive: DriveConfig | undefined, node: BlockNode): string {
  const group = nodeGroup(node);
  if (group !== undefined && drive?.throttle) {
    throw new Error(
      `Drive '${name}' has limits of its own and those of throttle group '${group}': give it one of them`,
    );
  }
  return group ?? drive?.throttle?.group ?? name;
}

/** The group of a disk that has its own. @throws {Error} if it has a throttle node */
export function ownGroupOf(
  name: string,
  drive: DriveConfig | undefined,
  node: BlockNode | undefined,
): string {
  const group = nodeGroup(node);
  if (group === undefined) return drive?.throttle?.group ?? name;
  throw new Error(
    `The limits of '${name}' are those of throttle group '${group}': set its property 'limits' by qom-set`,
  );
}

/** A disk's own limits, if it has any; those of a throttle node are the node's, as in QEMU. */
export function describeLimits(
  name: string,
  drive: DriveConfig | undefined,
  node: BlockNode | undefined,
  throttles: ThrottleSet,
): DriveThrottle | undefined {
  if (nodeGroup(node) !== undefined) return undefined;
  return throttles.describe(drive?.throttle?.group ?? name);
}

/**
 * Checks a node that is to be made.
 *
 * @throws {Error} if its throttle group is not there, in QEMU's words, or it is made of a throttle node
 */
export function checkThrottleNode(
  config: BlockNodeConfig,
  child: BlockNode | undefined,
  throttles: ThrottleSet,
): void {
  if (config.driver === "throttle" && !throttles.has(config.group)) {
    throw new Error(`Throttle group '${config.group}' does not exist`);
  }
  if (nodeGroup(child) === undefined) return;
  throw new Error(
    `Node '${config.nodeName}' cannot be made of throttle node '${
      child!.config.nodeName
    }': that has to` +
      " be the first node of a disk",
  );
}
