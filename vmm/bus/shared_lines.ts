/**
 * Who drives which of the interrupt lines that several devices drive, or may drive one day.
 *
 * @module
 */
import { SHARED_LINE_WORDS } from "./shared_line.ts";
import type { SharedLines } from "./thread_devices.ts";

/** What stands for a device that has gone, among the users of a line; no device is called so. */
const GONE = "";

/** A device, and a line (GSI) that it drives. */
export interface LineUser {
  readonly gsi: number;
  readonly id: string;
}

/**
 * Finds the lines that several devices drive.
 *
 * @param users all devices
 * @param wires lines that devices may come to drive while the guest runs
 */
export function shareLines(users: readonly LineUser[], wires: readonly number[]): SharedLines {
  const byLine = Map.groupBy(users, ({ gsi }) => gsi);
  const shared = new Set([
    ...[...byLine].filter(([, { length }]) => length > 1).map(([gsi]) => gsi),
    ...wires,
  ]);
  const lines = Array.from(shared, (gsi, i) => {
    const ids = byLine.get(gsi)?.map(({ id }) => id) ?? [];
    return [gsi, { at: SHARED_LINE_WORDS * i, ids }] as const;
  });
  const words = new SharedArrayBuffer(4 * SHARED_LINE_WORDS * Math.max(1, lines.length));
  return { words, lines: new Map(lines) };
}

/** The lines with one more device, which takes the place of one that has gone, if there is one. */
export function withUser(
  lines: SharedLines["lines"],
  users: readonly LineUser[],
): SharedLines["lines"] {
  return new Map([...lines].map(([gsi, line]) => {
    const user = users.find((one) => one.gsi === gsi);
    if (!user) return [gsi, line];
    const free = line.ids.indexOf(GONE);
    const ids = free === -1 ? [...line.ids, user.id] : line.ids.with(free, user.id);
    return [gsi, { ...line, ids }];
  }));
}

/** The lines without a device, which holds none of them high. */
export function withoutUser(lines: SharedLines["lines"], id: string): SharedLines["lines"] {
  return new Map(
    [...lines].map(([gsi, line]) =>
      [gsi, { ...line, ids: line.ids.map((user) => user === id ? GONE : user) }] as const
    ),
  );
}
