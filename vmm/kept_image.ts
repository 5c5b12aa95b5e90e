/**
 * What a VMM leaves of a block node's file, and its successor takes.
 *
 * @module
 */
import type { BlockNodeConfig } from "../devices/block/config.ts";
import { fileRequirement } from "../devices/block/file.ts";
import type { KeptAs, KeptFile } from "../devices/block/node.ts";
import { describeKey, type Inheritance } from "./inheritance.ts";

/** What a node's file and its locks are handed over as; the id is the node's name. */
export const BLOCK = "block";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** What goes with a file. */
export function encodeKept({ permissions, filename }: KeptAs): Uint8Array<ArrayBuffer> {
  return encoder.encode(JSON.stringify({ ...permissions, filename }));
}

/** What a predecessor left of a file. @throws {Error} if it is not what this node is told to be */
export function takeKept(config: BlockNodeConfig, inheritance?: Inheritance): KeptFile | undefined {
  if (config.driver !== "file" && config.driver !== "host_device") return undefined;
  const { nodeName } = config;
  if (config.cpr === false && inheritance?.idsOf(BLOCK).includes(nodeName)) {
    throw new Error(
      `Node '${nodeName}' has cpr=on in the old VMM: that cannot become off while the guest runs`,
    );
  }
  const file = inheritance?.takeFd(BLOCK, nodeName, fileRequirement(config));
  const data = inheritance?.takeValue(BLOCK, nodeName);
  if (!file) return undefined;
  try {
    return { file, ...decodeKept(nodeName, data) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function decodeKept(id: string, data: Uint8Array | undefined): KeptAs {
  try {
    const { used, unshared, filename } = JSON.parse(decoder.decode(data));
    const isName = filename === undefined || typeof filename === "string";
    const isBits = (bits: unknown) =>
      Number.isInteger(bits) && Number(bits) >= 0 && Number(bits) < 16;
    if (isName && isBits(used) && isBits(unshared)) {
      return { permissions: { used, unshared }, filename };
    }
  } catch {
    // Said below.
  }
  throw new Error(`Permissions of block node ${describeKey(id, "")} make no sense`);
}
