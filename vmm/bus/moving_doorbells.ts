/**
 * Doorbells in ranges that move, as the accelerator rings them without the vCPU's thread.
 *
 * Until they are connected a write exits, and the device rings: that is slower, and as good. So whoever
 * moves a range, in the guest's access or in a pause, only takes the connections away, of which there are
 * none then as a rule; an I/O thread makes them when it has been rung by hand.
 *
 * @module
 */
import type { Properties } from "../../devices/device.ts";
import { lock, unlock } from "../../devices/mutex.ts";
import { deviceTypes } from "../../devices/registry.ts";
import type { InterruptLines } from "../accel/accelerator.ts";
import type { RangeBases } from "./bases.ts";
import { type PlacedRange, placeRanges } from "./bus.ts";

/** Words of shared memory: a mutex, and whether the doorbells are connected. */
const MUTEX = 0;
const CONNECTED = 1;
const WORDS = 2;

/** A device that may have such doorbells. */
export interface BellDevice {
  /** The device type's name. */
  readonly type: string;
  readonly properties: Properties;
  readonly ranges: readonly PlacedRange[];
  /** The eventfd of each of its doorbells. */
  readonly doorbellFds: readonly number[];
}

/** A range with the doorbells in it. */
interface BellRange extends PlacedRange {
  readonly bells: readonly { readonly offset: number; readonly fd: number }[];
}

/** The doorbells, on one thread. */
export class MovingDoorbells {
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** All ranges, for whether they are in each other's way. */
  #ranges: readonly BellRange[] = [];
  readonly #bases: RangeBases;
  readonly #lines: InterruptLines;

  /**
   * @param words of {@linkcode MovingDoorbells.allocate}
   * @param bases where ranges are
   * @param lines connects
   */
  constructor(
    words: SharedArrayBuffer,
    bases: RangeBases,
    lines: InterruptLines,
  ) {
    this.#words = new Int32Array(words);
    this.#bases = bases;
    this.#lines = lines;
  }

  /** Memory that all threads share. */
  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(4 * WORDS);
  }

  /** Takes other devices. Those that go are nowhere before, so nothing of them is connected. */
  change(devices: readonly BellDevice[]): void {
    this.#ranges = devices.flatMap(bellRanges);
  }

  /** Moves a range. */
  move(slot: number, base: number | undefined): void {
    if (this.#bases.get(slot) === base) return;
    this.#locked(() => {
      if (this.#words[CONNECTED] !== 0) {
        this.#each((address, fd) => this.#lines.disconnectDoorbell(address, fd));
      }
      this.#words[CONNECTED] = 0;
      this.#bases.move(slot, base);
    });
  }

  /** Connects the doorbells where they are now, unless they are. */
  connect(): void {
    if (Atomics.load(this.#words, CONNECTED) !== 0) return;
    this.#locked(() => {
      if (this.#words[CONNECTED] !== 0) return;
      this.#each((address, fd) => this.#lines.connectDoorbell(address, fd));
      this.#words[CONNECTED] = 1;
    });
  }

  #each(action: (address: number, fd: number) => void): void {
    for (const { base, slot, bells } of placeRanges(this.#ranges, this.#bases)) {
      if (slot !== undefined) { for (const { offset, fd } of bells) action(base + offset, fd); }
    }
  }

  #locked(action: () => void): void {
    lock(this.#words, MUTEX);
    try {
      action();
    } finally {
      unlock(this.#words, MUTEX);
    }
  }
}

function bellRanges({ type, properties, ranges, doorbellFds }: BellDevice): BellRange[] {
  const declared = deviceTypes.find(({ name }) => name === type)!.doorbells?.(properties) ?? [];
  return ranges.map((range, number) => ({
    ...range,
    bells: declared.flatMap((bell, i) =>
      bell.range === number ? [{ offset: bell.offset, fd: doorbellFds[i] }] : []
    ),
  }));
}
