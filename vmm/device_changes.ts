/**
 * Devices that have come and gone since a VM was made, which its command line does not show.
 *
 * @module
 */
import { parseJsonOrOpts } from "./options/grammar.ts";

/** What a command line lacks, and what it has too much. */
export interface DeviceChanges {
  /** Devices as `-device` takes them in JSON, in their order. */
  readonly plugged: readonly { readonly driver: string; readonly [property: string]: unknown }[];
  /** Ids of devices. */
  readonly unplugged: readonly string[];
}

/**
 * A command line with the devices that have come, and without those that have gone.
 *
 * @param words options, with or without a program before them
 */
export function withChanges(
  words: readonly string[],
  { plugged, unplugged }: DeviceChanges,
): string[] {
  const isGone = (word: string, value: string | undefined) =>
    /^--?device$/.test(word) && value !== undefined &&
    unplugged.includes(String(parseJsonOrOpts(value, "driver").entries.get("id")));
  const kept = words.filter((word, i) =>
    !isGone(word, words[i + 1]) && !(i > 0 && isGone(words[i - 1], word))
  );
  return [...kept, ...plugged.flatMap((device) => ["-device", JSON.stringify(device)])];
}
