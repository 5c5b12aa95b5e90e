/**
 * The PCI Express root bus in the DSDT, as QEMU's microvm tells of it.
 *
 * @module
 */
import type { Window } from "../../machine/microvm.ts";
import {
  type Aml,
  and,
  argument,
  bufferDword,
  device,
  eisaId,
  equal,
  integer,
  local,
  method,
  name,
  not,
  or,
  otherwise,
  packageOf,
  path,
  returned,
  store,
  unicode,
  uuid,
  when,
} from "./aml.ts";
import { busNumbers, interrupt, memory32, memory64, resources } from "./resources.ts";

/** What there is of a root bus. */
export interface PciOptions {
  /** Its configuration space. */
  readonly ecam: Window;
  /** What addresses of 32 and of 64 bits can be given to its functions. */
  readonly window32: Window;
  readonly window64: Window;
  /** The interrupts (GSIs) of its four wires. */
  readonly irqs: readonly number[];
}

/** How many devices a bus can have, and how many pins each. */
const DEVICES = 32;
const PINS = 4;
const BUSES = 256;

/** Makes the bus, and the links that its interrupts go by. */
export function rootBus({ ecam, window32, window64, irqs }: PciOptions): Aml[] {
  const bus = device(
    "PCI0",
    name("_HID", eisaId("PNP0A08")),
    name("_CID", eisaId("PNP0A03")),
    name("_SEG", integer(0)),
    name("_BBN", integer(0)),
    name("_UID", integer(0)),
    name("_STR", unicode("PCIe 0 Device")),
    name("_CCA", integer(1)),
    name("_PRT", routes(irqs.length)),
    name(
      "_CRS",
      resources(
        busNumbers(0, BUSES),
        memory32(window32.base, window32.size),
        memory64(window64.base, window64.size),
      ),
    ),
    control(),
    // Nobody else may use the addresses of configuration space.
    device(
      "RES0",
      name("_HID", eisaId("PNP0C02")),
      name("_CRS", resources(memory64(ecam.base, ecam.size))),
    ),
  );
  return [...irqs.map(link), bus];
}

/** What `_OSC` of a PCI Express root bus is asked by (PCI Firmware 3.3, 4.5.1). */
const PCI_UUID = "33db4d5b-1ff7-401c-9657-7441c03dd766";
/** Native hot-plug, SHPC hot-plug, power management events, error reporting, capability structures. */
const GRANTED = 0x1f;
/** Bits of the first word that is returned (ACPI 6.5, 6.2.12). */
const Osc = { UNKNOWN_UUID: 1 << 2, UNKNOWN_REVISION: 1 << 3, MASKED: 1 << 4 } as const;

/** `_OSC`: the operating system has control of hot-plug, among others, as under QEMU. */
function control(): Aml {
  const [wanted, words] = [local(0), argument(3)];
  const flag = (bit: number) => or(path("CDW1"), integer(bit), path("CDW1"));
  return method(
    "_OSC",
    4,
    bufferDword(words, 0, "CDW1"),
    when(
      equal(argument(0), uuid(PCI_UUID)),
      bufferDword(words, 4, "CDW2"),
      bufferDword(words, 8, "CDW3"),
      and(path("CDW3"), integer(GRANTED), wanted),
      when(not(equal(argument(1), integer(1))), flag(Osc.UNKNOWN_REVISION)),
      when(not(equal(path("CDW3"), wanted)), flag(Osc.MASKED)),
      store(wanted, path("CDW3")),
    ),
    otherwise(flag(Osc.UNKNOWN_UUID)),
    returned(words),
  );
}

/** What interrupt each pin of each device comes by (6.2.13): the next device's are turned by one. */
function routes(links: number): Aml {
  const all = Array.from({ length: DEVICES * PINS }, (_, i) => {
    const [slot, pin] = [Math.floor(i / PINS), i % PINS];
    return packageOf(
      integer(slot * 2 ** 16 + 0xffff),
      integer(pin),
      path(`GSI${(slot + pin) % links}`),
      integer(0),
    );
  });
  return packageOf(...all);
}

/** An interrupt that cannot be set otherwise. */
function link(gsi: number, index: number): Aml {
  const place = resources(interrupt(gsi, "level"));
  return device(
    `GSI${index}`,
    name("_HID", eisaId("PNP0C0F")),
    name("_UID", integer(index)),
    name("_PRS", place),
    name("_CRS", place),
    method("_SRS", 1),
  );
}
