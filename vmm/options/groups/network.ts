/**
 * Networks, of which there are none.
 *
 * @module
 */
import { onlyNone } from "../lacking.ts";
import { line, type Option, reads } from "../option.ts";

/** The options, in the order of `-help`. */
export const networkOptions: readonly Option[] = [
  reads("nic", line("-nic none", "there is no network"), onlyNone("network")),
  reads("net", line("-net none", "there is no network"), onlyNone("network")),
];
