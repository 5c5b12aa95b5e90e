/**
 * A machine's state as sections of the stream, and back.
 *
 * Every part of the accelerator's state is a section whose data is the kernel's own struct; every device is a
 * section whose data is the state struct that the device declares. Nothing of the machine is touched
 * before all sections are there, known, unique and of the right size.
 *
 * What two machines must have in common, and what does not change while the guest runs, are the
 * *constant* sections; a cpr-transfer compares them before it stops the guest.
 *
 * @module
 */
import { type CpuidEntry, decodeCpuid, encodeCpuid } from "../../ffi/kvm/cpuid.ts";
import { describeDifference } from "../../vmm/cpu/compare.ts";
import { FeatureSet } from "../../vmm/cpu/features.ts";
import { hostCpu } from "../../vmm/cpu/tables.ts";
import { OsError } from "../../ffi/errno.ts";
import { kvmIrqchip } from "../../ffi/kvm/structs.ts";
import { vcpuParts } from "../../vmm/accel/accelerator.ts";
import { type Hardware, type HardwareState, irqchips } from "../../vmm/accel/hardware.ts";
import { adoptMsrs, fitXsave } from "../../vmm/accel/foreign_state.ts";
import { sameMsrs } from "../../vmm/accel/msrs.ts";
import { PartRefused } from "../../vmm/accel/vcpu_state.ts";
import type { Machine } from "../../vmm/machine/machine.ts";
import { MACHINE_TYPE } from "../../vmm/machine/microvm.ts";
import { crc32 } from "../stream/crc32.ts";
import { deviceIdentities, differentDevice } from "./device_identity.ts";
import { DevicesState } from "./devices_state.ts";
import { SectionTable } from "./section_table.ts";
import { StateSection } from "./state_section.ts";
import { describeSection, type Section, StateError } from "../stream/stream.ts";

const VERSION = 1;
/** What is laid out as the accelerator has it that saves it. */
const FOREIGN_PARTS = ["cpu/msrs", "cpu/xsave"];
const UUID = "uuid";
/** The user's files for firmware, by name: a guest that reads one finds the same bytes afterwards. */
const FIRMWARE_FILES = "firmware-files";
/** What the guest has found of virtio devices, which older versions have not. */
const DEVICES = "devices";
/** What is not said of a machine is as it is unless the command line says something else. */
export const usualParts: Readonly<Record<string, string>> = {
  acpi: "on",
  ioapic2: "on",
  pcie: "off",
};
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * What two machines must have in common, in the words of the command line. What is added later is
 * there only where a machine is not as all machines were before: then older versions know it still.
 */
export function machineIdentity(machine: Machine): Record<string, string> {
  return {
    machine: MACHINE_TYPE,
    memory: `${machine.memory.size}`,
    cpus: `${machine.vcpus.length}`,
    pit: machine.hardware.hasPit ? "on" : "off",
    ...(!machine.hasAcpi && { acpi: "off" }),
    ...(machine.hasAcpi && !machine.hasIoapic2 && { ioapic2: "off" }),
    ...(machine.hasPcie && { pcie: "on" }),
  };
}

/**
 * The sections that stay the same as long as the machine lives.
 *
 * @param withUuid the capability validate-uuid: the machine's UUID is one of them
 */
export function constantSections(machine: Machine, withUuid = false): Section[] {
  const files = firmwareFiles(machine);
  const devices = deviceIdentities(machine.devices.description.devices, true);
  return [
    ...(Object.keys(devices).length > 0
      ? [section(DEVICES, "", encoder.encode(JSON.stringify(devices)))]
      : []),
    ...(Object.keys(files).length > 0
      ? [section(FIRMWARE_FILES, "", encoder.encode(JSON.stringify(files)))]
      : []),
    ...(withUuid ? [section(UUID, "", encoder.encode(machine.uuid))] : []),
    section("machine", "", encoder.encode(JSON.stringify(machineIdentity(machine)))),
    ...machine.cpus.identities.map(({ cpuid }, i) =>
      section("cpu/cpuid", `${i}`, encodeCpuid(cpuid))
    ),
  ];
}

/** The whole state of a machine whose vCPUs are parked. */
export function saveMachine(machine: Machine, hardware: Hardware = machine.hardware): Section[] {
  const state = new MachineState(machine, hardware);
  state.save();
  return [...constantSections(machine), ...state.sections, ...state.subsections()];
}

/** Hardware whose state can be read. */
export type StateMaker = Pick<Hardware, "makeState">;

/** A machine's state that has been read and checked, ready to be put into the machine. */
export interface LoadedState {
  /**
   * Puts it in. The vCPUs are parked.
   *
   * @param tscOffsets keep the guest's TSC at its distance from the host's, so that it goes on over
   *   the pause; by its value otherwise, so that it stands still
   * @throws {StateError} if the accelerator refuses a part, with its name
   */
  apply(tscOffsets?: boolean): void;
}

