/**
 * What is left of a VM whose process has become another program. Nobody has any use for it, but to
 * take it apart takes longer than the pause should: the successor closes it afterwards.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import type { Handover, Inheritance, Keeper, Successor } from "../inheritance.ts";
import type { Machine } from "./machine.ts";

/** What it is handed over as. */
const OLD_VM = "kvm";
/** Milliseconds after the guest's arrival when what is slow to close is closed. */
export const CLOSE_LATER_MS = 100;

/** A machine's own remains, which its successor gets, and those of its predecessor. */
export class OldVm implements Keeper {
  readonly #machine: Machine;
  readonly #predecessor: readonly OwnedFd[];

  /**
   * @param machine the machine that will be left
   * @param inheritance what its predecessor left, if it had one
   */
  constructor(machine: Machine, inheritance?: Inheritance) {
    this.#machine = machine;
    const ids = inheritance?.idsOf(OLD_VM) ?? [];
    this.#predecessor = ids.flatMap((id) => inheritance!.takeFd(OLD_VM, id, {}) ?? []);
  }

  handOver(to: Successor): Handover {
    const { remains } = this.#machine.hardware.vm;
    const fds = remains.map(({ fd }, i) => ({ name: OLD_VM, id: i === 0 ? "" : `${i}`, fd }));
    return { fds: to === "same process" ? fds : [], values: [] };
  }

  arrive(): () => void {
    return () => {
      // It takes as long as a tick of the kernel's: whoever waits for an answer shall have it first.
      if (this.#predecessor.length > 0) setTimeout(() => this.close(), CLOSE_LATER_MS);
    };
  }

  /** Closes what the predecessor left. */
  close(): void {
    for (const fd of this.#predecessor) fd.close();
  }
}
