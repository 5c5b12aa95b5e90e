/**
 * The descriptors that a successor takes over, keyed by (name, id), and what must be known of them.
 *
 * They travel as a stream (`stream.ts`): one section `fd/NAME` for each descriptor, whose data is
 * its number, and one section `chardev` for the state of each character device. In cpr-exec the
 * number is the descriptor itself; in cpr-transfer it is the position among those of the message.
 *
 * @module
 */
import type { ChardevState, KeptChardev } from "../../devices/chardev/backend.ts";
import { accessMode, fileStatus, isOpen, O, type OwnedFd } from "../../ffi/fd.ts";
import { Seal, sealsOf } from "../../ffi/memory.ts";
import { MAX_MESSAGE_FDS } from "../../ffi/socket_message.ts";
import { placement } from "../../vmm/threads/placement.ts";
import type { KeptResources } from "../../vmm/resources.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import { OWNERSHIP_SIZE } from "./ownership.ts";
import { checkVersion, describeSection, type Section, StateError } from "../stream/stream.ts";

/** Section name of guest memory. */
const MEMORY = "fd/memory";
/** Section names of character devices' descriptors begin so; the rest is the name in the backend. */
const CHARDEV_FD = "fd/chardev/";
/** Section name of a character device's state. */
export const CHARDEV_STATE = "chardev";
/** The descriptor that new clients come to, in the table of a socket's backend. */
const LISTENER = "listener";
/** The page that says who owns the guest. */
const OWNERSHIP = "fd/ownership";
/** The pidfile, whose lock a successor goes on having. */
const PIDFILE = "fd/pidfile";
/** Section name of the processors that the guest has for itself. */
const PROCESSORS = "processors";
/** Version of all these sections. */
const VERSION = 1;

/** What is left of the old VM, of no use to anyone: it is closed after the pause. */
const OLD_VM = "fd/kvm";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** One descriptor on its way. */
export interface KeptFd {
  /** A section name. */
  readonly name: string;
  readonly id: string;
  readonly fd: number;
}

/** Everything a successor gets besides the machine's state. */
export interface FdTable {
  readonly fds: readonly KeptFd[];
  /** State of the character devices, by id. */
  readonly chardevs: ReadonlyMap<string, ChardevState>;
  /** The host's processors that this VMM leaves to the guest. */
  readonly processors: readonly number[];
}

/**
 * Collects what a VM hands over.
 *
 * @param vm the VM
 * @param ownership the ownership page
 * @param beside whether this process lives on beside its successor, which then has monitors of its
 *   own and gets nothing of this one's
 */
export function collectFds(vm: VirtualMachine, ownership: number, beside: boolean): FdTable {
  const fds: KeptFd[] = [{ name: OWNERSHIP, id: "", fd: ownership }];
  if (vm.pidfile) fds.push({ name: PIDFILE, id: "", fd: vm.pidfile.fd });
  for (const [id, { fd, config }] of vm.backends) {
    if (fd && config.share) fds.push({ name: MEMORY, id, fd: fd.fd });
  }
  const chardevs = new Map<string, ChardevState>();
  for (const [id, backend] of vm.chardevs.backends) {
    const keeps = vm.chardevs.keeps(id);
    if (keeps === "nothing" || (beside && keeps !== "all")) continue;
    const state = keeps === "all" ? vm.chardevs.stateOf(id) : backend.saveState();
    chardevs.set(id, keeps === "listener" ? { ...state, connected: false } : state);
    for (const { name, fd } of backend.keptFds()) {
      if (keeps !== "listener" || name === LISTENER) fds.push({ name: CHARDEV_FD + name, id, fd });
    }
  }
  return { fds, chardevs, processors: placement.guest };
}

/** The old VM's entries. An exec that closed it would wait for it to be taken apart, within the pause. */
export function oldVm(vm: VirtualMachine): KeptFd[] {
  return vm.machine.hardware.vm.remains.map(({ fd }) => ({ name: OLD_VM, id: "", fd }));
}

