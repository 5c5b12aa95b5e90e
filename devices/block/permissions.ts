/**
 * Who may do what with an image: QEMU's permissions, and the byte locks by which processes tell each
 * other of them. A process has a shared lock on byte 100 + n for each permission n that it uses, and on
 * byte 200 + n for each that it wants nobody else to use; so QEMU, qemu-img and Denovo keep away from
 * each other's images.
 *
 * @module
 */
import { isLockedElsewhere, lockFile, unlockFile } from "../../ffi/file_lock.ts";

/** Permissions as bits (QEMU's include/block/block-common.h). */
export const Permission = { CONSISTENT_READ: 1, WRITE: 2, WRITE_UNCHANGED: 4, RESIZE: 8 } as const;

const names = ["consistent read", "write", "write unchanged", "resize"];
const USED_BASE = 100;
const UNSHARED_BASE = 200;

/** What somebody does with an image, and what nobody else may do meanwhile. */
export interface Permissions {
  readonly used: number;
  readonly unshared: number;
}

/** Nothing at all. */
export const noPermissions: Permissions = { used: 0, unshared: 0 };

/**
 * What a guest's disk needs. It can be resized while the guest has it, so that is shared.
 *
 * @param write whether the guest writes to it
 * @param share whether others may write to it as well
 */
export function diskPermissions(write: boolean, share: boolean): Permissions {
  return {
    used: Permission.CONSISTENT_READ | (write ? Permission.WRITE : 0),
    unshared: share ? 0 : Permission.WRITE,
  };
}

/** What several users need together. */
export function allPermissions(users: Iterable<Permissions>): Permissions {
  let { used, unshared } = noPermissions;
  for (const user of users) {
    used |= user.used;
    unshared |= user.unshared;
  }
  return { used, unshared };
}

/** The names of permissions, as QEMU lists them. */
export function permissionNames(bits: number): string {
  return names.filter((_, bit) => bits & (1 << bit)).join(", ");
}

function* locksOf({ used, unshared }: Permissions): Generator<number> {
  for (let bit = 0; bit < names.length; bit++) {
    if (used & (1 << bit)) yield USED_BASE + bit;
    if (unshared & (1 << bit)) yield UNSHARED_BASE + bit;
  }
}

/**
 * Changes an open file's locks from what `before` needs to what `after` needs. It never is without a
 * lock that both need.
 *
 * @returns why it cannot be, in QEMU's words; the locks are as before then
 * @throws {OsError} where the file system knows no locks
 */
export function changeLocks(
  fd: number,
  before: Permissions,
  after: Permissions,
): string | undefined {
  const had = new Set(locksOf(before));
  const wanted = new Set(locksOf(after));
  const taken: number[] = [];
  const giveBack = () => taken.forEach((start) => unlockFile(fd, { start, length: 1 }));
  try {
    for (const start of wanted.difference(had)) {
      if (!lockFile(fd, "shared", { start, length: 1 })) {
        giveBack();
        return `Failed to lock byte ${start}`;
      }
      taken.push(start);
    }
    // Who tries to get a lock has it for a moment: that is no reason to lose one that was got before.
    const reason = whyRefused(fd, {
      used: after.used & ~before.used,
      unshared: after.unshared & ~before.unshared,
    });
    if (reason !== undefined) {
      giveBack();
      return reason;
    }
  } catch (error) {
    giveBack();
    throw error;
  }
  for (const start of had.difference(wanted)) unlockFile(fd, { start, length: 1 });
}

/** Whether another process uses what `permissions` does not share, or does not share what they use. */
function whyRefused(fd: number, { used, unshared }: Permissions): string | undefined {
  for (const [bit, name] of names.entries()) {
    const locked = (base: number) => isLockedElsewhere(fd, { start: base + bit, length: 1 });
    if (used & (1 << bit) && locked(UNSHARED_BASE)) return `Failed to get "${name}" lock`;
    if (unshared & (1 << bit) && locked(USED_BASE)) return `Failed to get shared "${name}" lock`;
  }
}
