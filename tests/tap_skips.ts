/**
 * Says what is skipped of tests of networks, where it cannot be had.
 *
 * @module
 */
import { noTap, noVhostNet } from "./tap_peer.ts";

if (noTap !== undefined) console.warn(`SKIPPED: tests that need a tap: ${noTap}`);
else if (noVhostNet !== undefined) {
  console.warn(`SKIPPED: tests that need vhost-net: ${noVhostNet}`);
}
