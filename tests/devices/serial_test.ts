import assert from "node:assert/strict";
import { isaSerial } from "../../devices/isa/serial.ts";
import type { Rig } from "./fake_context.ts";
import {
  bytes,
  DLL,
  DLM,
  FCR,
  FCR_CLEAR_RCVR,
  FCR_CLEAR_XMIT,
  FCR_ENABLE_FIFO,
  FCR_TRIGGER_14,
  FCR_TRIGGER_4,
  FCR_TRIGGER_8,
  IER,
  IER_ALL,
  IER_MSI,
  IER_RDI,
  IER_RLSI,
  IER_THRI,
  IIR,
  IIR_FIFOS,
  IIR_MSI,
  IIR_NO_INT,
  IIR_RDI,
  IIR_RLSI,
  IIR_THRI,
  LCR,
  LCR_8N1,
  LCR_DLAB,
  LCR_EPAR,
  LCR_PARITY,
  LSR,
  LSR_DR,
  LSR_IDLE,
  LSR_OE,
  LSR_THRE,
  MCR,
  MCR_ALL,
  MCR_DTR,
  MCR_LOOP,
  MCR_OUT2,
  MCR_RTS,
  MSR,
  MSR_DCTS,
  MSR_DDCD,
  MSR_DDSR,
  MSR_HOST,
  RBR,
  readAll,
  SCR,
  serialTest,
  THR,
} from "./serial_driver.ts";

/** IER, IIR, LCR, MCR, LSR, MSR and SCR. */
const readRegisters = (rig: Rig) =>
  [IER, IIR, LCR, MCR, LSR, MSR, SCR].map((register) => rig.read(register));
const afterReset = [0, IIR_NO_INT, 0, 0, LSR_IDLE, MSR_HOST, 0];

serialTest("`reset()` leaves the registers as table I of the data sheet says", (rig) => {
  assert.deepEqual(readRegisters(rig), afterReset);
  rig.input(bytes("abc"));
  rig.write(IER, IER_ALL);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  rig.write(LCR, LCR_8N1 | LCR_PARITY | LCR_EPAR);
  rig.write(MCR, MCR_DTR | MCR_RTS | MCR_OUT2);
  assert.equal(rig.context.levels[0], true);
  rig.call((device) => device.reset());
  assert.deepEqual(readRegisters(rig), afterReset);
  assert.equal(rig.context.levels[0], false);
});

serialTest("`IER`, `MCR`, `LCR` and `SCR` keep exactly the bits that exist", (rig) => {
  for (const [register, kept] of [[IER, IER_ALL], [MCR, MCR_ALL], [SCR, 0xff]]) {
    rig.write(register, 0xff);
    assert.equal(rig.read(register), kept);
    rig.write(register, 0);
    assert.equal(rig.read(register), 0);
  }
  rig.write(LCR, 0xa5);
  assert.equal(rig.read(LCR), 0xa5);
});

serialTest("`LCR` bit 7 shows the divisor instead of data and IER", (rig) => {
  rig.write(IER, IER_RDI | IER_RLSI);
  rig.write(LCR, LCR_8N1 | LCR_DLAB);
  rig.write(DLL, 0x34);
  rig.write(DLM, 0x12);
  assert.equal(rig.read(DLL), 0x34);
  assert.equal(rig.read(DLM), 0x12);
  rig.write(LCR, LCR_8N1);
  assert.equal(rig.read(IER), IER_RDI | IER_RLSI);
  assert.equal(rig.read(RBR), 0);
  assert.deepEqual(rig.sink.sent, []);
});

serialTest("`THR` sends each byte at once with one write of one byte", (rig) => {
  for (const byte of bytes("hello")) {
    rig.write(THR, byte);
    assert.equal(rig.read(LSR), LSR_IDLE);
  }
  assert.equal(rig.sink.text, "hello");
  assert.deepEqual(rig.sink.offered, [1, 1, 1, 1, 1]);
});

serialTest("`THR` holds bytes in order and LSR says so when the host takes none", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.sink.budget = 2;
  for (const byte of bytes("abcdefgh")) rig.write(THR, byte);
  assert.equal(rig.sink.text, "ab");
  assert.equal(rig.read(LSR), 0);
  rig.writable(3);
  assert.equal(rig.sink.text, "abcde");
  assert.equal(rig.read(LSR), 0);
  rig.write(THR, 0x69);
  rig.writable();
  assert.equal(rig.sink.text, "abcdefghi");
  assert.equal(rig.read(LSR), LSR_IDLE);
});

serialTest("`THR` neither loses nor doubles a byte when the host stalls at random", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  const expected: number[] = [];
  let seed = 7;
  const random = (n: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  for (let step = 0; step < 2000; step++) {
    if (random(3) === 0) {
      rig.writable(random(9));
    } else if (rig.read(LSR) & LSR_THRE) {
      for (let i = random(16) + 1; i > 0; i--) {
        expected.push(step & 0xff);
        rig.write(THR, step & 0xff);
      }
    }
  }
  rig.writable();
  assert.deepEqual(rig.sink.sent, expected);
});

