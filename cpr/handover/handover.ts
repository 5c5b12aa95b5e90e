/**
 * What a successor takes over, on its way: a table of descriptors and values by (name, id).
 *
 * It travels as a stream (`stream.ts`): one section `fd/NAME` for each descriptor, whose data is its
 * number, and one section NAME for each value. In cpr-exec the number is the descriptor itself; in
 * cpr-transfer it is the position among those of the message. What there is in it, only its owners
 * know (`vmm/inheritance.ts`).
 *
 * What an older successor may do without, it must be able to leave. Version 1 refuses what it does not
 * know, but drops character devices that it has not: so an optional descriptor goes as one of a
 * character device that nobody has.
 *
 * @module
 */
import { isOpen, type OwnedFd } from "../../ffi/fd.ts";
import {
  type HandedFd,
  type HandedValue,
  type Handover,
  Inheritance,
  type Keeper,
  type Successor,
} from "../../vmm/inheritance.ts";
import { placement } from "../../vmm/threads/placement.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";
import type { Ownership } from "./ownership.ts";
import { checkVersion, describeSection, type Section, StateError } from "../stream/stream.ts";

/** Section names of descriptors begin so. */
const FD = "fd/";
/** What an optional descriptor's name is put behind, and its id at the end of. */
const OPTIONAL_FD = "fd/chardev/";
const SEPARATOR = ":";
/** The id of a character device that nobody has: the option's parser takes none like it. */
const NOBODY = "-optional";
const nobody: HandedValue = { name: "chardev", id: NOBODY, data: new TextEncoder().encode("{}") };
/** Version of all these sections. */
const VERSION = 1;

/** All that a VM hands over, and the page that says who owns the guest. */
export function collectHandover(
  vm: VirtualMachine,
  ownership: Ownership,
  to: Successor,
): Handover {
  const keepers: readonly Keeper[] = [ownership, ...vm.keepers, placement];
  const parts = keepers.map((keeper) => keeper.handOver(to));
  return {
    fds: parts.flatMap(({ fds }) => fds),
    values: parts.flatMap(({ values }) => values),
  };
}

/** The table as sections; `numberOf` says under which number the successor finds a descriptor. */
export function encodeHandover(
  { fds, values }: Handover,
  numberOf: (fd: HandedFd) => number,
): Section[] {
  return [
    ...fds.map((entry): Section => {
      const data = new Uint8Array(4);
      new DataView(data.buffer).setUint32(0, numberOf(entry), true);
      return { ...keyOf(entry), version: VERSION, data };
    }),
    ...values.map(valueSection),
    ...(fds.some(({ optional }) => optional) ? [valueSection(nobody)] : []),
  ];
}

/** A descriptor's key as a section. */
function keyOf({ name, id, optional }: HandedFd): Pick<Section, "name" | "id"> {
  if (!optional) return { name: FD + name, id };
  return { name: `${OPTIONAL_FD}${name}${SEPARATOR}${id}`, id: NOBODY };
}

/** A section's key as a descriptor's; undefined if it is not one of a descriptor. */
function fdKeyOf({ name, id }: Section): Omit<HandedFd, "fd"> | undefined {
  if (!name.startsWith(FD)) return undefined;
  const at = name.indexOf(SEPARATOR);
  const optional = id === NOBODY && name.startsWith(OPTIONAL_FD) && at !== -1;
  if (!optional) return { name: name.slice(FD.length), id };
  return { name: name.slice(OPTIONAL_FD.length, at), id: name.slice(at + 1), optional };
}

/** A value as a section. */
export function valueSection({ name, id, data }: HandedValue): Section {
  return { name, id, version: VERSION, data };
}

/**
 * Takes a table apart. Its descriptors are the inheritance's, except where this fails.
 *
 * @param sections the table
 * @param resolve gives the descriptor behind a number, or undefined; each number once
 * @param shared whether the predecessor goes on using them for now
 * @throws {StateError} that names the entry; the caller closes the descriptors
 */
export function decodeHandover(
  sections: Iterable<Section>,
  resolve: (number: number) => OwnedFd | undefined,
  shared: boolean,
): Inheritance {
  const inheritance = new Inheritance(shared);
  const keys = new Set<string>();
  for (const section of sections) {
    const { name, id } = section;
    checkVersion(section, VERSION);
    const fd = fdKeyOf(section);
    const key = fd ? `${FD}${fd.name}\0${fd.id}` : `${name}\0${id}`;
    if (keys.has(key)) {
      throw new StateError(`File descriptor ${describeSection(section)} appears twice`);
    }
    keys.add(key);
    if (fd) inheritance.addFd(fd.name, fd.id, take(section, resolve), fd.optional);
    else if (id !== NOBODY) inheritance.addValue(name, id, section.data);
  }
  return inheritance;
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
