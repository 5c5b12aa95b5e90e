/** The 8259A pair, by its data sheet. */
import assert from "node:assert/strict";
import { kvmIrqchip, kvmPicState } from "../../../../ffi/kvm/structs.ts";
import { chipsTest, TestChips } from "./testing.ts";

const MASTER = 0x20;
const SLAVE = 0xa0;

/** Both chips as a PC's firmware sets them up: vectors from 0x20 and 0x28, nothing masked. */
function initialize(chips: TestChips, icw4 = 1): void {
  for (const [port, value] of [[0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, icw4]]) {
    chips.out(port, value);
  }
  for (const [port, value] of [[0xa0, 0x11], [0xa1, 0x28], [0xa1, 2], [0xa1, icw4]]) {
    chips.out(port, value);
  }
}

function pulse(chips: TestChips, ...lines: number[]): void {
  for (const line of lines) chips.chipset.pulse(line);
}

/** The register that OCW3 selects: 2 is IRR, 3 is ISR. */
function register(chips: TestChips, port: number, select: number): number {
  chips.out(port, 8 | select);
  return chips.in(port);
}

const isr = (chips: TestChips, port = MASTER) => register(chips, port, 3);
const irr = (chips: TestChips, port = MASTER) => register(chips, port, 2);

chipsTest("inputs interrupt in the order of their priorities, each once it is the highest", (c) => {
  initialize(c);
  pulse(c, 5, 3, 6);
  assert.deepEqual(c.take(), [0x23]);
  assert.equal(isr(c), 0x08);
  assert.equal(irr(c), 0x60);
  pulse(c, 1);
  assert.deepEqual(c.take(), [0x21]);
  assert.equal(isr(c), 0x0a);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), []);
  assert.equal(isr(c), 0x08);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x25]);
  c.out(MASTER, 0x65);
  assert.deepEqual(c.take(), [0x26]);
  c.out(MASTER, 0x66);
  assert.equal(isr(c), 0);
});

chipsTest("the slave interrupts through input 2 of the master, with its own vectors", (c) => {
  initialize(c);
  pulse(c, 12, 8, 3);
  assert.deepEqual(c.take(), [0x28]);
  assert.equal(isr(c), 0x04);
  assert.equal(isr(c, SLAVE), 0x01);
  c.out(SLAVE, 0x20);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x2c]);
  c.out(SLAVE, 0x20);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x23]);
});

chipsTest("an edge is kept, another one before it is taken is not; a level comes again", (c) => {
  initialize(c);
  c.out(0x4d0, 0xff);
  c.out(0x4d1, 0xff);
  assert.equal(c.in(0x4d0), 0xf8);
  assert.equal(c.in(0x4d1), 0xde);
  c.out(0x4d0, 0x20);
  c.chipset.setLine(4, true);
  c.chipset.setLine(4, true);
  c.chipset.setLine(5, true);
  assert.equal(irr(c), 0x30);
  assert.deepEqual(c.take(), [0x24]);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x25]);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x25]);
  c.chipset.setLine(5, false);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), []);
  assert.equal(irr(c), 0);
  c.chipset.setLine(4, false);
  c.chipset.setLine(4, true);
  assert.deepEqual(c.take(), [0x24]);
});

chipsTest("masked inputs wait; INTR is asserted while something can interrupt", (c) => {
  initialize(c);
  c.out(0x21, 0xff);
  c.kicks = [];
  pulse(c, 4);
  assert.equal(c.chipset.hasExtint, false);
  assert.deepEqual(c.kicks, []);
  assert.equal(c.in(0x21), 0xff);
  c.out(0x21, 0xef);
  assert.equal(c.chipset.hasExtint, true);
  assert.deepEqual(c.kicks, [0]);
  assert.equal(c.vcpu().hasInterrupt, true);
  assert.deepEqual(c.take(), [0x24]);
  assert.equal(c.chipset.hasExtint, false);
});

chipsTest("a request that is gone when it is acknowledged gives vector 7 of the chip", (c) => {
  initialize(c);
  c.out(0x4d1, 0x02);
  c.chipset.setLine(9, true);
  c.chipset.setLine(9, false);
  // The master has seen an edge of the slave's output.
  assert.deepEqual(c.take(), [0x2f]);
  assert.equal(isr(c, SLAVE), 0);
  assert.equal(isr(c), 0x04);
});

chipsTest("OCW2 rotates priorities", (c) => {
  initialize(c);
  pulse(c, 2, 4);
  assert.deepEqual(c.take(), [0x2f]);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x24]);
  // Rotate on non-specific EOI: 4 becomes the lowest.
  c.out(MASTER, 0xa0);
  pulse(c, 4, 6, 0);
  assert.deepEqual(c.take(), [0x26]);
  // Rotate on specific EOI.
  c.out(MASTER, 0xe6);
  assert.deepEqual(c.take(), [0x20]);
  c.out(MASTER, 0x60);
  assert.deepEqual(c.take(), [0x24]);
  c.out(MASTER, 0x64);
  // Set priority: 5 is the lowest, 6 the highest.
  c.out(MASTER, 0xc5);
  pulse(c, 5, 7, 6);
  assert.deepEqual(c.take(), [0x26]);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x27]);
  c.out(MASTER, 0x20);
  assert.deepEqual(c.take(), [0x25]);
});

