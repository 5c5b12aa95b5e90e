/**
 * What outlives a VMM: descriptors, and values that go with them, which a successor takes over.
 *
 * Whoever has something to leave is a {@linkcode Keeper}: it names what it hands over and takes it
 * from its predecessor's {@linkcode Inheritance}, where it also says what each thing must be. Nobody
 * else knows what kinds of things there are.
 *
 * @module
 */
import type { OwnedFd } from "../ffi/fd.ts";
import { type FdRequirement, whyUnfit } from "../ffi/fd_requirement.ts";

/**
 * Who takes over: a VMM beside this one, with monitors of its own; a helper that stands in for this
 * one; or the program that this process becomes, of which nothing is closed before it is.
 */
export type Successor = "neighbour" | "helper" | "same process";

/** A descriptor that is handed over; name and id are its key. */
export interface HandedFd {
  /** `KEEPER` or `KEEPER/WHAT`. */
  readonly name: string;
  /** Which of several. */
  readonly id: string;
  /** Its number in this process. */
  readonly fd: number;
  /** Whether a successor that does not know what it is may do without. */
  readonly optional?: boolean;
}

/** Bytes that are handed over; name and id are its key. */
export interface HandedValue {
  /** `KEEPER` or `KEEPER/WHAT`. */
  readonly name: string;
  /** Which of several. */
  readonly id: string;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** What is handed over. */
export interface Handover {
  readonly fds: readonly HandedFd[];
  readonly values: readonly HandedValue[];
}

/** Whoever has something that outlives its VMM. */
export interface Keeper {
  /** What a successor gets before the guest stops. */
  handOver(to: Successor): Handover;
  /** Why a successor would not find things as they are; nothing if it would. */
  blockers?(): string[];
  /** The name of the values in {@linkcode changes}. */
  readonly changing?: string;
  /** What has changed since, of what a neighbour has been given: it goes with the guest's state. */
  changes?(): HandedValue[];
  /**
   * Checks a predecessor's {@linkcode changes}; nothing is done before the guest is here.
   *
   * @param changes none in modes in which nobody else was there meanwhile
   * @returns does what there is to do when the guest is here
   * @throws {Error} if they make no sense
   */
  arrive?(changes: readonly HandedValue[]): () => void;
}

/** A key as messages name it, on one line whatever it is. */
export function describeKey(name: string, id: string): string {
  const [shownName, shownId] = [name, id].map((part) => JSON.stringify(part).slice(1, -1));
  return id === "" ? `'${shownName}'` : `'${shownName}' ${shownId}`;
}

/** What a predecessor has left, until somebody takes it. */
export class Inheritance implements Disposable {
  readonly #fds = new Map<string, Named<OwnedFd>>();
  readonly #values = new Map<string, Named<Uint8Array<ArrayBuffer>>>();
  /** Descriptors that need not be taken. */
  readonly #optional = new Set<OwnedFd>();

  /** @param shared whether the predecessor still uses it, until the guest is here */
  constructor(readonly shared: boolean) {}

  /** Adds a descriptor of a new key, which is closed with this unless somebody takes it. */
  addFd(name: string, id: string, item: OwnedFd, optional = false): void {
    this.#fds.set(keyOf(name, id), { name, id, item });
    if (optional) this.#optional.add(item);
  }

  /** Adds a value of a new key. */
  addValue(name: string, id: string, item: Uint8Array<ArrayBuffer>): void {
    this.#values.set(keyOf(name, id), { name, id, item });
  }

  /** All descriptors that nobody has taken. */
  get fds(): readonly HandedFd[] {
    return [...this.#fds.values()].map(({ name, id, item }) => {
      const entry = { name, id, fd: item.fd };
      return this.#optional.has(item) ? { ...entry, optional: true } : entry;
    });
  }

  /** All values that nobody has taken. */
  get values(): readonly HandedValue[] {
    return [...this.#values.values()].map(({ name, id, item }) => ({ name, id, data: item }));
  }

  /** Ids of the descriptors of a name. */
  idsOf(name: string): string[] {
    return this.fds.filter((one) => one.name === name).map(({ id }) => id);
  }

  /**
   * Takes a descriptor, if there is one. It is the taker's from now on.
   *
   * @param must what it must be
   * @throws {Error} that names it and says what is wrong with it
   */
  takeFd(name: string, id: string, must: FdRequirement): OwnedFd | undefined {
    const found = this.#fds.get(keyOf(name, id));
    if (!found) return undefined;
    const reason = whyUnfit(found.item.fd, must);
    if (reason !== undefined) {
      throw new Error(`File descriptor ${describeKey(name, id)} ${reason}`);
    }
    this.#fds.delete(keyOf(name, id));
    return found.item;
  }

  /** Takes all descriptors of an id whose names begin alike, by the rest of their names. */
  takeFds(beginning: string, id: string): Map<string, OwnedFd> {
    const taken = new Map<string, OwnedFd>();
    for (const [key, one] of this.#fds) {
      if (one.id !== id || !one.name.startsWith(beginning)) continue;
      taken.set(one.name.slice(beginning.length), one.item);
      this.#fds.delete(key);
    }
    return taken;
  }

  /** Takes a value, if there is one. */
  takeValue(name: string, id = ""): Uint8Array<ArrayBuffer> | undefined {
    const key = keyOf(name, id);
    const found = this.#values.get(key);
    this.#values.delete(key);
    return found?.item;
  }

  /**
   * Everybody has taken what is theirs: what is optional and left is closed.
   *
   * @throws {Error} if something else is left, which nobody knows
   */
  checkEmpty(): void {
    for (const [key, { name, id, item }] of this.#fds) {
      if (this.#optional.has(item)) {
        item.close();
        this.#fds.delete(key);
        continue;
      }
      throw new Error(`Unknown file descriptor ${describeKey(name, id)}`);
    }
    for (const { name, id } of this.#values.values()) {
      throw new Error(`Unknown value ${describeKey(name, id)} among the file descriptors`);
    }
  }

  /** Closes what nobody has taken. */
  [Symbol.dispose](): void {
    for (const { item } of this.#fds.values()) item.close();
    this.#fds.clear();
  }
}

interface Named<T> {
  readonly name: string;
  readonly id: string;
  readonly item: T;
}

function keyOf(name: string, id: string): string {
  return `${name}\0${id}`;
}
