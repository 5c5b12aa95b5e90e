/** The 82093AA, by its data sheet, and message-signaled interrupts. */
import assert from "node:assert/strict";
import { kvmIoapicState, kvmIrqchip } from "../../../../ffi/kvm/structs.ts";
import { chipsTest, IOAPIC, LAPIC, TestChips } from "./testing.ts";

const LEVEL = 0x8000;
const LOGICAL = 0x800;
const LOWEST = 0x100;
const MASKED = 0x1_0000;
const REMOTE_IRR = 0x4000;
const IRR = 0x200;

const low = (chips: TestChips, pin: number) => chips.readIoapic(0x10 + 2 * pin);

/** Sets the logical id of a vCPU, flat model. */
function setLogical(chips: TestChips, vcpu: number, id: number): void {
  chips.write(LAPIC + 0xd0, id * 2 ** 24, vcpu);
}

function saved({ chipset }: TestChips): Uint8Array<ArrayBuffer> {
  const { bytes } = kvmIrqchip.alloc({ chip_id: 2 });
  assert.equal(chipset.saveIrqchip(bytes), 0);
  return bytes;
}

const stateOf = (irqchip: Uint8Array<ArrayBuffer>) =>
  kvmIoapicState.view(irqchip.buffer, kvmIrqchip.offsets.chip);

chipsTest("the registers are those of an 82093AA with 24 pins", (c) => {
  assert.equal(c.readIoapic(1), 0x17_0011);
  assert.equal(c.read(IOAPIC), 1);
  c.ioapic(1, 0);
  assert.equal(c.readIoapic(1), 0x17_0011);
  c.ioapic(0, 0xff00_0000);
  assert.equal(c.readIoapic(0), 0x0f00_0000);
  assert.equal(c.readIoapic(2), 0x0f00_0000);
  for (let pin = 0; pin < 24; pin++) assert.equal(low(c, pin), MASKED);
  c.redirect(23, 0x1_a7ff, 0xcd);
  assert.equal(low(c, 23), 0x1_a7ff);
  assert.equal(c.readIoapic(0x3f), 0xcd00_0000);
  // Beyond the last pin there is nothing.
  c.ioapic(0x40, 0);
  assert.equal(c.readIoapic(0x40), 0xffff_ffff);
  assert.equal(c.read(IOAPIC + 0x20), 0);
});

chipsTest("an edge interrupts once; what comes while the pin is masked is lost", (c) => {
  c.enable();
  c.redirect(4, 0x45);
  c.chipset.setLine(4, true);
  assert.deepEqual(c.take(), [0x45]);
  assert.equal(low(c, 4), 0x45);
  c.eoi();
  assert.deepEqual(c.take(), []);
  c.chipset.setLine(4, true);
  assert.deepEqual(c.take(), []);
  c.chipset.setLine(4, false);
  c.chipset.setLine(4, true);
  assert.deepEqual(c.take(), [0x45]);
  c.eoi();
  c.chipset.setLine(4, false);
  c.redirect(4, 0x45 | MASKED);
  c.chipset.pulse(4);
  c.redirect(4, 0x45);
  assert.deepEqual(c.take(), []);
});

chipsTest("a level interrupts again after its end for as long as it is asserted", (c) => {
  c.enable();
  c.redirect(20, 0x60 | LEVEL);
  c.chipset.setLine(20, true);
  assert.equal(low(c, 20), 0x60 | LEVEL | REMOTE_IRR);
  assert.deepEqual(c.take(), [0x60]);
  assert.deepEqual(c.take(), []);
  c.kicks = [];
  c.eoi();
  assert.deepEqual(c.kicks.slice(0, 1), [0]);
  assert.deepEqual(c.take(), [0x60]);
  c.chipset.setLine(20, false);
  c.eoi();
  assert.equal(low(c, 20), 0x60 | LEVEL);
  assert.deepEqual(c.take(), []);
});

