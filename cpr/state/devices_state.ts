/**
 * The state of all devices of a machine as sections of the stream.
 *
 * @module
 */
import type { DeviceSet } from "../../vmm/bus/device_set.ts";
import type { Section } from "../stream/stream.ts";
import { DeviceState } from "./device_state.ts";
import type { SectionTable } from "./section_table.ts";
import type { StateSection } from "./state_section.ts";

/** Buffers for the devices' state, made before the pause and filled within it. */
export class DevicesState {
  /** The sections that always come; `save` and `fill` fill their data. */
  readonly sections: readonly StateSection[];
  readonly #set: DeviceSet;
  readonly #devices: readonly DeviceState[];

  /** Makes buffers. */
  constructor(set: DeviceSet) {
    this.#set = set;
    this.#devices = set.devices.map((device) => new DeviceState(device));
    this.sections = this.#devices.filter(({ isFixed }) => isFixed).map(({ section }) => section);
  }

  /** Reads the state of devices to which nobody writes meanwhile. */
  save(): void {
    for (const device of this.#devices) device.save();
  }

  /** The sections that come only when they are needed, of what was saved. */
  subsections(): StateSection[] {
    return this.#devices.flatMap((device) => {
      const subsections = device.subsections().map(({ section }) => section);
      return !device.isFixed && device.isNeeded ? [device.section, ...subsections] : subsections;
    });
  }

  /**
   * Takes sections, one for each of its own and in the same order, and checks them, without changing
   * the devices.
   *
   * @param others has the subsections that have come, if any have
   * @throws {StateError} that names the section and what is wrong with it
   */
  fill(sections: readonly Section[], others: SectionTable | undefined): void {
    let next = 0;
    for (const device of this.#devices) {
      device.fill(device.isFixed ? sections[next++] : others?.takeIfThere(device.section), others);
    }
  }

  /** Puts it into the devices. */
  apply(): void {
    for (const { device, bytes } of this.#devices) this.#set.restore(device, bytes);
    this.#set.restored();
  }
}