/** The states that the character devices have now, of those that a successor beside this VM has. */
export function chardevStates(vm: VirtualMachine): Map<string, ChardevState> {
  const states = new Map<string, ChardevState>();
  for (const id of vm.chardevs.backends.keys()) {
    if (vm.chardevs.keeps(id) === "all") states.set(id, vm.chardevs.stateOf(id));
  }
  return states;
}

/** The table as sections; `numberOf` says under which number the successor finds a descriptor. */
export function encodeFds(table: FdTable, numberOf: (fd: KeptFd) => number): Section[] {
  return [
    ...table.fds.map((entry): Section => {
      const data = new Uint8Array(4);
      new DataView(data.buffer).setUint32(0, numberOf(entry), true);
      return { name: entry.name, id: entry.id, version: VERSION, data };
    }),
    ...[...table.chardevs].map(([id, state]) => chardevSection(id, state)),
    { name: PROCESSORS, id: "", version: VERSION, data: toBytes(table.processors) },
  ];
}

function toBytes(numbers: readonly number[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint16Array.from(numbers).buffer);
}

function takeProcessors({ data }: Section): number[] {
  if (data.length % 2 === 0) return [...new Uint16Array(data.slice().buffer)];
  throw new StateError(`Section '${PROCESSORS}' has ${data.length} bytes, expected an even number`);
}

/** A character device's state as a section. */
export function chardevSection(id: string, state: ChardevState): Section {
  const data = encoder.encode(JSON.stringify(state));
  return { name: CHARDEV_STATE, id, version: VERSION, data };
}

/** What a successor has been given. */
export interface ReceivedTable {
  readonly kept: KeptResources;
  /** The page that says who owns the guest. */
  readonly ownership: OwnedFd;
  /** What is only to be closed once the guest runs. */
  readonly remains: readonly OwnedFd[];
  /** The host's processors that the predecessor leaves to the guest. */
  readonly processors: readonly number[];
  /** The pidfile, locked, if the predecessor has one. */
  readonly pidfile?: OwnedFd;
}

/**
 * Takes a table apart and checks every descriptor.
 *
 * @param sections the table
 * @param resolve gives the descriptor behind a number, or undefined; each number once
 * @throws {StateError} that names the entry; the caller closes the descriptors
 */
export function decodeFds(
  sections: Iterable<Section>,
  resolve: (number: number) => OwnedFd | undefined,
): ReceivedTable {
  const memory = new Map<string, OwnedFd>();
  const fdsOf = new Map<string, Map<string, OwnedFd>>();
  const states = new Map<string, ChardevState>();
  const remains: OwnedFd[] = [];
  let processors: number[] | undefined;
  let ownership: OwnedFd | undefined;
  let pidfile: OwnedFd | undefined;
  for (const section of sections) {
    const { name, id } = section;
    checkVersion(section, VERSION);
    const unique = <T>(map: Map<string, T>, key: string, value: T) => {
      if (map.has(key)) {
        throw new StateError(`File descriptor ${describeSection(section)} appears twice`);
      }
      map.set(key, value);
    };
    if (name === CHARDEV_STATE) unique(states, id, parseChardev(section));
    else if (name === PROCESSORS && !processors) processors = takeProcessors(section);
    else if (name === MEMORY) unique(memory, id, checkMemory(take(section, resolve), id));
    else if (name === OWNERSHIP && id === "" && ownership === undefined) {
      ownership = checkOwnership(take(section, resolve));
    } else if (name === PIDFILE && id === "" && pidfile === undefined) {
      pidfile = checkFile(take(section, resolve), "Pidfile", "a file");
    } else if (name === OLD_VM && remains.length === 0) remains.push(take(section, resolve));
    else if (name.startsWith(CHARDEV_FD)) {
      const fds = fdsOf.get(id) ?? new Map<string, OwnedFd>();
      fdsOf.set(id, fds);
      unique(fds, name.slice(CHARDEV_FD.length), take(section, resolve));
    } else throw new StateError(`Unknown file descriptor ${describeSection(section)}`);
  }
  const chardevs = new Map<string, KeptChardev>();
  for (const [id, state] of states) {
    chardevs.set(id, { state, fds: fdsOf.get(id) ?? new Map() });
    fdsOf.delete(id);
  }
  for (const id of fdsOf.keys()) {
    throw new StateError(`Character device ${quote(id)} has file descriptors but no state`);
  }
  if (!ownership) throw new StateError(`File descriptor '${OWNERSHIP}' is missing`);
  if (!processors) throw new StateError(`Section '${PROCESSORS}' is missing`);
  return { kept: { memory, chardevs, shared: false }, ownership, remains, processors, pidfile };
}