chipsTest("unmasking a pin whose level is asserted interrupts", (c) => {
  c.enable();
  c.redirect(9, 0x50 | LEVEL | MASKED);
  c.chipset.setLine(9, true);
  assert.deepEqual(c.take(), []);
  c.redirect(9, 0x50 | LEVEL);
  assert.deepEqual(c.take(), [0x50]);
});

chipsTest("remote IRR is read-only, and cleared by making the pin edge-triggered", (c) => {
  c.enable();
  c.redirect(9, 0x50 | LEVEL | REMOTE_IRR | 0x1000 | MASKED);
  assert.equal(low(c, 9), 0x50 | LEVEL | MASKED);
  c.redirect(9, 0x50 | LEVEL);
  c.chipset.setLine(9, true);
  c.redirect(9, 0x50 | LEVEL | MASKED);
  assert.equal(low(c, 9), 0x50 | LEVEL | MASKED | REMOTE_IRR);
  c.redirect(9, 0x50 | MASKED);
  assert.equal(low(c, 9), 0x50 | MASKED);
});

chipsTest("a level that no local APIC accepts stays to be sent", (c) => {
  c.redirect(9, 0x50 | LEVEL);
  c.chipset.setLine(9, true);
  assert.equal(low(c, 9), 0x50 | LEVEL);
  c.enable();
  c.redirect(9, 0x50 | LEVEL);
  assert.deepEqual(c.take(), [0x50]);
});

chipsTest("physical and logical destinations find their local APICs", (c) => {
  for (const vcpu of [0, 1, 2]) c.enable(vcpu);
  [0x01, 0x02, 0x06].forEach((id, vcpu) => setLogical(c, vcpu, id));
  const reached = (entry: number, destination: number) => {
    c.redirect(16, entry, destination);
    c.chipset.pulse(16);
    return [0, 1, 2].filter((vcpu) => {
      const taken = c.take(vcpu);
      if (taken.length > 0) c.eoi(vcpu);
      return taken.length > 0;
    });
  };
  assert.deepEqual(reached(0x70, 1), [1]);
  assert.deepEqual(reached(0x70, 3), []);
  assert.deepEqual(reached(0x70, 0xff), [0, 1, 2]);
  assert.deepEqual(reached(0x70 | LOGICAL, 2), [1, 2]);
  assert.deepEqual(reached(0x70 | LOGICAL, 5), [0, 2]);
  assert.deepEqual(reached(0x70 | LOGICAL, 8), []);
  // The cluster model: the high half must be equal.
  for (const vcpu of [0, 1, 2]) c.write(LAPIC + 0xe0, 0, vcpu);
  [0x11, 0x12, 0x21].forEach((id, vcpu) => setLogical(c, vcpu, id));
  assert.deepEqual(reached(0x70 | LOGICAL, 0x13), [0, 1]);
  assert.deepEqual(reached(0x70 | LOGICAL, 0x21), [2]);
  assert.deepEqual(reached(0x70 | LOGICAL, 0x22), []);
}, 3);

chipsTest("lowest priority reaches one of those addressed, by its vector", (c) => {
  for (const vcpu of [0, 1, 2]) setLogical(c, vcpu, 1 << vcpu);
  c.enable(0);
  c.enable(2);
  const reached = (vector: number) => {
    c.redirect(16, vector | LOGICAL | LOWEST, 0x07);
    c.chipset.pulse(16);
    return [0, 1, 2].filter((vcpu) => c.take(vcpu).length > 0 && (c.eoi(vcpu), true));
  };
  assert.deepEqual(reached(0x70), [0]);
  assert.deepEqual(reached(0x71), [2]);
  c.enable(1);
  assert.deepEqual([0x70, 0x71, 0x72].map(reached).flat().sort(), [0, 1, 2]);
}, 3);

chipsTest("a pin delivers NMI and INIT too", (c) => {
  c.redirect(16, 0x400, 1);
  c.chipset.pulse(16);
  assert.equal(c.vcpu(1).lapic.events, 4);
  c.redirect(16, 0x500, 1);
  c.chipset.pulse(16);
  assert.equal(c.vcpu(1).lapic.events, 5);
  assert.equal(c.vcpu(0).lapic.events, 0);
}, 2);

