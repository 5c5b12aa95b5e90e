/**
 * A whole VM in the stream: its machine's state, whether it ran, and in some modes its RAM.
 *
 * @module
 */
import { struct, u64, u8 } from "../ffi/struct.ts";
import type { Hardware } from "../vmm/hardware.ts";
import type { Machine } from "../vmm/machine.ts";
import { checkState, type LoadedState, saveMachine } from "./machine_state.ts";
import { loadRam, ramSections, type RamStatistics } from "./ram.ts";
import { type ByteSource, readSections, type Section, StateError } from "./stream.ts";

const GLOBAL_STATE = "globalstate";
/** What a stream says of the VM besides its machine. */
const globalState = struct("globalstate", {
  /** When the guest stopped, CLOCK_MONOTONIC of this host. */
  stopped_ns: u64,
  was_running: u8,
});

/** What is known of the guest when its state is taken. */
export interface GuestRun {
  /** Whether it ran when the migration began. */
  readonly wasRunning: boolean;
  /** When it stopped, nanoseconds of CLOCK_MONOTONIC. */
  readonly stoppedNs: bigint;
}

/** The sections of a parked VM, RAM left in place. */
export function stateSections(
  machine: Machine,
  run: GuestRun,
  hardware: Hardware = machine.hardware,
): Section[] {
  const { bytes: data } = globalState.alloc({
    stopped_ns: run.stoppedNs,
    was_running: run.wasRunning ? 1 : 0,
  });
  return [{ name: GLOBAL_STATE, id: "", version: 1, data }, ...saveMachine(machine, hardware)];
}

/** The sections of a parked VM with its RAM; `ignoreShared` is the capability x-ignore-shared. */
export function* copySections(
  machine: Machine,
  run: GuestRun,
  statistics: RamStatistics,
  ignoreShared: boolean,
): Generator<Section> {
  yield* ramSections(machine.memory, statistics, ignoreShared);
  yield* stateSections(machine, run);
}

/** A VM's state that was read and checked. */
export interface ReadVm extends LoadedState, GuestRun {}

/**
 * Reads a VM's stream to its end and checks it. RAM goes into memory as it comes; nothing else is
 * changed before `apply`.
 *
 * @param ignoreShared the capability x-ignore-shared, which a stream that comes with RAM must match
 * @throws {StateError}
 */
export function readVm(
  machine: Machine,
  source: ByteSource,
  ignoreShared: boolean,
  hardware: Hardware = machine.hardware,
): ReadVm {
  const rest: Section[] = [];
  for (const section of readSections(source)) {
    if (!loadRam(machine.memory, section, ignoreShared)) rest.push(section);
  }
  const global = rest.find((section) => section.name === GLOBAL_STATE);
  if (global?.data.length !== globalState.size) {
    throw new StateError(`Section '${GLOBAL_STATE}' is missing`);
  }
  const state = checkState(machine, rest.filter((section) => section !== global), hardware);
  const { was_running, stopped_ns } = globalState.view(global.data.buffer, global.data.byteOffset);
  return { wasRunning: was_running === 1, stoppedNs: stopped_ns, apply: () => state.apply() };
}
