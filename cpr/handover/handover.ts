/**
 * What a successor takes over, on its way: a table of descriptors and values by (name, id).
 *
 * It travels as a stream (`stream.ts`): one section `fd/NAME` for each descriptor, whose data is its
 * number, and one section NAME for each value. In cpr-exec the number is the descriptor itself; in
 * cpr-transfer it is the position among those of the message. What there is in it, only its owners
 * know (`vmm/inheritance.ts`).
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
      return { name: FD + entry.name, id: entry.id, version: VERSION, data };
    }),
    ...values.map(valueSection),
  ];
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
    const { name, id, data } = section;
    checkVersion(section, VERSION);
    const key = `${name}\0${id}`;
    if (keys.has(key)) {
      throw new StateError(`File descriptor ${describeSection(section)} appears twice`);
    }
    keys.add(key);
    if (!name.startsWith(FD)) inheritance.addValue(name, id, data);
    else inheritance.addFd(name.slice(FD.length), id, take(section, resolve));
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
