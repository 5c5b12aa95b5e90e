/**
 * A device's state as sections of the stream: one that always comes, and one for each of its
 * subsections that is needed.
 *
 * @module
 */
import { sizeWithout } from "../../devices/saved_state.ts";
import type { Fields, View } from "../../ffi/struct.ts";
import type { DeviceInstance } from "../../vmm/bus/device_set.ts";
import type { SectionTable } from "./section_table.ts";
import { layoutSection, type StateSection } from "./state_section.ts";
import type { Section } from "../stream/stream.ts";

/** A subsection. */
interface Part {
  readonly field: string;
  readonly section: StateSection;
  /** The newest version's bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly needed: (state: View<Fields>) => boolean;
}

/** Buffers for a device's state, made before the pause and filled within it. */
export class DeviceState {
  readonly device: DeviceInstance;
  /** All of the state, as the device has it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The section that always comes, unless the device says when it does. */
  readonly section: StateSection;
  readonly #view: View<Fields>;
  readonly #parts: readonly Part[];

  /** Makes buffers, filled from the device as it is now. */
  constructor(device: DeviceInstance) {
    const { type, id, layout } = device;
    this.device = device;
    const { bytes, view } = layout.state.alloc();
    this.bytes = bytes;
    this.#view = view;
    const main = bytes.subarray(0, sizeWithout(layout.state, layout.subsections));
    this.section = layoutSection(type.name, id, layout, main, view);
    this.#parts = (layout.subsections ?? []).map((one) => {
      const offset = layout.state.offsets[one.field];
      const own = bytes.subarray(offset, offset + one.state.size);
      const name = `${type.name}/${one.field}`;
      const section = layoutSection(name, id, one, own, one.state.view(bytes.buffer, offset));
      return { field: one.field, section, bytes: own, needed: one.needed };
    });
    this.save();
  }

  /** Copies the state out of the device; nothing may run that writes to it. */
  save(): void {
    this.bytes.set(this.device.state);
    this.section.pack();
  }

  /** Whether the section always comes. */
  get isFixed(): boolean {
    return this.device.type.needed === undefined;
  }

  /** Whether the section is needed for what was saved. */
  get isNeeded(): boolean {
    return this.device.type.needed?.(this.#view) ?? true;
  }

  /** The subsections that are needed for what was saved. */
  subsections(): readonly Pick<Part, "field" | "section">[] {
    if (this.#parts.length === 0) return this.#parts;
    const needed = this.#parts.filter((part) => part.needed(this.#view));
    for (const { section } of needed) section.pack();
    return needed;
  }

  /**
   * Takes a state that was saved, without changing the device.
   *
   * @param section the section; without one the state is that of power-on
   * @param others has the subsections that have come, if any have
   * @throws {StateError} that names the section and what is wrong with it
   */
  fill(section: Section | undefined, others: SectionTable | undefined): void {
    if (section) this.section.unpack(section);
    else this.bytes.fill(0);
    for (const { section: { name, id, newest }, section: own, bytes } of this.#parts) {
      if (others?.has(name, id)) own.unpack(others.take(name, id, newest));
      else bytes.fill(0);
    }
  }
}
