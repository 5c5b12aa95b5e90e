/**
 * The sections of a stream by their keys, to be taken out one by one.
 *
 * @module
 */
import { deviceTypes } from "../../devices/registry.ts";
import type { StateSection } from "./state_section.ts";
import { checkVersion, describeSection, type Section, StateError } from "../stream/stream.ts";

/** Bytes of state that are believed, RAM aside; a vCPU has about 10 KiB. */
const MAX_STATE = 64 << 20;

/** The sections of a stream, to be taken out one by one. */
export class SectionTable {
  readonly #byKey = new Map<string, Section>();

  /** @throws {StateError} if a section comes twice, or if there are too many */
  constructor(sections: Iterable<Section>) {
    let size = 0;
    for (const section of sections) {
      const key = `${section.name}\0${section.id}`;
      if (this.#byKey.has(key)) {
        throw new StateError(`Section ${describeSection(section)} appears twice in the stream`);
      }
      this.#byKey.set(key, section);
      size += section.data.length;
      if (size > MAX_STATE) {
        throw new StateError(
          `State has more than ${MAX_STATE} bytes at ${describeSection(section)}`,
        );
      }
    }
  }

  /** Takes a section. @throws {StateError} if it is not there, or of an unknown version */
  take(name: string, id: string, version = 1): Section {
    const key = `${name}\0${id}`;
    const found = this.#byKey.get(key);
    if (!found) {
      throw new StateError(
        deviceTypes.some((type) => type.name === name)
          ? `Device '${id}' (${name}) of this VM is missing in the saved VM: start this one with the` +
            " saved VM's options"
          : `Section ${describeSection({ name, id })} is missing from the stream`,
      );
    }
    checkVersion(found, version);
    this.#byKey.delete(key);
    return found;
  }

  /** Takes the sections that have the keys of others, in their order. @throws {StateError} */
  takeLike(others: readonly StateSection[]): Section[] {
    return others.map(({ name, id, newest }) => this.take(name, id, newest));
  }

  /** Whether a section is there. */
  has(name: string, id: string): boolean {
    return this.#byKey.has(`${name}\0${id}`);
  }

  /** Takes a section that need not be there. */
  takeIfThere({ name, id, newest }: StateSection): Section | undefined {
    return this.has(name, id) ? this.take(name, id, newest) : undefined;
  }

  /** Takes all sections of a name. */
  takeAll(name: string): Section[] {
    const found = [...this.#byKey.values()].filter((section) => section.name === name);
    return found.map(({ id }) => this.take(name, id));
  }

  /** @throws {StateError} if a section is left, which nobody knows */
  checkEmpty(): void {
    for (const section of this.#byKey.values()) {
      throw new StateError(
        `Unknown section or instance ${describeSection(section)}. Make sure that your current VM` +
          " setup matches your saved VM setup, including any hotplugged devices",
      );
    }
  }
}
