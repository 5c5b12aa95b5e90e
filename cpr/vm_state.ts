/**
 * A whole VM in the stream: its machine's state, whether it ran, its character devices, and in some
 * modes its RAM.
 *
 * @module
 */
import type { ChardevState } from "../devices/chardev/backend.ts";
import { struct, u64, u8 } from "../ffi/struct.ts";
import type { Hardware } from "../vmm/hardware.ts";
import type { Machine } from "../vmm/machine.ts";
import {
  checkChanges,
  checkConstants,
  constantSections,
  type LoadedState,
  MachineImage,
  SectionTable,
} from "./machine_state.ts";
import { CHARDEV_STATE, chardevSection, parseChardev } from "./fd_table.ts";
import { loadRam } from "./ram.ts";
import { type ByteSource, readSections, type Section, StateError } from "./stream.ts";

/** The name of the section with {@linkcode globalState}. */
export const GLOBAL_STATE = "globalstate";
/** What a stream says of the VM besides its machine. */
export const globalState = struct("globalstate", {
  /** When the guest stopped, CLOCK_MONOTONIC of this host. */
  stopped_ns: u64,
  /** Which boot of which host: TSC offsets mean something there only. */
  boot_id_low: u64,
  boot_id_high: u64,
  was_running: u8,
});

/** What is known of the guest when its state is taken. */
export interface GuestRun {
  /** Whether it ran when the migration began. */
  readonly wasRunning: boolean;
  /** When it stopped, nanoseconds of CLOCK_MONOTONIC. */
  readonly stoppedNs: number;
}

/** Character devices' states by id. */
export type ChardevStates = ReadonlyMap<string, ChardevState>;

let bootId: readonly [bigint, bigint] | undefined;

/** The kernel's random id of this boot (proc(5), /proc/sys/kernel/random/boot_id). */
function thisBoot(): readonly [bigint, bigint] {
  if (!bootId) {
    const hex = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").replaceAll(
      /[^\da-f]/g,
      "",
    );
    bootId = [BigInt(`0x${hex.slice(16, 32)}`), BigInt(`0x${hex.slice(0, 16)}`)];
  }
  return bootId;
}

/** A VM's changing state: buffers that are made before the pause and filled within it. */
export class VmImage {
  readonly #global = globalState.alloc();
  readonly #machine: MachineImage;

  /**
   * Makes empty buffers.
   *
   * @param machine the machine
   * @param hardware where vCPUs and chips are read from; a rehearsal has others than the machine's
   */
  constructor(machine: Machine, hardware: Hardware = machine.hardware) {
    this.#machine = new MachineImage(machine, hardware);
    const [low, high] = thisBoot();
    Object.assign(this.#global.view, { boot_id_low: low, boot_id_high: high });
  }

  /**
   * Reads the state of a VM whose vCPUs are parked.
   *
   * @param chardevs states of character devices that a successor has already opened
   * @returns the sections; the next call fills the same buffers
   */
  save(run: GuestRun, chardevs: ChardevStates = new Map()): Section[] {
    this.#machine.save();
    const { view, bytes } = this.#global;
    view.stopped_ns = BigInt(run.stoppedNs);
    view.was_running = run.wasRunning ? 1 : 0;
    const sections: Section[] = [{ name: GLOBAL_STATE, id: "", version: 1, data: bytes }];
    for (const section of this.#machine.sections) sections.push(section);
    for (const [id, state] of chardevs) sections.push(chardevSection(id, state));
    return sections;
  }
}

/** The whole state of a parked VM, RAM left in place. */
export function stateSections(machine: Machine, run: GuestRun): Section[] {
  return [...constantSections(machine), ...new VmImage(machine).save(run)];
}

/** A VM's state that was read and checked. */
export interface ReadVm extends LoadedState, GuestRun {
  /** Whether it was saved since this host was booted: then TSC offsets still hold. */
  readonly sameBoot: boolean;
  readonly chardevs: ChardevStates;
}

/** What {@linkcode readVm} reads. */
export interface ReadOptions {
  /** The capability x-ignore-shared, which a stream that comes with RAM must match. */
  readonly ignoreShared?: boolean;
  /** Whether the constant sections have been compared before. */
  readonly agreed?: boolean;
  /** Where vCPUs and chips are written to; a rehearsal has others than the machine's. */
  readonly hardware?: Hardware;
}

/**
 * Reads a VM's stream to its end and checks it. RAM goes into memory as it comes; nothing else is
 * changed before `apply`.
 *
 * @throws {StateError}
 */
export function readVm(
  machine: Machine,
  source: ByteSource,
  { ignoreShared = false, agreed = false, hardware = machine.hardware }: ReadOptions = {},
): ReadVm {
  const rest: Section[] = [];
  for (const section of readSections(source)) {
    if (!loadRam(machine.memory, section, ignoreShared)) rest.push(section);
  }
  const table = new SectionTable(rest);
  if (!agreed) checkConstants(machine, table);
  const { data } = table.take(GLOBAL_STATE, "");
  if (data.length !== globalState.size) {
    throw new StateError(
      `Section '${GLOBAL_STATE}' has ${data.length} bytes, expected ${globalState.size}`,
    );
  }
  const global = globalState.view(data.buffer, data.byteOffset);
  const [low, high] = thisBoot();
  const state = checkChanges(machine, table, hardware);
  const chardevs = table.takeAll(CHARDEV_STATE).map((section) =>
    [section.id, parseChardev(section)] as const
  );
  table.checkEmpty();
  return {
    wasRunning: global.was_running === 1,
    stoppedNs: Number(global.stopped_ns),
    sameBoot: global.boot_id_low === low && global.boot_id_high === high,
    chardevs: new Map(chardevs),
    apply: state.apply,
  };
}
