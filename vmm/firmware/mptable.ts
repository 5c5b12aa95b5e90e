/**
 * The Intel MultiProcessor Specification 1.4 tables, by which a kernel without ACPI finds its CPUs,
 * the IOAPIC and the wiring of the ISA interrupts.
 *
 * @module
 */
import {
  BASE_MEMORY_END,
  BIOS_AREA_START,
  CASCADE_IRQ,
  EBDA_START,
  IOAPIC,
  ioapicPin,
  ISA_IRQS,
  LOCAL_APIC,
  MACHINE_TYPE,
} from "../machine/microvm.ts";
import { BootError, type BytesSegment } from "../boot/image.ts";

/** What the tables tell of the processors. */
export interface MpTableOptions {
  /** APIC ids, one a vCPU; the first one is the boot processor. */
  readonly apicIds: readonly number[];
  /** CPUID leaf 1 EAX: family, model and stepping. */
  readonly cpuSignature?: number;
  /** CPUID leaf 1 EDX. */
  readonly cpuFeatures?: number;
}

const SPEC_REV_1_4 = 4;
/** Version registers of KVM's local APIC and IOAPIC. */
const LAPIC_VERSION = 0x14;
const IOAPIC_VERSION = 0x11;
/** ID register of KVM's IOAPIC after reset. */
const IOAPIC_ID = 0;
const ISA_BUS = 0;
/** Local APIC id 255 is a broadcast. */
const BROADCAST = 0xff;

/** Entry types with their lengths, interrupt types, CPU flags (MP specification, chapter 4). */
const Entry = { PROCESSOR: 0, BUS: 1, IOAPIC: 2, INTERRUPT: 3, LOCAL_INTERRUPT: 4 } as const;
const Interrupt = { INT: 0, NMI: 1, EXTINT: 3 } as const;
const CPU_ENABLED = 1;
const CPU_BOOT = 2;
const IOAPIC_USABLE = 1;

const FLOATING_POINTER_SIZE = 16;
const HEADER_SIZE = 44;

/** CPUID of a P6 with FPU and APIC, for callers that do not know better. */
const DEFAULT_SIGNATURE = 0x600;
const DEFAULT_FEATURES = 0x201;

/**
 * Makes the floating pointer, in the last KiB of base memory, and the configuration table: right
 * behind it, or in the BIOS area where there are too many CPUs (41 and more) for what is left.
 *
 * @throws {BootError} if there is no CPU, or one has an APIC id above 254
 */
export function mpTableSegments(options: MpTableOptions): BytesSegment[] {
  const wrong = options.apicIds.find((id) => id < 0 || id >= BROADCAST);
  if (wrong !== undefined) {
    throw new BootError(`APIC id ${wrong} does not fit into the MP table, which ends at 254`);
  }
  if (options.apicIds.length === 0) throw new BootError("an MP table needs at least 1 CPU");
  const table = configurationTable(options);
  const fits = FLOATING_POINTER_SIZE + table.length <= BASE_MEMORY_END - EBDA_START;
  const gpa = fits ? EBDA_START + FLOATING_POINTER_SIZE : BIOS_AREA_START;
  return [
    { name: "mp floating pointer", gpa: EBDA_START, bytes: floatingPointer(gpa) },
    { name: "mp table", gpa, bytes: table },
  ];
}

function floatingPointer(table: number): Uint8Array {
  const bytes = new Uint8Array(FLOATING_POINTER_SIZE);
  const view = new DataView(bytes.buffer);
  writeText(bytes, 0, "_MP_");
  view.setUint32(4, table, true);
  bytes[8] = FLOATING_POINTER_SIZE / 16;
  bytes[9] = SPEC_REV_1_4;
  // Feature bytes: a configuration table is there, and no IMCR.
  bytes[10] = checksum(bytes);
  return bytes;
}

function configurationTable(options: MpTableOptions): Uint8Array {
  const entries = [
    ...options.apicIds.map((id, index) => processor(id, index === 0, options)),
    Uint8Array.of(Entry.BUS, ISA_BUS, ...new TextEncoder().encode("ISA   ")),
    ioapic(),
    ...isaInterrupts(),
    interrupt(Entry.LOCAL_INTERRUPT, Interrupt.EXTINT, 0, options.apicIds[0], 0),
    interrupt(Entry.LOCAL_INTERRUPT, Interrupt.NMI, 0, BROADCAST, 1),
  ];
  const size = entries.reduce((sum, entry) => sum + entry.length, HEADER_SIZE);
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  writeText(bytes, 0, "PCMP");
  view.setUint16(4, size, true);
  bytes[6] = SPEC_REV_1_4;
  writeText(bytes, 8, "DENOVO  "); // OEM id
  writeText(bytes, 16, MACHINE_TYPE.toUpperCase().padEnd(12)); // product id
  view.setUint16(34, entries.length, true);
  view.setUint32(36, LOCAL_APIC.base, true);
  let at = HEADER_SIZE;
  for (const entry of entries) {
    bytes.set(entry, at);
    at += entry.length;
  }
  bytes[7] = checksum(bytes);
  return bytes;
}

function processor(apicId: number, isBoot: boolean, options: MpTableOptions): Uint8Array {
  const bytes = new Uint8Array(20);
  const view = new DataView(bytes.buffer);
  bytes.set([Entry.PROCESSOR, apicId, LAPIC_VERSION, CPU_ENABLED | (isBoot ? CPU_BOOT : 0)]);
  view.setUint32(4, options.cpuSignature ?? DEFAULT_SIGNATURE, true);
  view.setUint32(8, options.cpuFeatures ?? DEFAULT_FEATURES, true);
  return bytes;
}

function ioapic(): Uint8Array {
  const bytes = new Uint8Array(8);
  bytes.set([Entry.IOAPIC, IOAPIC_ID, IOAPIC_VERSION, IOAPIC_USABLE]);
  new DataView(bytes.buffer).setUint32(4, IOAPIC.base, true);
  return bytes;
}

function isaInterrupts(): Uint8Array[] {
  const irqs = Array.from({ length: ISA_IRQS }, (_, irq) => irq);
  return irqs.filter((irq) => irq !== CASCADE_IRQ).map((irq) =>
    interrupt(Entry.INTERRUPT, Interrupt.INT, irq, IOAPIC_ID, ioapicPin(irq))
  );
}

/** An interrupt assignment of either kind; polarity and trigger mode conform to the bus. */
function interrupt(
  entry: number,
  type: number,
  irq: number,
  destinationId: number,
  pin: number,
): Uint8Array {
  return Uint8Array.of(entry, type, 0, 0, ISA_BUS, irq, destinationId, pin);
}

function writeText(bytes: Uint8Array, offset: number, text: string): void {
  bytes.set(new TextEncoder().encode(text), offset);
}

/** The byte that makes the sum of all bytes 0 modulo 256. */
function checksum(bytes: Uint8Array): number {
  return -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}
