/**
 * One section of a machine's state in all versions that its layout has had: buffers that are made
 * before the pause and filled within it.
 *
 * @module
 */
import type { SavedLayout } from "../../devices/saved_state.ts";
import type { Fields, View } from "../../ffi/struct.ts";
import { checkVersion, describeSection, type Section, StateError } from "../stream/stream.ts";

/** The data in one version. */
interface Form {
  readonly version: number;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** A version that has been replaced, and the ways from it and to it. */
interface OlderForm extends Form {
  /** Fills the next version's data from this. */
  readonly upgrade: () => void;
  /** Fills this from the next version's data; false if that cannot be told here. */
  readonly downgrade: () => boolean;
}

/** A section whose data is filled again and again, written in one of several versions. */
export class StateSection implements Section {
  readonly name: string;
  readonly id: string;
  /** Version of what {@linkcode pack} has chosen. */
  version: number;
  data: Uint8Array<ArrayBuffer>;
  /** Data of the newest version. */
  readonly #newest: Form;
  /** The versions before, the latest first. */
  readonly #older: readonly OlderForm[];

  /**
   * @param name the section's name
   * @param id which of several
   * @param version the newest version
   * @param data its data
   * @param older the versions before, the latest first
   */
  constructor(
    name: string,
    id: string,
    version: number,
    data: Uint8Array<ArrayBuffer>,
    older: readonly OlderForm[] = [],
  ) {
    this.name = name;
    this.id = id;
    this.version = version;
    this.data = data;
    this.#newest = { version, data };
    this.#older = older;
  }

  /** The newest version. */
  get newest(): number {
    return this.#newest.version;
  }

  /** All versions, the newest first; the lengths of their data do not change. */
  get forms(): readonly Form[] {
    return [this.#newest, ...this.#older];
  }

  /** After the newest version's data was filled: chooses the oldest one that says the same. */
  pack(): void {
    let chosen = this.#newest;
    for (const form of this.#older) {
      form.data.fill(0);
      if (!form.downgrade()) break;
      chosen = form;
    }
    this.version = chosen.version;
    this.data = chosen.data;
  }

  /**
   * Fills the newest version's data from a section of any version.
   *
   * @throws {StateError} if its version is not known, or its data does not fit or makes no sense
   */
  unpack(from: Section): void {
    checkVersion(from, this.newest);
    const index = this.newest - from.version - 1;
    const form = index < 0 ? this.#newest : this.#older[index];
    if (!form) throw new StateError(`${describeVersion(from)} is too old`);
    const { data } = from;
    if (data.length !== form.data.length) {
      throw new StateError(
        `Section ${describeSection(from)} has ${data.length} bytes, expected ${form.data.length}`,
      );
    }
    form.data.set(data);
    for (let i = index; i >= 0; i--) this.#upgrade(i, from);
    this.version = this.newest;
    this.data = this.#newest.data;
  }

  #upgrade(index: number, from: Section): void {
    const next = index === 0 ? this.#newest : this.#older[index - 1];
    next.data.fill(0);
    try {
      this.#older[index].upgrade();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StateError(`${describeVersion(from)} is refused: ${reason}`, { cause: error });
    }
  }
}

function describeVersion(section: Section): string {
  return `Version ${section.version} of section ${describeSection(section)}`;
}

/**
 * Makes a section of a layout.
 *
 * @param layout how it is, and how it was
 * @param data bytes of the newest version
 * @param view the struct over them
 */
export function layoutSection(
  name: string,
  id: string,
  layout: SavedLayout,
  data: Uint8Array<ArrayBuffer>,
  view: View<Fields>,
): StateSection {
  const older: OlderForm[] = [];
  let next = view;
  for (const [i, { state, upgrade, downgrade }] of (layout.older ?? []).entries()) {
    const newer = next;
    const { bytes, view: own } = state.alloc();
    older.push({
      version: layout.version - 1 - i,
      data: bytes,
      upgrade: () => upgrade(own, newer),
      downgrade: () => downgrade(newer, own),
    });
    next = own;
  }
  return new StateSection(name, id, layout.version, data, older);
}
