/**
 * The Multiple APIC Description Table: the processors and the interrupt controllers (ACPI 6.5, 5.2.12).
 *
 * @module
 */
import { IOAPIC, IOAPIC2_BASE, IOAPIC2_GSI, LOCAL_APIC } from "../../machine/microvm.ts";
import { join } from "./aml.ts";
import { type Oem, table } from "./table.ts";

const REVISION = 5;
/** Flag of the table: there are two 8259s. */
const PCAT_COMPAT = 1;
/** Types of entries. */
const Entry = { LOCAL_APIC: 0, IOAPIC: 1, LOCAL_APIC_NMI: 4, X2APIC: 9, X2APIC_NMI: 10 } as const;
const ENABLED = 1;
/** The largest id of an entry for a local APIC; 255 is everybody. */
const MAX_APIC_ID = 254;
/** NMIs come to LINT1 of every processor. */
const NMI_LINT = 1;

/** What the table tells. */
export interface MadtOptions {
  /** APIC ids, one a vCPU; the first one is the boot processor. */
  readonly apicIds: readonly number[];
  /** Whether there are 8259s. */
  readonly pic: boolean;
  /** Whether there is a second I/O APIC. */
  readonly ioapic2: boolean;
}

/**
 * Makes the table. No ISA interrupt is said to be elsewhere than at the pin of its number, with the
 * bus's own polarity and trigger.
 */
export function madt(oem: Oem, { apicIds, pic, ioapic2 }: MadtOptions): Uint8Array<ArrayBuffer> {
  const head = new Uint8Array(8);
  const view = new DataView(head.buffer);
  view.setUint32(0, LOCAL_APIC.base, true);
  view.setUint32(4, pic ? PCAT_COMPAT : 0, true);
  const needsX2apic = apicIds.some((id) => id > MAX_APIC_ID);
  const entries = [
    ...apicIds.map(processor),
    ioapic(0, IOAPIC.base, 0),
    ...ioapic2 ? [ioapic(1, IOAPIC2_BASE, IOAPIC2_GSI)] : [],
    Uint8Array.of(Entry.LOCAL_APIC_NMI, 6, 0xff, 0, 0, NMI_LINT),
    ...needsX2apic
      ? [Uint8Array.of(Entry.X2APIC_NMI, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, NMI_LINT, 0, 0, 0)]
      : [],
  ];
  return table("APIC", REVISION, oem, join(head, ...entries));
}

function processor(apicId: number, uid: number): Uint8Array<ArrayBuffer> {
  if (apicId <= MAX_APIC_ID) {
    return Uint8Array.of(Entry.LOCAL_APIC, 8, uid, apicId, ENABLED, 0, 0, 0);
  }
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  bytes.set([Entry.X2APIC, bytes.length]);
  view.setUint32(4, apicId, true);
  view.setUint32(8, ENABLED, true);
  view.setUint32(12, uid, true);
  return bytes;
}

function ioapic(id: number, base: number, firstGsi: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  bytes.set([Entry.IOAPIC, bytes.length, id]);
  view.setUint32(4, base, true);
  view.setUint32(8, firstGsi, true);
  return bytes;
}
