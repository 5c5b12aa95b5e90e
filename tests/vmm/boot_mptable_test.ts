import assert from "node:assert/strict";
import { mpTableSegments } from "../../vmm/firmware/mptable.ts";
import { assertBootError, bytesOf } from "./boot_images.ts";

function tables(cpus: number, options = {}) {
  const apicIds = Array.from({ length: cpus }, (_, id) => id);
  const segments = mpTableSegments({ apicIds, ...options });
  return {
    pointer: bytesOf(segments, "mp floating pointer"),
    table: bytesOf(segments, "mp table"),
    gpa: segments[1].gpa,
    pointerGpa: segments[0].gpa,
  };
}

function text(view: DataView, offset: number, length: number): string {
  return String.fromCharCode(...new Uint8Array(view.buffer, view.byteOffset + offset, length));
}

function sum(view: DataView): number {
  let sum = 0;
  for (let i = 0; i < view.byteLength; i++) sum += view.getUint8(i);
  return sum & 0xff;
}

/** The table's entries as arrays of bytes. */
function entries(table: DataView): number[][] {
  const list: number[][] = [];
  for (let at = 44; at < table.byteLength;) {
    const length = table.getUint8(at) === 0 ? 20 : 8;
    list.push([...new Uint8Array(table.buffer, table.byteOffset + at, length)]);
    at += length;
  }
  return list;
}

Deno.test("mpTableSegments() makes a floating pointer to a table, both with valid checksums", () => {
  const { pointer, table, gpa, pointerGpa } = tables(1);
  assert.equal(pointerGpa, 0x9fc00);
  assert.equal(text(pointer, 0, 4), "_MP_");
  assert.equal(pointer.getUint32(4, true), gpa);
  assert.equal(pointer.getUint8(8), 1);
  assert.equal(pointer.getUint8(9), 4);
  assert.equal(sum(pointer), 0);
  assert.equal(text(table, 0, 4), "PCMP");
  assert.equal(table.getUint16(4, true), table.byteLength);
  assert.equal(table.getUint8(6), 4);
  assert.equal(text(table, 8, 20), "DENOVO  MICROVM     ");
  assert.equal(table.getUint16(34, true), entries(table).length);
  assert.equal(table.getUint32(36, true), 0xfee00000);
  assert.equal(sum(table), 0);
});

Deno.test("mpTableSegments() lists processors, the first as boot processor", () => {
  const { table } = tables(0, {
    apicIds: [0, 2, 5],
    cpuSignature: 0xa20f12,
    cpuFeatures: 0x178bfbff,
  });
  const cpus = entries(table).filter(([type]) => type === 0);
  assert.deepEqual(cpus.map((cpu) => cpu[1]), [0, 2, 5]);
  assert.deepEqual(cpus.map((cpu) => cpu[3]), [3, 1, 1]);
  assert.deepEqual(cpus[1].slice(4, 12), [0x12, 0x0f, 0xa2, 0, 0xff, 0xfb, 0x8b, 0x17]);
});

Deno.test("mpTableSegments() describes ISA bus, IOAPIC, ISA interrupts and local interrupts", () => {
  const [, bus, ioapic, ...interrupts] = entries(tables(1).table);
  assert.deepEqual(bus, [1, 0, ...new TextEncoder().encode("ISA   ")]);
  assert.deepEqual(ioapic, [2, 0, 0x11, 1, 0, 0, 0xc0, 0xfe]);
  // KVM's default routing: each ISA interrupt on the pin of its number; the cascade has none.
  const irqs = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
  assert.deepEqual(
    interrupts,
    [
      ...irqs.map((irq) => [3, 0, 0, 0, 0, irq, 0, irq]),
      [4, 3, 0, 0, 0, 0, 0, 0], // ExtINT at the boot processor's LINT0
      [4, 1, 0, 0, 0, 0, 0xff, 1], // NMI at every LINT1
    ],
  );
});

Deno.test("mpTableSegments() moves the table to the BIOS area when base memory is too small", () => {
  const few = tables(40);
  assert.equal(few.gpa, 0x9fc10);
  assert.ok(few.gpa + few.table.byteLength <= 0xa0000);
  for (const cpus of [41, 255]) {
    const many = tables(cpus);
    assert.equal(many.gpa, 0xf0000);
    assert.equal(many.pointer.getUint32(4, true), 0xf0000);
    assert.ok(many.table.byteLength <= 0x10000);
    assert.equal(sum(many.table), 0);
    assert.equal(entries(many.table).filter(([type]) => type === 0).length, cpus);
  }
});

Deno.test("mpTableSegments() refuses no CPU and APIC ids that are no CPU's", () => {
  assertBootError(() => tables(0), /needs at least 1 CPU/);
  assertBootError(() => tables(256), /APIC id 255 does not fit/);
});
