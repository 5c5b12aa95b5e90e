/**
 * Resource descriptors, of which `_CRS` is a list (ACPI 6.5, 6.4).
 *
 * @module
 */
import { type Aml, buffer, join } from "./aml.ts";

/** Tags of the descriptors with their sizes in the low bits, or, of large ones, without. */
const Tag = {
  IRQ_NO_FLAGS: 0x22,
  IO: 0x47,
  END: 0x79,
  MEMORY32_FIXED: 0x86,
  ADDRESS32: 0x87,
  ADDRESS16: 0x88,
  EXTENDED_INTERRUPT: 0x89,
  ADDRESS64: 0x8a,
} as const;

/** IO descriptor: addresses of 16 bits are decoded. */
const DECODE16 = 1;
/** Extended interrupt vector flags. */
const InterruptFlag = { CONSUMER: 1, EDGE: 2 } as const;

/** `ResourceTemplate () { … }`: a buffer with an end tag, whose checksum 0 is not looked at. */
export function resources(...descriptors: readonly Aml[]): Aml {
  return buffer(join(...descriptors, Uint8Array.of(Tag.END, 0)));
}

/** `IO (Decode16, base, base, 1, size)` */
export function io(base: number, size: number): Aml {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  bytes.set([Tag.IO, DECODE16]);
  view.setUint16(2, base, true);
  view.setUint16(4, base, true);
  bytes.set([1, size], 6);
  return bytes;
}

/** `IRQNoFlags () { irq }`, an ISA interrupt. */
export function irqNoFlags(irq: number): Aml {
  return Uint8Array.of(Tag.IRQ_NO_FLAGS, 1 << irq & 0xff, 1 << irq >> 8);
}

/** `Memory32Fixed (ReadWrite, base, size)` */
export function memory32Fixed(base: number, size: number): Aml {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  bytes.set([Tag.MEMORY32_FIXED, 9, 0, 1]);
  view.setUint32(4, base, true);
  view.setUint32(8, size, true);
  return bytes;
}

/** Kinds of addresses, and their flags (6.4.3.5): of what the device gives to those behind it. */
const Address = { MEMORY: 0, BUS: 2 } as const;
/** Both ends are fixed. */
const FIXED = 1 << 2 | 1 << 3;
const READ_WRITE = 1;

/** An address space descriptor; its fields have 2, 4 or 8 bytes. */
function addresses(
  tag: number,
  kind: number,
  typeFlags: number,
  { start, length, bytes }: { start: number; length: number; bytes: 2 | 4 | 8 },
): Aml {
  const values = [0, start, start + length - 1, 0, length];
  const fields = values.map((value) => new Uint8Array(new BigUint64Array([BigInt(value)]).buffer));
  return join(
    Uint8Array.of(tag, 3 + 5 * bytes, 0, kind, FIXED, typeFlags),
    ...fields.map((field) => field.subarray(0, bytes)),
  );
}

/** `WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, …)` */
export function busNumbers(start: number, length: number): Aml {
  return addresses(Tag.ADDRESS16, Address.BUS, 0, { start, length, bytes: 2 });
}

/** `DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, …)` */
export function memory32(start: number, length: number): Aml {
  return addresses(Tag.ADDRESS32, Address.MEMORY, READ_WRITE, { start, length, bytes: 4 });
}

/** `QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, …)` */
export function memory64(start: number, length: number): Aml {
  return addresses(Tag.ADDRESS64, Address.MEMORY, READ_WRITE, { start, length, bytes: 8 });
}

/** `Interrupt (ResourceConsumer, Level|Edge, ActiveHigh, Exclusive) { gsi }` */
export function interrupt(gsi: number, trigger: "level" | "edge"): Aml {
  const bytes = new Uint8Array(9);
  const edge = trigger === "edge" ? InterruptFlag.EDGE : 0;
  bytes.set([Tag.EXTENDED_INTERRUPT, 6, 0, InterruptFlag.CONSUMER | edge, 1]);
  new DataView(bytes.buffer).setUint32(5, gsi, true);
  return bytes;
}