serialTest("`THR` drops what is written to a full transmitter and keeps the rest", (rig) => {
  rig.sink.budget = 0;
  for (const byte of bytes("0123456789abcdefXYZ")) rig.write(THR, byte);
  rig.writable();
  assert.equal(rig.sink.text, "0123456789abcdef");
});

serialTest("THRE interrupt comes when IER enables it with THR empty, and IIR clears it", (rig) => {
  rig.write(IER, IER_THRI);
  assert.equal(rig.context.levels[0], true);
  assert.equal(rig.read(IIR), IIR_THRI);
  assert.equal(rig.context.levels[0], false);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  // Linux tests for buggy UARTs this way: off and on again must interrupt again.
  rig.write(IER, 0);
  rig.write(IER, IER_THRI);
  assert.equal(rig.read(IIR), IIR_THRI);
  // Writing what is enabled already is no new event.
  rig.write(IER, IER_THRI);
  assert.equal(rig.read(IIR), IIR_NO_INT);
});

serialTest("THRE interrupt makes a new edge for each byte that leaves THR", (rig) => {
  rig.write(IER, IER_THRI);
  rig.write(THR, 1);
  rig.write(THR, 2);
  assert.deepEqual(rig.context.edges, ["+0", "-0", "+0", "-0", "+0"]);
});

serialTest("THRE interrupt waits for the host when it takes no bytes", (rig) => {
  rig.write(IER, IER_THRI);
  rig.sink.budget = 0;
  rig.write(THR, 1);
  assert.equal(rig.context.levels[0], false);
  rig.write(IER, 0);
  rig.write(IER, IER_THRI);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  rig.writable();
  assert.equal(rig.read(IIR), IIR_THRI);
  rig.writable();
  assert.equal(rig.read(IIR), IIR_NO_INT);
});

serialTest("`RBR` gives one byte at a time in 16450 mode", (rig) => {
  assert.deepEqual(rig.input(bytes("ab")), bytes("b"));
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  assert.equal(rig.call((device) => device.inputRoom!()), 0);
  const accepts = rig.sink.accepts;
  assert.equal(rig.read(RBR), 0x61);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.equal(rig.read(LSR), LSR_IDLE);
  assert.equal(rig.read(RBR), 0);
});

serialTest("receiver FIFO holds 16 bytes and asks for more once it is empty", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  assert.deepEqual(rig.input(bytes("0123456789abcdefgh")), bytes("gh"));
  const accepts = rig.sink.accepts;
  for (const byte of bytes("0123456789abcde")) assert.equal(rig.read(RBR), byte);
  assert.equal(rig.sink.accepts, accepts);
  assert.equal(rig.read(RBR), 0x66);
  assert.equal(rig.sink.accepts, accepts + 1);
  // The queue wraps around its 16 places.
  rig.input(bytes("xyz"));
  assert.deepEqual(readAll(rig), bytes("xyz"));
});

serialTest("receiver interrupt says data at the trigger level and nothing yet below it", (rig) => {
  for (
    const [bits, trigger] of [[0, 1], [FCR_TRIGGER_4, 4], [FCR_TRIGGER_8, 8], [FCR_TRIGGER_14, 14]]
  ) {
    rig.write(FCR, bits | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR);
    rig.write(IER, IER_RDI);
    for (let count = 1; count <= 16; count++) {
      rig.input([count]);
      assert.equal(rig.read(IIR), IIR_FIFOS | (count >= trigger ? IIR_RDI : IIR_NO_INT));
      assert.equal(rig.context.levels[0] ?? false, count >= trigger);
    }
    for (let count = 16; count > 0; count--) {
      assert.equal(rig.read(IIR), IIR_FIFOS | (count >= trigger ? IIR_RDI : IIR_NO_INT));
      rig.read(RBR);
    }
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
    assert.equal(rig.context.levels[0], false);
  }
});

serialTest("`IIR` names interrupts in the order of table IV", (rig) => {
  rig.write(IER, IER_ALL);
  rig.read(IIR);
  rig.write(MCR, MCR_LOOP); // all four modem lines change
  rig.write(THR, 0x41);
  rig.write(THR, 0x42); // overrun, and THR is empty
  assert.equal(rig.read(IIR), IIR_RLSI);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_OE);
  assert.equal(rig.read(IIR), IIR_RDI);
  assert.equal(rig.read(RBR), 0x42);
  assert.equal(rig.read(IIR), IIR_THRI);
  assert.equal(rig.read(IIR), IIR_MSI);
  assert.equal(rig.read(MSR), MSR_DCTS | MSR_DDSR | MSR_DDCD);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  assert.equal(rig.context.levels[0], false);
});

