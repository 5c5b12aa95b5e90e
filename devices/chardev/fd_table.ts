/**
 * The descriptors of one character backend, by name.
 *
 * @module
 */
import type { OwnedFd } from "../../ffi/fd.ts";
import { type FdRequirement, whyUnfit } from "../../ffi/fd_requirement.ts";
import type { KeptFd } from "./backend.ts";

/** What a backend's descriptors must be that a predecessor left, by their names. */
export type FdRequirements = Readonly<Record<string, FdRequirement>>;

/** Owns a backend's descriptors: those from its predecessor, and those that it opened itself. */
export class FdTable {
  readonly #fds: Map<string, OwnedFd>;

  /**
   * Makes a table.
   *
   * @param kept descriptors that a predecessor left; the table owns them from now on
   */
  constructor(kept: ReadonlyMap<string, OwnedFd> = new Map()) {
    this.#fds = new Map(kept);
  }

  /** The number of the descriptor `name`, which is the kept one or else the one that `open` makes. */
  open(name: string, open: () => OwnedFd): number {
    return this.get(name) ?? this.set(name, open());
  }

  /** The number of the descriptor `name`. */
  get(name: string): number | undefined {
    return this.#fds.get(name)?.fd;
  }

  /** Takes a descriptor over. */
  set(name: string, fd: OwnedFd): number {
    this.close(name);
    this.#fds.set(name, fd);
    return fd.fd;
  }

  /** Closes one descriptor, if there is one of that name. */
  close(name: string): void {
    this.#fds.get(name)?.close();
    this.#fds.delete(name);
  }

  /** Closes all. */
  closeAll(): void {
    for (const name of [...this.#fds.keys()]) this.close(name);
  }

  /** All descriptors. */
  list(): KeptFd[] {
    return [...this.#fds].map(([name, { fd }]) => ({ name, fd }));
  }

  /**
   * Refuses descriptors that a predecessor left but that the backend has no use for.
   *
   * @param owner the backend's id
   * @param must what each must be, by name
   * @throws {Error} that names the descriptor, and says what is wrong with it
   */
  check(owner: string, must: FdRequirements): void {
    for (const [name, { fd }] of this.#fds) {
      if (!Object.hasOwn(must, name)) {
        throw new Error(`Chardev '${owner}' does not know a file descriptor named '${name}'`);
      }
      const reason = whyUnfit(fd, must[name]);
      if (reason === undefined) continue;
      throw new Error(`Kept file descriptor '${name}' of chardev '${owner}' ${reason}`);
    }
  }
}
