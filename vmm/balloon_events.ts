/**
 * What monitors are told of the memory balloon: how much memory the guest has now (QMP's
 * BALLOON_CHANGE), at most once a second, as in QEMU.
 *
 * @module
 */
import { isBalloon } from "../devices/virtio/balloon.ts";
import type { DeviceSet } from "./bus/device_set.ts";
import type { Machine } from "./machine/machine.ts";

/** The least time between two events. */
const PERIOD_MS = 1000;

/** The id of the balloon; undefined if there is none. */
export function balloonOf({ devices }: DeviceSet): string | undefined {
  return devices.find(({ type }) => isBalloon(type.name))?.id;
}

/** What a user may not expect of a balloon: one line each. */
export function balloonWarnings(
  { devices, memory }: Pick<Machine, "devices" | "memory">,
): string[] {
  if (balloonOf(devices) === undefined) return [];
  return memory.regions.filter(({ pages, readonly }) => !pages && !readonly).map(({ name }) =>
    `warning: what the guest gives back of ${name} stays allocated: its pages are huge, or a private` +
    " file's"
  );
}

/** What was told of a balloon. */
export class BalloonEvents implements Disposable {
  readonly #actual: () => number;
  readonly #isHere: () => boolean;
  readonly #emit: (bytes: number) => void;
  /** Bytes given back, as last told. */
  #told = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param actual how much the guest has given back, bytes
   * @param isHere whether it is this VMM's guest
   * @param emit takes how much it is, when it is another
   */
  constructor(actual: () => number, isHere: () => boolean, emit: (bytes: number) => void) {
    this.#actual = actual;
    this.#isHere = isHere;
    this.#emit = emit;
  }

  /** What is so now is known: a predecessor has told of it. */
  settle(): void {
    this.#told = this.#actual();
  }

  /** Tells of a change; of those that come soon after, the last one, later. */
  look(): void {
    if (this.#timer !== undefined || !this.#isHere()) return;
    const actual = this.#actual();
    if (actual === this.#told) return;
    this.#told = actual;
    this.#emit(actual);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.look();
    }, PERIOD_MS);
  }

  /** Tells of nothing more. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