chipsTest(
  "a saved state leaves out edges that were sent, and sends the others when loaded",
  (c) => {
    c.enable();
    c.redirect(3, 0x43);
    c.redirect(5, 0x45 | LEVEL);
    for (const line of [3, 5, 6]) c.chipset.setLine(line, true);
    const bytes = saved(c);
    assert.equal(stateOf(bytes).irr, 1 << 5 | 1 << 6);
    const other = new TestChips();
    other.enable();
    assert.equal(other.chipset.loadIrqchip(bytes), 0);
    // Pin 5 has been sent before it was saved: its end will tell.
    assert.deepEqual(other.take(), []);
    assert.equal(low(other, 5), 0x45 | LEVEL | REMOTE_IRR);
    stateOf(bytes).redirtbl.put(5, 0x45n | BigInt(LEVEL));
    assert.equal(other.chipset.loadIrqchip(bytes), 0);
    assert.deepEqual(other.take(), [0x45]);
  },
);

chipsTest("lines 0 to 15 reach both chips, 16 to 23 the IOAPIC; there are no others", (c) => {
  for (let line = 0; line < 24; line++) {
    c.chipset.setLine(line, true);
    assert.equal(stateOf(saved(c)).irr, 2 ** (line + 1) - 1);
    assert.equal(c.in(0x20) | c.in(0xa0) << 8, 2 ** Math.min(line + 1, 16) - 1);
  }
  for (const line of [-1, 24, 0.5]) {
    assert.throws(() => c.chipset.setLine(line, true), RangeError);
    assert.throws(() => c.chipset.pulse(line), /There is no interrupt line/);
  }
});

Deno.test("without the 8259A pair lines reach the IOAPIC alone", () => {
  const c = new TestChips(1, "kept", { pic: false });
  c.chipset.setLine(3, true);
  assert.equal(stateOf(saved(c)).irr, 1 << 3);
  assert.equal(c.in(0x20), 0);
});

chipsTest("a message reaches the local APIC that its address says", (c) => {
  for (const vcpu of [0, 1]) {
    c.enable(vcpu);
    setLogical(c, vcpu, 1 << vcpu);
  }
  assert.equal(c.chipset.sendMsi(0xfee0_1000, 0x4061), 1);
  assert.deepEqual([c.take(0), c.take(1)], [[], [0x61]]);
  c.eoi(1);
  assert.equal(c.chipset.sendMsi(0xfeef_f000, 0x62), 2);
  assert.deepEqual([c.take(0), c.take(1)], [[0x62], [0x62]]);
  c.eoi(0);
  c.eoi(1);
  // Logical, with the redirection hint: one of two.
  assert.equal(c.chipset.sendMsi(0xfee0_300c, 0x63), 1);
  assert.deepEqual([c.take(0), c.take(1)], [[], [0x63]]);
  // Level-triggered: noted in the TMR.
  assert.equal(c.chipset.sendMsi(0xfee0_0000, 0xc070), 1);
  assert.equal(c.read(LAPIC + 0x180 + 0x30) >>> 16 & 1, 1);
  assert.equal(c.read(LAPIC + IRR + 0x30) >>> 16 & 1, 1);
  assert.equal(c.chipset.sendMsi(0xfee0_1000, 0x400), 1);
  assert.equal(c.vcpu(1).lapic.events, 4);
}, 2);

Deno.test("any state of the IOAPIC can be loaded and used", () => {
  const c = new TestChips();
  c.enable();
  for (let round = 0; round < 200; round++) {
    const { bytes, view } = kvmIrqchip.alloc({ chip_id: 2 });
    crypto.getRandomValues(view.chip);
    assert.equal(c.chipset.loadIrqchip(bytes), 0);
    for (let line = 0; line < 24; line++) c.chipset.pulse(line);
    for (let i = 0; i < 300 && c.vcpu().acknowledge() >= 0; i++) c.eoi();
    for (let register = 0; register < 0x42; register++) assert.ok(c.readIoapic(register) >= 0);
  }
});
