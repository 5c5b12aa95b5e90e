/**
 * The Differentiated System Description Table: the devices that a guest cannot find by itself, and how
 * to sleep, as QEMU's microvm tells them.
 *
 * @module
 */
import { GED, GED_EVENTS_SIZE, GedEvent, SleepType } from "../../../devices/acpi/ged.ts";
import type { VirtioTransport } from "../../machine/microvm.ts";
import {
  type Aml,
  and,
  device,
  dwordField,
  eisaId,
  equal,
  integer,
  join,
  local,
  memoryRegion,
  name,
  notify,
  packageOf,
  path,
  scope,
  serializedMethod,
  store,
  string,
  when,
} from "./aml.ts";
import { type PciOptions, rootBus } from "./pci.ts";
import { interrupt, io, irqNoFlags, memory32Fixed, resources } from "./resources.ts";
import { type Oem, table } from "./table.ts";

/** A device with I/O ports and an ISA interrupt. */
export interface IsaPlace {
  readonly port: number;
  readonly irq: number;
}

/** What the table tells of. */
export interface DsdtOptions {
  /** Serial ports. */
  readonly serials: readonly IsaPlace[];
  /** The CMOS clock. */
  readonly rtc?: IsaPlace;
  /** The virtio-mmio transports that have devices, by their numbers. */
  readonly transports: ReadonlyMap<number, VirtioTransport>;
  /** Guest physical address of the generation ID, if there is one. */
  readonly generationId?: number;
  /** The PCI Express root bus, if there is one. */
  readonly pci?: PciOptions;
}

/** With integers of 64 bits. */
const REVISION = 2;
/** Status of a device that is there, works and decodes its addresses (6.3.7); one also shown to users. */
const Status = { HIDDEN: 0x0b, SHOWN: 0x0f } as const;
/** What a device is notified of: the button was pressed (5.6.6), the generation is another one. */
const NOTIFICATION = 0x80;

/** Makes the table. */
export function dsdt(oem: Oem, options: DsdtOptions): Uint8Array<ArrayBuffer> {
  const { serials, rtc, transports, generationId, pci } = options;
  const devices = [
    firmwareConfiguration(),
    keyboard(),
    ...serials.map(serial),
    ...rtc ? [clock(rtc)] : [],
    ...generationId === undefined ? [] : [generation(generationId)],
    eventDevice(generationId !== undefined),
    powerButton(),
    ...Array.from(transports, ([number, place]) => transport(number, place)),
    ...pci ? rootBus(pci) : [],
  ];
  return table(
    "DSDT",
    REVISION,
    oem,
    join(scope("_SB", ...devices), sleepState(3, SleepType.S3), sleepState(5, SleepType.S5)),
  );
}

function firmwareConfiguration(): Aml {
  return device(
    "FWCF",
    name("_HID", string("QEMU0002")),
    name("_STA", integer(Status.HIDDEN)),
    name("_CRS", resources(io(0x510, 12))),
  );
}

/** The keyboard behind the i8042. */
function keyboard(): Aml {
  return device(
    "KBD",
    name("_HID", eisaId("PNP0303")),
    name("_STA", integer(Status.SHOWN)),
    name("_CRS", resources(io(0x60, 1), io(0x64, 1), irqNoFlags(1))),
  );
}

function serial({ port, irq }: IsaPlace, index: number): Aml {
  const number = index + 1;
  return device(
    `COM${number}`,
    name("_HID", eisaId("PNP0501")),
    name("_UID", integer(number)),
    name("_STA", integer(Status.SHOWN)),
    name("_CRS", resources(io(port, 8), irqNoFlags(irq))),
  );
}

function clock({ port, irq }: IsaPlace): Aml {
  return device(
    "RTC",
    name("_HID", eisaId("PNP0B00")),
    name("_CRS", resources(io(port, 2), irqNoFlags(irq))),
  );
}

/** The generic event device (5.6.9): what happened is in a register that reading clears. */
function eventDevice(hasGeneration: boolean): Aml {
  const events = local(0);
  const on = (event: number, device: string) =>
    when(
      equal(and(events, integer(event)), integer(event)),
      notify(path(device), NOTIFICATION),
    );
  return device(
    "GED",
    name("_HID", string("ACPI0013")),
    name("_UID", string("GED")),
    name("_CRS", resources(interrupt(GED.irq, "edge"))),
    memoryRegion("EREG", GED.events, GED_EVENTS_SIZE),
    dwordField("EREG", ["ESEL", 32]),
    serializedMethod(
      "_EVT",
      1,
      store(path("ESEL"), events),
      on(GedEvent.POWER_BUTTON, "PWRB"),
      ...hasGeneration ? [on(GedEvent.GENERATION, "VGEN")] : [],
    ),
  );
}

/** The Virtual Machine Generation ID: where it is, in two words. */
function generation(address: number): Aml {
  return device(
    "VGEN",
    name("_HID", string("DNVO0001")),
    name("_CID", string("VM_Gen_Counter")),
    name("_DDN", string("VM_Gen_Counter")),
    name("ADDR", packageOf(integer(address), integer(0))),
  );
}

function powerButton(): Aml {
  return device("PWRB", name("_HID", string("PNP0C0C")), name("_UID", integer(0)));
}

function transport(number: number, { place, irq, trigger }: VirtioTransport): Aml {
  return device(
    `VR${String(number).padStart(2, "0")}`,
    name("_HID", string("LNRO0005")),
    name("_UID", integer(number)),
    name("_CCA", integer(1)),
    name("_CRS", resources(memory32Fixed(place.base, place.size), interrupt(irq, trigger))),
  );
}

/** `_Sx`: what SLP_TYP is for a state of sleep. */
function sleepState(state: number, type: number): Aml {
  return name(`_S${state}`, packageOf(...[type, 0, 0, 0].map(integer)));
}