chipsTest("automatic EOI leaves nothing in service, and may rotate", (c) => {
  initialize(c, 3);
  pulse(c, 3, 5);
  assert.deepEqual(c.take(), [0x23, 0x25]);
  assert.equal(isr(c), 0);
  c.out(MASTER, 0x80);
  pulse(c, 3);
  assert.deepEqual(c.take(), [0x23]);
  pulse(c, 3, 4);
  assert.deepEqual(c.take(), [0x24, 0x23]);
  c.out(MASTER, 0x00);
  pulse(c, 6);
  assert.deepEqual(c.take(), [0x26]);
  pulse(c, 6, 7);
  // 3 is still the lowest: what was rotated stays.
  assert.deepEqual(c.take(), [0x26, 0x27]);
});

chipsTest("special mask mode lets lower priorities through", (c) => {
  initialize(c);
  pulse(c, 3);
  assert.deepEqual(c.take(), [0x23]);
  c.out(0x21, 0x08);
  pulse(c, 6);
  assert.deepEqual(c.take(), []);
  c.out(MASTER, 0x68);
  assert.deepEqual(c.take(), [0x26]);
  c.out(MASTER, 0x20);
  assert.equal(isr(c), 0x08);
  c.out(MASTER, 0x48);
  pulse(c, 6);
  assert.deepEqual(c.take(), []);
});

chipsTest("special fully nested mode lets the slave interrupt its own", (c) => {
  initialize(c);
  pulse(c, 12);
  assert.deepEqual(c.take(), [0x2c]);
  pulse(c, 10);
  assert.deepEqual(c.take(), []);
  initialize(c, 0x11);
  c.out(MASTER, 0x60 | 2);
  c.out(SLAVE, 0x20);
  c.out(SLAVE, 0x20);
  pulse(c, 12);
  assert.deepEqual(c.take(), [0x2c]);
  pulse(c, 10);
  assert.deepEqual(c.take(), [0x2a]);
});

chipsTest("the poll command acknowledges by a read", (c) => {
  initialize(c);
  c.out(MASTER, 0x0c);
  assert.equal(c.in(MASTER), 0);
  pulse(c, 5, 9);
  c.out(SLAVE, 0x0c);
  assert.equal(c.in(SLAVE), 0x81);
  assert.equal(isr(c, SLAVE), 0x02);
  c.out(MASTER, 0x0c);
  assert.equal(c.in(0x21), 0x85);
  assert.equal(isr(c), 0x20);
  assert.equal(c.chipset.hasExtint, false);
  assert.equal(c.in(MASTER), 0x20);
});

chipsTest("ICW1 forgets edges, masks and priorities, and asks for the other words", (c) => {
  initialize(c, 0x13);
  c.out(0x4d0, 0x20);
  c.out(0x21, 0xff);
  c.chipset.setLine(5, true);
  pulse(c, 4);
  c.out(MASTER, 0xc3);
  c.out(MASTER, 0x10);
  assert.equal(c.in(0x21), 0);
  assert.equal(c.in(MASTER), 0x20);
  c.out(0x21, 0x47);
  c.out(0x21, 4);
  // No ICW4: this is the mask, and what an earlier ICW4 has set is off.
  c.out(0x21, 0xdf);
  assert.equal(c.in(0x21), 0xdf);
  assert.deepEqual(c.take(), [0x45]);
  assert.equal(isr(c), 0x20);
});

chipsTest("a saved pair goes on elsewhere", (c) => {
  initialize(c);
  pulse(c, 3, 9);
  assert.deepEqual(c.take(), [0x29]);
  const other = new TestChips();
  for (const chip_id of [0, 1]) {
    const { bytes } = kvmIrqchip.alloc({ chip_id });
    assert.equal(c.chipset.saveIrqchip(bytes), 0);
    assert.equal(
      kvmPicState.view(bytes.buffer, kvmIrqchip.offsets.chip).irq_base,
      0x20 + 8 * chip_id,
    );
    assert.equal(other.chipset.loadIrqchip(bytes), 0);
  }
  assert.deepEqual(other.take(), []);
  other.out(SLAVE, 0x20);
  other.out(MASTER, 0x20);
  assert.deepEqual(other.take(), [0x23]);
  const { bytes } = kvmIrqchip.alloc({ chip_id: 3 });
  assert.equal(c.chipset.saveIrqchip(bytes), 22);
  assert.equal(c.chipset.loadIrqchip(bytes), 22);
});

Deno.test("any state of the pair can be loaded and used", () => {
  const c = new TestChips();
  for (let round = 0; round < 200; round++) {
    const { bytes, view } = kvmIrqchip.alloc({ chip_id: round & 1 });
    crypto.getRandomValues(view.chip);
    assert.equal(c.chipset.loadIrqchip(bytes), 0);
    for (let line = 0; line < 16; line++) pulse(c, line);
    for (let i = 0; i < 20; i++) {
      const vector = c.vcpu().acknowledge();
      assert.ok(vector >= -1 && vector < 256);
      for (const port of [MASTER, 0x21, SLAVE, 0xa1]) assert.ok(c.in(port) <= 0xff);
      c.out(MASTER, 0x20);
      c.out(SLAVE, 0x20);
    }
  }
});