/** The descriptors of a table that was received, under the names they came with. */
export function listFds({ kept, ownership, pidfile }: ReceivedTable): KeptFd[] {
  return [
    { name: OWNERSHIP, id: "", fd: ownership.fd },
    ...(pidfile ? [{ name: PIDFILE, id: "", fd: pidfile.fd }] : []),
    ...[...kept.memory].map(([id, { fd }]) => ({ name: MEMORY, id, fd })),
    ...[...kept.chardevs].flatMap(([id, { fds }]) =>
      [...fds].map(([name, { fd }]) => ({ name: CHARDEV_FD + name, id, fd }))
    ),
  ];
}

/** The number of descriptors that fit into one message. */
export const MAX_FDS = MAX_MESSAGE_FDS;

/** An id from outside, on one line. */
function quote(id: string): string {
  return `'${JSON.stringify(id).slice(1, -1)}'`;
}

function take(section: Section, resolve: (number: number) => OwnedFd | undefined): OwnedFd {
  const { data } = section;
  if (data.length !== 4) {
    throw new StateError(`File descriptor ${describeSection(section)} has no number`);
  }
  const fd = resolve(new DataView(data.buffer, data.byteOffset).getUint32(0, true));
  if (!fd || !isOpen(fd.fd)) {
    throw new StateError(`File descriptor ${describeSection(section)} was not passed`);
  }
  return fd;
}

/** Guest memory comes as a regular file whose size nobody can take away, if it is a memfd. */
function checkMemory(fd: OwnedFd, id: string): OwnedFd {
  checkFile(fd, `Memory ${quote(id)}`, "memory");
  // A file on tmpfs, and a memfd with seal=off, has F_SEAL_SEAL alone: nobody can seal those.
  const seals = sealsOf(fd.fd);
  if (seals !== undefined && (seals & (Seal.SHRINK | Seal.SEAL)) === 0) {
    throw new StateError(`Memory ${quote(id)} is a memfd that can shrink`);
  }
  return fd;
}

function checkFile(fd: OwnedFd, what: string, wanted: string): OwnedFd {
  const { kind } = fileStatus(fd.fd);
  if (kind !== "file") throw new StateError(`${what} is a ${kind}, not ${wanted}`);
  return fd;
}

/** The page is written by both, and nobody may take it away from under the other. */
function checkOwnership(fd: OwnedFd): OwnedFd {
  checkMemory(fd, "ownership");
  const { size } = fileStatus(fd.fd);
  if (size < OWNERSHIP_SIZE) throw new StateError(`Ownership page has only ${size} bytes`);
  const seals = sealsOf(fd.fd) ?? 0;
  if ((seals & Seal.SHRINK) === 0) throw new StateError("Ownership page can shrink");
  if ((seals & Seal.WRITE) !== 0 || accessMode(fd.fd) !== O.RDWR) {
    throw new StateError("Ownership page cannot be written");
  }
  return fd;
}

/** The state in a character device's section. @throws {StateError} if there is none */
export function parseChardev({ id, data }: Section): ChardevState {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(data));
  } catch {
    throw new StateError(`State of character device ${quote(id)} is not JSON`);
  }
  const plain = typeof value === "object" && value !== null && !Array.isArray(value) &&
    Object.values(value).every((v) => ["string", "number", "boolean"].includes(typeof v));
  if (!plain) throw new StateError(`State of character device ${quote(id)} is not a plain object`);
  return value as ChardevState;
}
