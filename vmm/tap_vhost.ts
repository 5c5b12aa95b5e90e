/**
 * The vhost devices of a tap, one for each of its queues: by them the kernel serves a network card.
 *
 * @module
 */
import { queuesOf, type TapConfig } from "../devices/net/config.ts";
import { openVhostNet } from "../devices/net/open.ts";
import type { VhostPortDescription } from "../devices/net/port.ts";
import { VHOST_WORDS } from "../devices/virtio/vhost_rings.ts";
import { makeEventfd } from "../ffi/event.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import type { HandedFd, Inheritance } from "./inheritance.ts";

/** They are handed over as this and their numbers; the id is the backend's. */
export const VHOST = "netdev/vhost";

/** A vhost device, and what goes with it. */
interface Device {
  readonly fd: OwnedFd;
  readonly calls: readonly [OwnedFd, OwnedFd];
  readonly port: VhostPortDescription;
}

/** All vhost devices of a tap; none if it is without. */
export class TapVhost {
  readonly #config: TapConfig;
  #devices: Device[] = [];

  /** Nothing is open yet. */
  constructor(config: TapConfig) {
    this.#config = config;
  }

  /** Where a device finds them. */
  get ports(): VhostPortDescription[] {
    return this.#devices.map(({ port }) => port);
  }

  /**
   * Opens them, or takes over those that there are.
   *
   * @param inheritance what a predecessor left, if anything
   * @throws {Error} in QEMU's words
   */
  open(inheritance?: Inheritance): void {
    const { id, vhost } = this.#config;
    const kept = inheritance?.takeFds(VHOST, id);
    try {
      for (let queue = 0; vhost && queue < queuesOf(this.#config); queue++) {
        const { fd, features } = openVhostNet(this.#config, queue, kept?.get(`${queue}`));
        kept?.delete(`${queue}`);
        const calls = [makeEventfd(), makeEventfd()] as const;
        const words = new SharedArrayBuffer(VHOST_WORDS);
        const port = { fd: fd.fd, features, calls: [calls[0].fd, calls[1].fd] as const, words };
        this.#devices.push({ fd, calls, port });
      }
    } finally {
      // A VMM without vhost serves the queues itself.
      for (const fd of kept?.values() ?? []) fd.close();
    }
  }

  /** What a successor gets, which can also serve the queues itself. */
  kept(): HandedFd[] {
    const { id } = this.#config;
    return this.#devices.map(({ fd: { fd } }, i) => ({
      name: `${VHOST}${i}`,
      id,
      fd,
      optional: true,
    }));
  }

  /** Closes them. */
  close(): void {
    for (const { fd, calls } of this.#devices) for (const one of [fd, ...calls]) one.close();
    this.#devices = [];
  }
}
