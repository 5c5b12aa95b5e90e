/**
 * Saved state that may change between versions.
 *
 * What one version of the program writes, every later one reads, and an earlier one as well where
 * nothing is used that it does not know:
 *
 * - A layout that changes gets the next {@linkcode SavedLayout.version}, and the one before it goes
 *   to {@linkcode SavedLayout.older} with the way from it and back. What is written is the oldest
 *   version that says all there is to say.
 * - A feature that is off by default is better a {@linkcode Subsection}: it is written only when it
 *   is used, and the rest of the state stays as it was.
 *
 * @module
 */
import type { Fields, Struct, View } from "../ffi/struct.ts";

/** A layout of saved state, and what came before it. */
export interface SavedLayout<F extends Fields = Fields> {
  /** Version of the layout; raised when `state` changes. */
  readonly version: number;
  readonly state: Struct<F>;
  /** The layouts of the versions before, the latest first, down to version 1. */
  readonly older?: readonly OlderLayout[];
}

/** A layout that was replaced by that of the next version. */
export interface OlderLayout {
  readonly state: Struct<Fields>;
  /**
   * Tells in the next version's layout what this one says.
   *
   * @param older the state; from outside, and not checked
   * @param newer all zeros
   * @throws {Error} if it makes no sense
   */
  upgrade(older: View<Fields>, newer: View<Fields>): void;
  /**
   * Tells in this layout what the next version's says.
   *
   * @param newer the state
   * @param older all zeros
   * @returns false if that cannot be told here, because a feature is in use that is new
   */
  downgrade(newer: View<Fields>, older: View<Fields>): boolean;
}

/** A part of a device's state that is written only when it is needed. */
export interface Subsection extends SavedLayout {
  /**
   * The field of the device's state that it is. Such fields are the last ones, and zeros if they are
   * not written. The section is named after the device's type and the field: `isa-serial/loopback`.
   */
  readonly field: string;
  /** Whether the device's state is not told without it. */
  needed(state: View<Fields>): boolean;
}

/** Offset of the first of a state's subsections, which is the size of the rest. */
export function sizeWithout(
  state: Struct<Fields>,
  subsections: readonly Pick<Subsection, "field">[] = [],
): number {
  const offsets = subsections.map(({ field }) => state.offsets[field]);
  return Math.min(state.size, ...offsets);
}

/** The sizes that a layout's data has in each version that is known, the newest first. */
export function knownVersions(
  { version, state, older = [] }: SavedLayout,
  size: number = state.size,
): { readonly version: number; readonly size: number }[] {
  return [
    { version, size },
    ...older.map((one, i) => ({ version: version - 1 - i, size: one.state.size })),
  ];
}
