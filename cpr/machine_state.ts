/**
 * A machine's state as sections of the stream, and back.
 *
 * Every part of KVM's state is a section whose data is the kernel's own struct; every device is a
 * section whose data is the state struct that the device declares. Nothing of the machine is touched
 * before all sections are there, known, unique and of the right size.
 *
 * @module
 */
import { decodeCpuid, encodeCpuid } from "../ffi/kvm/system.ts";
import type { DeviceInstance } from "../vmm/device_set.ts";
import { type Hardware, type HardwareState, irqchips } from "../vmm/hardware.ts";
import type { Machine } from "../vmm/machine.ts";
import { vcpuParts } from "../vmm/vcpu_state.ts";
import { type Section, StateError } from "./stream.ts";

const VERSION = 1;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What two machines must have in common, in the words of the command line. */
export function machineIdentity(machine: Machine): Record<string, string> {
  return {
    machine: "microvm",
    memory: `${machine.memory.size}`,
    cpus: `${machine.vcpus.length}`,
    pit: machine.hardware.hasPit ? "on" : "off",
  };
}

/**
 * Reads the state of a machine whose vCPUs are parked.
 *
 * @param machine the machine
 * @param hardware where vCPUs and chips are read from; a rehearsal has others than the machine's
 */
export function saveMachine(machine: Machine, hardware: Hardware = machine.hardware): Section[] {
  const state = hardware.makeState();
  state.save(hardware);
  return [
    section("machine", "", encoder.encode(JSON.stringify(machineIdentity(machine)))),
    ...machine.cpus.vcpus.map(({ cpuid }, i) => section("cpu/cpuid", `${i}`, encodeCpuid(cpuid))),
    ...hardwareBuffers(state).map(({ name, id, data }) => section(name, id, data)),
    ...machine.devices.devices.map((device) => ({
      name: device.type.name,
      id: device.id,
      version: device.type.version,
      data: machine.devices.save(device),
    })),
  ];
}

/** A machine's state that has been read and checked, ready to be put into the machine. */
export interface LoadedState {
  /** Puts it in. The vCPUs are parked. @throws {OsError} if KVM refuses a part */
  apply(): void;
}

/**
 * Checks a stream's sections against a machine, without changing the machine.
 *
 * @param machine the machine
 * @param sections what came
 * @param hardware where vCPUs and chips are written to; a rehearsal touches nothing else
 * @throws {StateError} that names the section and what is wrong with it
 */
export function checkState(
  machine: Machine,
  sections: Iterable<Section>,
  hardware: Hardware = machine.hardware,
): LoadedState {
  const byKey = index(sections);
  const take = (name: string, id: string, version: number): Section => {
    const key = `${name}\0${id}`;
    const found = byKey.get(key);
    if (!found) throw new StateError(`Section '${name}' ${id} is missing from the stream`);
    if (found.version > version) {
      throw new StateError(
        `Unsupported version ${found.version} for '${name}' ${id}, newest known is ${version}`,
      );
    }
    byKey.delete(key);
    return found;
  };
  checkIdentity(machine, take("machine", "", VERSION).data);
  const cpuid = machine.cpus.vcpus.map(({ cpuid: own }, i) => {
    const saved = take("cpu/cpuid", `${i}`, VERSION).data;
    checkCpuid(encodeCpuid(own), saved, i);
    return decodeCpuid(saved);
  });
  const state = hardware.makeState();
  for (const { name, id, data } of hardwareBuffers(state)) fill(data, take(name, id, VERSION));
  const devices = machine.devices.devices.map((device): [DeviceInstance, Uint8Array] => {
    const data = new Uint8Array(device.state.length);
    fill(data, take(device.type.name, device.id, device.type.version));
    return [device, data];
  });
  for (const { name, id } of byKey.values()) {
    throw new StateError(
      `Unknown section or instance '${name}' ${id}. Make sure that your current VM setup matches` +
        " your saved VM setup, including any hotplugged devices",
    );
  }
  return {
    apply() {
      hardware.vcpus.forEach((vcpu, i) => vcpu.setCpuid(cpuid[i]));
      state.restore(hardware, { clock: true });
      if (hardware !== machine.hardware) return;
      for (const [device, data] of devices) machine.devices.restore(device, data);
      machine.devices.restored();
    },
  };
}

function section(name: string, id: string, data: Uint8Array<ArrayBuffer>): Section {
  return { name, id, version: VERSION, data };
}

/** The buffers of the hardware's state, with their keys in the stream. */
function hardwareBuffers(
  state: HardwareState,
): { name: string; id: string; data: Uint8Array<ArrayBuffer> }[] {
  return [
    { name: "kvmclock", id: "", data: state.clock },
    ...state.vcpus.flatMap((vcpu, i) =>
      vcpuParts.map((part) => ({ name: `cpu/${part}`, id: `${i}`, data: vcpu.parts[part] }))
    ),
    ...irqchips.map((chip, i) => ({ name: "irqchip", id: chip, data: state.irqchips[i] })),
    ...(state.pit ? [{ name: "pit", id: "", data: state.pit }] : []),
  ];
}

function index(sections: Iterable<Section>): Map<string, Section> {
  const byKey = new Map<string, Section>();
  for (const section of sections) {
    const key = `${section.name}\0${section.id}`;
    if (byKey.has(key)) {
      throw new StateError(`Section '${section.name}' ${section.id} appears twice in the stream`);
    }
    byKey.set(key, section);
  }
  return byKey;
}

function fill(target: Uint8Array, { name, id, data }: Section): void {
  if (data.length !== target.length) {
    throw new StateError(
      `Section '${name}' ${id} has ${data.length} bytes, expected ${target.length}`,
    );
  }
  target.set(data);
}

function checkIdentity(machine: Machine, data: Uint8Array): void {
  const own = machineIdentity(machine);
  let saved: Record<string, unknown>;
  try {
    saved = Object(JSON.parse(decoder.decode(data)));
  } catch {
    throw new StateError("Section 'machine' is not JSON");
  }
  for (const [key, value] of Object.entries(own)) {
    if (saved[key] !== value) {
      throw new StateError(
        `Machine differs: this VM has ${key} ${value}, the saved VM has ${key} ${saved[key]}`,
      );
    }
  }
}

/** Guests cannot take a change of CPUID while they run. */
function checkCpuid(own: Uint8Array, saved: Uint8Array, index: number): void {
  const same = own.length === saved.length && own.every((byte, i) => byte === saved[i]);
  if (!same) {
    throw new StateError(
      `CPUID of CPU ${index} differs from the saved VM's; start with the same -cpu on the same host`,
    );
  }
}
