/**
 * A whole VM in the stream: its machine's state, whether it ran, and in some modes its RAM.
 *
 * @module
 */
import type { Machine } from "../vmm/machine.ts";
import { checkState, type LoadedState, saveMachine } from "./machine_state.ts";
import { loadRam, RAM_SECTION, ramSections, type RamStatistics } from "./ram.ts";
import { type ByteSource, readSections, type Section, StateError } from "./stream.ts";

const GLOBAL_STATE = "globalstate";

/** The sections of a parked VM, RAM left in place. */
export function stateSections(machine: Machine, wasRunning: boolean): Section[] {
  const data = new Uint8Array([wasRunning ? 1 : 0]);
  return [{ name: GLOBAL_STATE, id: "", version: 1, data }, ...saveMachine(machine)];
}

/** The sections of a parked VM with its RAM. */
export function* copySections(
  machine: Machine,
  wasRunning: boolean,
  statistics: RamStatistics,
): Generator<Section> {
  yield* ramSections(machine.memory, statistics);
  yield* stateSections(machine, wasRunning);
}

/** A VM's state that was read and checked. */
export interface ReadVm extends LoadedState {
  /** Whether the guest ran when the migration began. */
  readonly wasRunning: boolean;
}

/**
 * Reads a VM's stream to its end and checks it. RAM goes into memory as it comes; nothing else is
 * changed before `apply`.
 *
 * @throws {StateError}
 */
export function readVm(machine: Machine, source: ByteSource): ReadVm {
  const rest: Section[] = [];
  for (const section of readSections(source)) {
    if (section.name === RAM_SECTION) loadRam(machine.memory, section);
    else rest.push(section);
  }
  const global = rest.find((section) => section.name === GLOBAL_STATE);
  if (global?.data.length !== 1) throw new StateError(`Section '${GLOBAL_STATE}' is missing`);
  const state = checkState(machine, rest.filter((section) => section !== global));
  return { wasRunning: global.data[0] === 1, apply: () => state.apply() };
}
