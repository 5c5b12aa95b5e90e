/**
 * A whole VM in the stream: its machine's state, whether it ran, its character devices, and in some
 * modes its RAM.
 *
 * @module
 */
import type { SavedLayout } from "../../devices/saved_state.ts";
import { struct, u64, u8 } from "../../ffi/struct.ts";
import type { Keeper } from "../../vmm/inheritance.ts";
import type { Machine } from "../../vmm/machine/machine.ts";
import {
  checkConstants,
  type LoadedState,
  MachineState,
  type StateMaker,
} from "./machine_state.ts";
import { valueSection } from "../handover/handover.ts";
import { RamLoader } from "./ram.ts";
import { SectionTable } from "./section_table.ts";
import { layoutSection, type StateSection } from "./state_section.ts";
import {
  type ByteSource,
  readFurtherSections,
  readSections,
  type Section,
  StateError,
} from "../stream/stream.ts";
import { StreamFrame } from "../stream/stream_frame.ts";

/** The name of the section with {@linkcode globalState}. */
export const GLOBAL_STATE = "globalstate";
/** What a stream says of the VM besides its machine. */
export const globalState = {
  version: 1,
  state: struct("globalstate", {
    /** When the guest stopped, CLOCK_MONOTONIC of this host. */
    stopped_ns: u64,
    /** Which boot of which host: TSC offsets mean something there only. */
    boot_id_low: u64,
    boot_id_high: u64,
    was_running: u8,
  }),
} as const satisfies SavedLayout;

/** What is known of the guest when its state is taken. */
export interface GuestRun {
  /** Whether it ran when the migration began. */
  readonly wasRunning: boolean;
  /** When it stopped, nanoseconds of CLOCK_MONOTONIC. */
  readonly stoppedNs: number;
}

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
  /** The machine's part. */
  readonly machine: MachineState;
  /** The sections that always come. */
  readonly sections: readonly StateSection[];
  readonly #global: StateSection;
  readonly #run = globalState.state.alloc();

  /**
   * Makes empty buffers.
   *
   * @param machine the machine
   * @param hardware where vCPUs and chips are read from; a rehearsal has others than the machine's
   */
  constructor(machine: Machine, hardware: StateMaker = machine.hardware) {
    this.machine = new MachineState(machine, hardware);
    const { bytes, view } = this.#run;
    this.#global = layoutSection(GLOBAL_STATE, "", globalState, bytes, view);
    this.#global.pack();
    this.sections = [this.#global, ...this.machine.sections];
  }

  /**
   * Reads the state of a VM whose vCPUs are parked.
   *
   * @param keepers have what a successor has already opened, and knows as it was then
   * @returns the sections; the next call fills the same buffers
   */
  save(run: GuestRun, keepers: readonly Keeper[] = []): Section[] {
    this.machine.save();
    const { view } = this.#run;
    [view.boot_id_low, view.boot_id_high] = thisBoot();
    view.stopped_ns = BigInt(run.stoppedNs);
    view.was_running = run.wasRunning ? 1 : 0;
    this.#global.pack();
    const sections: Section[] = [...this.sections, ...this.machine.subsections()];
    for (const keeper of keepers) {
      for (const change of keeper.changes?.() ?? []) sections.push(valueSection(change));
    }
    return sections;
  }

  /**
   * Takes sections, one for each of its own and in the same order, and checks them, without changing
   * the machine.
   *
   * @param others has the subsections that have come, if any have
   * @throws {StateError} that names the section and what is wrong with it
   */
  fill([global, ...sections]: readonly Section[], others?: SectionTable): GuestRun & SavedHere {
    this.#global.unpack(global);
    const { was_running, stopped_ns, boot_id_low, boot_id_high } = this.#run.view;
    if (was_running > 1) {
      throw new StateError(`Section '${GLOBAL_STATE}' has was_running ${was_running}`);
    }
    this.machine.fill(sections, others);
    const [low, high] = thisBoot();
    return {
      wasRunning: was_running === 1,
      stoppedNs: Number(stopped_ns),
      sameBoot: boot_id_low === low && boot_id_high === high,
    };
  }
}

/** One with the layout of its stream, which takes as long to make as to read a state without. */
export class FramedImage extends VmImage {
  /** The stream that its sections begin. */
  readonly frame: StreamFrame = new StreamFrame(this.sections);