/**
 * Checks that a stream comes from a machine like this one.
 *
 * @throws {StateError} that says what differs
 */
export function checkConstants(machine: Machine, table: SectionTable): void {
  if (table.has(UUID, "")) checkUuid(machine.uuid, table.take(UUID, "").data);
  checkIdentity(machine, table.take("machine", ""));
  if (table.has(DEVICES, "")) checkDevices(machine, parseJson(table.take(DEVICES, "")));
  checkFirmwareFiles(
    firmwareFiles(machine),
    table.has(FIRMWARE_FILES, "") ? parseJson(table.take(FIRMWARE_FILES, "")) : {},
  );
  machine.cpus.identities.forEach(({ cpuid }, i) =>
    checkCpuid(machine, cpuid, table.take("cpu/cpuid", `${i}`).data, i)
  );
}

/**
 * A machine's changing state, to be read from the machine or put into it: buffers that are made
 * before the pause and filled within it.
 */
export class MachineState implements LoadedState {
  /** The sections that always come; `save` and `fill` fill their data. */
  readonly sections: readonly StateSection[];
  /** The devices' part of it. */
  readonly devices: DevicesState;
  readonly #machine: Machine;
  readonly #state: HardwareState;
  readonly #chips: readonly StateSection[];

  /**
   * Makes buffers.
   *
   * @param machine the machine
   * @param hardware where vCPUs and chips are; a rehearsal has others than the machine's, and so has who
   *   takes a guest out of an anchor
   */
  constructor(machine: Machine, hardware: StateMaker = machine.hardware) {
    this.#machine = machine;
    this.#state = hardware.makeState();
    this.#chips = hardwareSections(this.#state);
    this.devices = new DevicesState(machine.devices);
    this.sections = [...this.#chips, ...this.devices.sections];
  }

  /** Reads the state of a machine whose vCPUs are parked. @throws {OsError} */
  save(): void {
    this.#state.save();
    this.devices.save();
  }

  /** The sections that come only when they are needed, of what was saved. */
  subsections(): StateSection[] {
    return this.devices.subsections();
  }

  /**
   * Takes sections, one for each of its own and in the same order, and checks them, without changing
   * the machine.
   *
   * @param others has the subsections that have come, if any have
   * @throws {StateError} that names the section and what is wrong with it
   */
  fill(sections: readonly Section[], others?: SectionTable): void {
    this.#chips.forEach((own, i) => {
      checkChip(own.data, sections[i]);
      own.unpack(this.#translate(own, sections[i]));
    });
    this.devices.fill(sections.slice(this.#chips.length), others);
  }

  /**
   * A section as this accelerator has it, where another has saved it: MSRs that it lists too come in
   * place of its own when the state is written, and its own section stays as it is.
   */
  #translate(own: StateSection, section: Section): Section {
    const { name, data } = section;
    if (!FOREIGN_PARTS.includes(name)) return section;
    const index = Number(section.id);
    const vcpu = this.#state.vcpus[index];
    const same = name === "cpu/msrs" ? sameMsrs(own.data, data) : data.length === own.data.length;
    if (name === "cpu/msrs") vcpu.adoptMsrs(undefined);
    if (same || section.version !== VERSION) return section;
    try {
      if (name === "cpu/xsave") return { ...section, data: fitXsave(data, own.data.length) };
      const features = FeatureSet.fromCpuid(this.#machine.cpus.identities[index].cpuid);
      vcpu.adoptMsrs(adoptMsrs(own.data, data, features));
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new StateError(`Section ${describeSection(section)}: ${error.message}`);
    }
    return { ...section, data: own.data };
  }

  apply(tscOffsets = false): void {
    try {
      this.#state.restore({ clock: true, tscOffsets });
    } catch (error) {
      throw refused(this.#machine.accelerator.title, this.#state, error);
    }
    this.devices.apply();
  }
}

/**
 * Checks a whole state against a machine, without changing the machine.
 *
 * @throws {StateError} that names the section and what is wrong with it
 */
export function checkState(machine: Machine, sections: Iterable<Section>): LoadedState {
  const table = new SectionTable(sections);
  checkConstants(machine, table);
  const state = new MachineState(machine);
  state.fill(table.takeLike(state.sections), table);
  table.checkEmpty();
  return state;
}

/** The accelerator's error as one that names the section, as far as it is one section's. */
function refused(who: string, state: HardwareState, error: unknown): unknown {
  if (error instanceof PartRefused) {
    const key = { name: `cpu/${error.part}`, id: `${state.vcpus.indexOf(error.state)}` };
    return new StateError(`${who} refuses section ${describeSection(key)}: ${error.message}`, {
      cause: error.cause,
    });
  }
  if (!(error instanceof OsError)) return error;
  return new StateError(`${who} refuses the saved state: ${error.message}`, { cause: error });
}

function section(name: string, id: string, data: Uint8Array<ArrayBuffer>): StateSection {
  return new StateSection(name, id, VERSION, data);
}

/** The buffers of the hardware's state as sections: the kernel's structs, which do not change. */
function hardwareSections(state: HardwareState): StateSection[] {
  return [
    section("kvmclock", "", state.clock),
    ...state.vcpus.flatMap(({ parts, tscOffset }, i) => [
      ...vcpuParts.map((part) => section(`cpu/${part}`, `${i}`, parts[part])),
      ...(tscOffset ? [section("cpu/tsc_offset", `${i}`, tscOffset)] : []),
    ]),
    ...irqchips.map((chip, i) => section("irqchip", chip, state.irqchips[i])),
    ...(state.pit ? [section("pit", "", state.pit)] : []),
  ];
}

/** Checks what is not state but says what it is of: the accelerator would write another chip. */
function checkChip(own: Uint8Array<ArrayBuffer>, section: Section): void {
  if (section.name !== "irqchip" || section.data.length !== own.length) return;
  const [expected, chip] = [chipOf(own), chipOf(section.data)];
  if (chip !== expected) {
    throw new StateError(
      `Section ${describeSection(section)} is of chip ${chip}, expected ${expected}`,
    );
  }
}

function chipOf(irqchip: Uint8Array<ArrayBuffer>): number {
  return kvmIrqchip.view(irqchip.buffer, irqchip.byteOffset).chip_id;
}

/** What each of the user's files is: its size and checksum, by its name. */
function firmwareFiles({ firmware }: Machine): Record<string, string> {
  return Object.fromEntries(
    firmware.userFiles.map(({ name, data }) => [
      name,
      `${data.length} bytes, CRC ${crc32(data).toString(16)}`,
    ]),
  );
}

function checkFirmwareFiles(
  own: Record<string, string>,
  saved: Readonly<Record<string, unknown>>,
): void {
  for (const name of new Set([...Object.keys(own), ...Object.keys(saved)])) {
    const [ours, theirs] = [own, saved].map((files) =>
      Object.hasOwn(files, name) ? show(files[name]) : "none"
    );
    if (ours === theirs) continue;
    throw new StateError(
      `fw_cfg file '${name}' differs: this VM has ${ours}, the saved VM has ${theirs};` +
        " start with the same -fw_cfg",
    );
  }
}

function parseJson(section: Section): Record<string, unknown> {
  try {
    return Object(JSON.parse(decoder.decode(section.data)));
  } catch {
    throw new StateError(`Section ${describeSection(section)} is not JSON`);
  }
}

function checkIdentity(machine: Machine, section: Section): void {
  const own = machineIdentity(machine);
  const saved = parseJson(section);
  for (const key of new Set([...Object.keys(own), ...Object.keys(saved)])) {
    const [ours, theirs] = [own, saved].map((one) => one[key] ?? usualParts[key]);
    if (theirs === ours) continue;
    const [name, here, there] = [key, ours, theirs].map(show);
    throw new StateError(
      `Machine differs: this VM has ${name} ${here}, the saved VM has ${name} ${there}`,
    );
  }
}

function checkDevices(machine: Machine, saved: Readonly<Record<string, unknown>>): void {
  const own = deviceIdentities(machine.devices.description.devices, true);
  const difference = differentDevice(own, saved);
  if (difference !== undefined) throw new StateError(difference);
}

/** A value from JSON on one line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "none";
  return typeof value === "string" ? text.slice(1, -1) : text;
}

/** In QEMU's words. */
function checkUuid(own: string, data: Uint8Array): void {
  const received = decoder.decode(data);
  if (received !== own) {
    throw new StateError(`UUID received is ${JSON.stringify(received)} and local is "${own}"`);
  }
}

/** Guests cannot take a change of CPUID while they run. */
function checkCpuid(
  machine: Machine,
  own: readonly CpuidEntry[],
  saved: Uint8Array<ArrayBuffer>,
  index: number,
): void {
  const bytes = encodeCpuid(own);
  if (bytes.length === saved.length && bytes.every((byte, i) => byte === saved[i])) return;
  const host = hostCpu(machine.accelerator);
  throw new StateError(describeDifference(index, decodeSaved(saved, index), own, host));
}

function decodeSaved(saved: Uint8Array<ArrayBuffer>, index: number): CpuidEntry[] {
  try {
    return decodeCpuid(saved);
  } catch {
    throw new StateError(`CPUID of CPU ${index} is cut short`);
  }
}