serialTest("`IER` masks each interrupt source", (rig) => {
  rig.write(MCR, MCR_LOOP);
  rig.write(THR, 0x41);
  rig.write(THR, 0x42);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  assert.deepEqual(rig.context.edges, []);
  for (
    const [bit, id] of [[IER_RLSI, IIR_RLSI], [IER_RDI, IIR_RDI], [IER_THRI, IIR_THRI], [
      IER_MSI,
      IIR_MSI,
    ]]
  ) {
    rig.write(IER, bit);
    assert.equal(rig.read(IIR), id);
    rig.write(IER, 0);
    assert.equal(rig.context.levels[0], false);
  }
});

serialTest("overrun keeps the FIFO and loses the newest byte, as LSR tells once", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.write(MCR, MCR_LOOP);
  for (let byte = 0; byte < 256; byte++) rig.write(THR, byte);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_OE);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  // Linux counts this way to learn the FIFO's size.
  assert.deepEqual(readAll(rig), Array.from({ length: 16 }, (_, i) => i));
});

serialTest("overrun replaces the byte in RBR in 16450 mode", (rig) => {
  rig.write(MCR, MCR_LOOP);
  rig.write(THR, 1);
  rig.write(THR, 2);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR | LSR_OE);
  assert.deepEqual(readAll(rig), [2]);
});

serialTest("`FCR` clears FIFOs by its bits and by a change of mode", (rig) => {
  rig.sink.budget = 0;
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.input(bytes("ab"));
  rig.write(THR, 1);
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_RCVR);
  assert.equal(rig.read(LSR), 0);
  rig.input(bytes("ab"));
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_XMIT);
  assert.equal(rig.read(LSR), LSR_IDLE | LSR_DR);
  rig.write(THR, 1);
  // Bit 0 clear: the other bits are not programmed, the mode changes.
  rig.write(FCR, FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  assert.equal(rig.read(LSR), LSR_IDLE);
  assert.equal(rig.read(IIR), IIR_NO_INT);
  rig.writable();
  assert.deepEqual(rig.sink.sent, []);
});

serialTest("`FCR` makes THR empty when it clears the transmitter", (rig) => {
  rig.sink.budget = 0;
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.write(IER, IER_THRI);
  rig.write(THR, 1);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_XMIT);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_THRI);
});

serialTest("`THR` keeps the order when the host takes bytes again before it says so", (rig) => {
  rig.sink.budget = 0;
  rig.write(THR, 1);
  rig.sink.budget = Infinity;
  rig.write(THR, 2);
  rig.writable();
  assert.deepEqual(rig.sink.sent, [1, 2]);
});

serialTest("`FCR` lets the host send again when it clears the receiver", (rig) => {
  rig.write(FCR, FCR_ENABLE_FIFO);
  rig.input(new Array(16).fill(1));
  const accepts = rig.sink.accepts;
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_RCVR);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.equal(rig.call((device) => device.inputRoom!()), 16);
});

serialTest("`input()` loses nothing when the guest leaves FIFO mode before it", (rig) => {
  rig.call((device) => device.input!(Uint8Array.of(1, 2, 3)));
  assert.equal(rig.call((device) => device.inputRoom!()), 0);
  assert.deepEqual(readAll(rig), [1, 2, 3]);
});

serialTest("`read()` and `write()` split a wide access into bytes", (rig) => {
  rig.write(SCR, 0x5a);
  assert.equal(rig.read(MSR, 2), 0x5ab0);
  assert.equal(rig.read(LCR, 4), 0xb0600000);
  assert.equal(rig.read(SCR, 4), 0xffffff5a);
  rig.write(LCR, 0x0b03, 2);
  assert.equal(rig.read(LCR), LCR_8N1);
  assert.equal(rig.read(MCR), MCR_DTR | MCR_RTS | MCR_OUT2);
  rig.write(THR, 0x03000f41, 4);
  assert.equal(rig.sink.text, "A");
  assert.equal(rig.read(IER), IER_ALL);
});

Deno.test("`ranges()` and `irqs()` follow index unless iobase and irq are given", () => {
  const addresses = [0, 1, 2, 3].map((index) => [
    isaSerial.ranges({ index })[0].base,
    isaSerial.irqs({ index })[0],
  ]);
  assert.deepEqual(addresses, [[0x3f8, 4], [0x2f8, 3], [0x3e8, 4], [0x2e8, 3]]);
  assert.deepEqual(isaSerial.ranges({}), [{
    space: "pio",
    base: 0x3f8,
    size: 8,
    name: "serial",
  }]);
  assert.equal(isaSerial.ranges({ index: 1, iobase: 0x200 })[0].base, 0x200);
  assert.deepEqual(isaSerial.irqs({ index: 1, irq: 10 }), [10]);
});

Deno.test("`ranges()` and `irqs()` throw when a property is out of bounds", () => {
  assert.throws(() => isaSerial.ranges({ index: 4 }), /number of ISA serial ports is 4/);
  assert.throws(() => isaSerial.ranges({ iobase: 0xfff9 }), /Maximum value for "iobase" is: 65528/);
  assert.throws(() => isaSerial.irqs({ irq: 16 }), /Maximum value for "irq" is: 15/);
});
