/**
 * File descriptors that clients hand to the VM: named ones (`getfd`) and sets (`add-fd`).
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import { QmpError } from "./errors.ts";

/** One descriptor of a set. */
export interface FdsetMember {
  /** Descriptor number. */
  readonly fd: number;
  /** The note given with `add-fd`. */
  readonly opaque?: string;
}

/** A set of descriptors: duplicates of one file with different access modes. */
export interface FdsetInfo {
  /** Id of the set. */
  readonly fdsetId: number;
  /** Its descriptors, oldest first. */
  readonly fds: readonly FdsetMember[];
}

/** Owns the descriptors that clients have passed and nobody has taken yet. */
export class FdRegistry {
  readonly #named = new Map<string, OwnedFd>();
  readonly #sets = new Map<number, { owned: OwnedFd; opaque?: string }[]>();

  /** Gives a descriptor a name; the one that had the name before is closed. */
  set(name: string, owned: OwnedFd): void {
    if (/^[0-9]/.test(name)) {
      owned.close();
      throw new QmpError("Parameter 'fdname' expects a name not starting with a digit");
    }
    this.#named.get(name)?.close();
    this.#named.set(name, owned);
  }

  /** Closes a named descriptor. */
  close(name: string): void {
    const owned = this.take(name);
    if (!owned) throw new QmpError(`File descriptor named '${name}' not found`);
    owned.close();
  }

  /** Takes a named descriptor out of the registry, with the duty to close it. */
  take(name: string): OwnedFd | undefined {
    const owned = this.#named.get(name);
    this.#named.delete(name);
    return owned;
  }

  /** Names and descriptors. */
  get named(): ReadonlyMap<string, OwnedFd> {
    return this.#named;
  }

  /**
   * Adds a descriptor to a set.
   *
   * @param fdsetId the set; a new one with the lowest free id if undefined
   * @param opaque a note for `query-fdsets`
   */
  add(owned: OwnedFd, fdsetId?: number, opaque?: string): { fdsetId: number; fd: number } {
    if (fdsetId !== undefined && fdsetId < 0) {
      owned.close();
      throw new QmpError("Parameter 'fdset-id' expects a non-negative value");
    }
    let id = fdsetId ?? 0;
    if (fdsetId === undefined) { while (this.#sets.has(id)) id++; }
    const members = this.#sets.get(id) ?? [];
    this.#sets.set(id, members);
    members.push(opaque === undefined ? { owned } : { owned, opaque });
    return { fdsetId: id, fd: owned.fd };
  }

  /**
   * Closes one descriptor of a set, or all.
   *
   * @throws {QmpError} if there is no such set or descriptor
   */
  remove(fdsetId: number, fd?: number): void {
    const members = this.#sets.get(fdsetId) ?? [];
    const leaving = members.filter(({ owned }) => fd === undefined || owned.fd === fd);
    if (leaving.length === 0) {
      const which = `fdset-id:${fdsetId}${fd === undefined ? "" : `, fd:${fd}`}`;
      throw new QmpError(`File descriptor named '${which}' not found`);
    }
    const staying = members.filter((member) => !leaving.includes(member));
    if (staying.length > 0) this.#sets.set(fdsetId, staying);
    else this.#sets.delete(fdsetId);
    for (const { owned } of leaving) owned.close();
  }

  /** All sets, by id. */
  get sets(): readonly FdsetInfo[] {
    return [...this.#sets].sort(([a], [b]) => a - b).map(([fdsetId, members]) => ({
      fdsetId,
      fds: members.map(({ owned, opaque }) => ({
        fd: owned.fd,
        ...opaque !== undefined && { opaque },
      })),
    }));
  }

  /** Closes every descriptor. */
  closeAll(): void {
    for (const owned of this.#named.values()) owned.close();
    for (const members of this.#sets.values()) for (const { owned } of members) owned.close();
    this.#named.clear();
    this.#sets.clear();
  }
}
