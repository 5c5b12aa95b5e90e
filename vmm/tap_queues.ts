/**
 * The further queues of a tap that has several: each is a descriptor of its own, for a pair of a
 * network card's queues.
 *
 * @module
 */
import { queuesOf, type TapConfig } from "../devices/net/config.ts";
import { adoptTap, type OpenTap, openTapBackend } from "../devices/net/open.ts";
import { DescriptorSlot } from "../devices/descriptor_slot.ts";
import type { OwnedFd } from "../ffi/fd.ts";
import type { HandedFd, Inheritance } from "./inheritance.ts";

/** They are handed over as this and their numbers; the id is the backend's. */
export const QUEUE = "netdev/queue";

/** All queues of a tap but the first. */
export class TapQueues {
  readonly #config: TapConfig;
  readonly #slots: readonly DescriptorSlot[];
  #fds: OwnedFd[] = [];

  /** Nothing is open yet. */
  constructor(config: TapConfig) {
    this.#config = config;
    this.#slots = Array.from({ length: queuesOf(config) - 1 }, () => DescriptorSlot.allocate());
  }

  /** Where a device finds their descriptors. */
  get slots(): SharedArrayBuffer[] {
    return this.#slots.map(({ buffer }) => buffer);
  }

  /**
   * Opens them, or takes them over.
   *
   * @param first the first queue
   * @param inheritance what a predecessor left, if that has the first one
   * @throws {Error} if they are not queues of the same interface, or fewer or more than they were
   */
  open(first: OpenTap, inheritance?: Inheritance): void {
    const { id, vnetHdr = true } = this.#config;
    const kept = inheritance?.takeFds(QUEUE, id);
    try {
      if (kept && kept.size !== this.#slots.length) {
        throw new Error(
          `netdev '${id}' has ${1 + kept.size} queues in the old VMM, not` +
            ` ${1 + this.#slots.length}: that cannot change while the guest runs`,
        );
      }
      for (const [i, slot] of this.#slots.entries()) {
        const number = 1 + i;
        const fd = kept?.get(`${number}`);
        kept?.delete(`${number}`);
        const queue = fd
          ? adoptTap(fd, id, vnetHdr)
          : openTapBackend({ ...this.#config, ifname: first.ifname }, number);
        this.#fds.push(queue.fd);
        slot.fd = queue.fd.fd;
        if (queue.ifname === first.ifname && queue.headerSize === first.headerSize) continue;
        throw new Error(
          `netdev '${id}': descriptor ${number} is '${queue.ifname}', not a queue of '${first.ifname}'`,
        );
      }
    } finally {
      for (const fd of kept?.values() ?? []) fd.close();
    }
  }

  /** What a successor gets. */
  kept(): HandedFd[] {
    const { id } = this.#config;
    return this.#fds.map(({ fd }, i) => ({ name: `${QUEUE}${1 + i}`, id, fd }));
  }

  /** Closes them. */
  close(): void {
    for (const slot of this.#slots) slot.fd = undefined;
    for (const fd of this.#fds) fd.close();
    this.#fds = [];
  }
}