  /** The stream of what {@linkcode save} gave; the next call may fill the same bytes. */
  encode(saved: readonly Section[]): Uint8Array<ArrayBuffer> {
    return this.frame.encode(saved.slice(this.sections.length));
  }
}

/** Where a state was saved. */
interface SavedHere {
  /** Whether it was saved since this host was booted: then TSC offsets still hold. */
  readonly sameBoot: boolean;
}

/** A VM's state that was read and checked. */
export interface ReadVm extends LoadedState, GuestRun, SavedHere {
  /** What there is to do when the guest is here. */
  readonly takeOver: () => void;
}

/** What {@linkcode readVm} reads. */
export interface ReadOptions {
  /** The capability x-ignore-shared, which a stream that comes with RAM must match. */
  readonly ignoreShared?: boolean;
  /** Whether the constant sections have been compared before. */
  readonly agreed?: boolean;
  /** Whose things may have changed since they were handed over. */
  readonly keepers?: readonly Keeper[];
  /** What takes the state, where it was made before. */
  readonly target?: FramedImage;
}

/**
 * Reads a VM's stream to its end and checks it. RAM goes into memory as it comes; nothing else is
 * changed before `apply`. If either fails, the RAM that came is zero again.
 *
 * RAM must come in the stream, all of it, unless a predecessor passed it or x-ignore-shared leaves
 * it in its file: a guest must never find zeros where its memory was.
 *
 * @param source gives the stream
 * @param ahead what `source` has already: if that begins in the target's frame, and the constant
 *   sections have been compared before, it is taken at once
 * @throws {StateError}
 */
export function readVm(
  machine: Machine,
  source: ByteSource,
  { ignoreShared = false, agreed = false, keepers = [], target }: ReadOptions = {},
  ahead?: Uint8Array<ArrayBuffer>,
): ReadVm {
  const ram = new RamLoader(machine.memory, ignoreShared);
  const image = target ?? new VmImage(machine);
  try {
    const framed = agreed && target && ahead ? takeFramed(target, source, ahead) : undefined;
    const { state, rest } = framed ?? takeAll(image, withoutRam(source, ram), machine, agreed);
    ram.finish();
    const run = image.fill(state, rest);
    const takeOvers = keepers.map((keeper) => takeChanges(keeper, rest));
    rest?.checkEmpty();
    const apply = (tscOffsets?: boolean) => applyOrUndo(image.machine, ram, tscOffsets);
    return { ...run, apply, takeOver: () => takeOvers.forEach((takeOver) => takeOver?.()) };
  } catch (error) {
    ram.undo();
    throw error;
  }
}

/** The sections of a {@linkcode VmImage}, and what else came. */
interface TakenState {
  readonly state: readonly Section[];
  readonly rest?: SectionTable;
}

/** Takes a stream that begins in an image's frame, as far as it is there already. */
function takeFramed(
  { frame, sections }: FramedImage,
  source: ByteSource,
  ahead: Uint8Array<ArrayBuffer>,
): TakenState | undefined {
  const framed = frame.decode(ahead);
  if (!framed) return undefined;
  const { sections: state, length, whole } = framed;
  source(whole ?? length);
  if (whole !== undefined) return { state };
  const rest = new SectionTable([...state, ...readFurtherSections(source, state.length)]);
  return { state: rest.takeLike(sections), rest };
}

/** Takes a stream as it comes. */
function takeAll(
  image: VmImage,
  sections: Iterable<Section>,
  machine: Machine,
  agreed: boolean,
): TakenState {
  const rest = new SectionTable(sections);
  if (!agreed) checkConstants(machine, rest);
  return { state: rest.takeLike(image.sections), rest };
}

/** @throws {StateError} if what has changed makes no sense */
function takeChanges(keeper: Keeper, rest?: SectionTable): (() => void) | undefined {
  const { changing } = keeper;
  try {
    return keeper.arrive?.(rest && changing !== undefined ? rest.takeAll(changing) : []);
  } catch (error) {
    throw new StateError((error as Error).message, { cause: error });
  }
}

/** Reads to the end; gives the sections that are not RAM. */
function* withoutRam(source: ByteSource, ram: RamLoader): Generator<Section> {
  for (const section of readSections(source)) {
    if (!ram.take(section)) yield section;
  }
}

function applyOrUndo(state: LoadedState, ram: RamLoader, tscOffsets?: boolean): void {
  try {
    state.apply(tscOffsets);
  } catch (error) {
    ram.undo();
    throw error;
  }
}
