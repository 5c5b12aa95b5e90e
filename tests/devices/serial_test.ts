import assert from "node:assert/strict";
import { isaSerial } from "../../devices/isa/serial.ts";
import { deviceTest, type Rig } from "./fake_context.ts";

const THR = 0, RBR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7;
const test = (name: string, run: (rig: Rig) => void) => deviceTest(name, isaSerial, run);
const bytes = (text: string) => [...text].map((c) => c.charCodeAt(0));
const readAll = (rig: Rig) => {
  const read: number[] = [];
  while (rig.read(LSR) & 1) read.push(rig.read(RBR));
  return read;
};

test("`reset()` leaves the registers as table I of the data sheet says", (rig) => {
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7].map((r) => rig.read(r)), [0, 1, 0, 0, 0x60, 0xb0, 0]);
  rig.input(bytes("abc"));
  rig.write(IER, 0x0f);
  rig.write(FCR, 0xc7);
  rig.write(LCR, 0x1b);
  rig.write(MCR, 0x0b);
  assert.equal(rig.context.levels[0], true);
  rig.call((device) => device.reset());
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7].map((r) => rig.read(r)), [0, 1, 0, 0, 0x60, 0xb0, 0]);
  assert.equal(rig.context.levels[0], false);
});

test("`IER`, `MCR`, `LCR` and `SCR` keep exactly the bits that exist", (rig) => {
  for (const [register, kept] of [[IER, 0x0f], [MCR, 0x1f], [SCR, 0xff]]) {
    rig.write(register, 0xff);
    assert.equal(rig.read(register), kept);
    rig.write(register, 0);
    assert.equal(rig.read(register), 0);
  }
  rig.write(LCR, 0xa5);
  assert.equal(rig.read(LCR), 0xa5);
});

test("`LCR` bit 7 shows the divisor instead of data and IER", (rig) => {
  rig.write(IER, 0x05);
  rig.write(LCR, 0x83);
  rig.write(0, 0x34);
  rig.write(1, 0x12);
  assert.equal(rig.read(0), 0x34);
  assert.equal(rig.read(1), 0x12);
  rig.write(LCR, 0x03);
  assert.equal(rig.read(IER), 0x05);
  assert.equal(rig.read(RBR), 0);
  assert.deepEqual(rig.sink.sent, []);
});

test("`THR` sends each byte at once with one write of one byte", (rig) => {
  for (const byte of bytes("hello")) {
    rig.write(THR, byte);
    assert.equal(rig.read(LSR), 0x60);
  }
  assert.equal(rig.sink.text, "hello");
  assert.deepEqual(rig.sink.offered, [1, 1, 1, 1, 1]);
});

test("`THR` holds bytes in order and LSR says so when the host takes none", (rig) => {
  rig.write(FCR, 0x01);
  rig.sink.budget = 2;
  for (const byte of bytes("abcdefgh")) rig.write(THR, byte);
  assert.equal(rig.sink.text, "ab");
  assert.equal(rig.read(LSR), 0x00);
  rig.writable(3);
  assert.equal(rig.sink.text, "abcde");
  assert.equal(rig.read(LSR), 0x00);
  rig.write(THR, 0x69);
  rig.writable();
  assert.equal(rig.sink.text, "abcdefghi");
  assert.equal(rig.read(LSR), 0x60);
});

test("`THR` neither loses nor doubles a byte when the host stalls at random", (rig) => {
  rig.write(FCR, 0x01);
  const expected: number[] = [];
  let seed = 7;
  const random = (n: number) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  for (let step = 0; step < 2000; step++) {
    if (random(3) === 0) {
      rig.writable(random(9));
    } else if (rig.read(LSR) & 0x20) {
      for (let i = random(16) + 1; i > 0; i--) {
        expected.push(step & 0xff);
        rig.write(THR, step & 0xff);
      }
    }
  }
  rig.writable();
  assert.deepEqual(rig.sink.sent, expected);
});

test("`THR` drops what is written to a full transmitter and keeps the rest", (rig) => {
  rig.sink.budget = 0;
  for (const byte of bytes("0123456789abcdefXYZ")) rig.write(THR, byte);
  rig.writable();
  assert.equal(rig.sink.text, "0123456789abcdef");
});

test("THRE interrupt comes when IER enables it with THR empty, and IIR clears it", (rig) => {
  rig.write(IER, 0x02);
  assert.equal(rig.context.levels[0], true);
  assert.equal(rig.read(IIR), 0x02);
  assert.equal(rig.context.levels[0], false);
  assert.equal(rig.read(IIR), 0x01);
  // Linux tests for buggy UARTs this way: off and on again must interrupt again.
  rig.write(IER, 0x00);
  rig.write(IER, 0x02);
  assert.equal(rig.read(IIR), 0x02);
  // Writing what is enabled already is no new event.
  rig.write(IER, 0x02);
  assert.equal(rig.read(IIR), 0x01);
});

test("THRE interrupt makes a new edge for each byte that leaves THR", (rig) => {
  rig.write(IER, 0x02);
  rig.write(THR, 1);
  rig.write(THR, 2);
  assert.deepEqual(rig.context.edges, ["+0", "-0", "+0", "-0", "+0"]);
});

test("THRE interrupt waits for the host when it takes no bytes", (rig) => {
  rig.write(IER, 0x02);
  rig.sink.budget = 0;
  rig.write(THR, 1);
  assert.equal(rig.context.levels[0], false);
  rig.write(IER, 0x00);
  rig.write(IER, 0x02);
  assert.equal(rig.read(IIR), 0x01);
  rig.writable();
  assert.equal(rig.read(IIR), 0x02);
  rig.writable();
  assert.equal(rig.read(IIR), 0x01);
});

test("`RBR` gives one byte at a time in 16450 mode", (rig) => {
  assert.deepEqual(rig.input(bytes("ab")), bytes("b"));
  assert.equal(rig.read(LSR), 0x61);
  assert.equal(rig.call((device) => device.inputRoom!()), 0);
  const accepts = rig.sink.accepts;
  assert.equal(rig.read(RBR), 0x61);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.equal(rig.read(LSR), 0x60);
  assert.equal(rig.read(RBR), 0);
});

test("receiver FIFO holds 16 bytes and asks for more once it is empty", (rig) => {
  rig.write(FCR, 0x01);
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

test("receiver interrupt says data at the trigger level and nothing yet below it", (rig) => {
  for (const [bits, trigger] of [[0x00, 1], [0x40, 4], [0x80, 8], [0xc0, 14]]) {
    rig.write(FCR, bits | 0x03);
    rig.write(IER, 0x01);
    for (let count = 1; count <= 16; count++) {
      rig.input([count]);
      assert.equal(rig.read(IIR), count >= trigger ? 0xc4 : 0xc1);
      assert.equal(rig.context.levels[0] ?? false, count >= trigger);
    }
    for (let count = 16; count > 0; count--) {
      assert.equal(rig.read(IIR), count >= trigger ? 0xc4 : 0xc1);
      rig.read(RBR);
    }
    assert.equal(rig.read(IIR), 0xc1);
    assert.equal(rig.context.levels[0], false);
  }
});

test("`IIR` names interrupts in the order of table IV", (rig) => {
  rig.write(IER, 0x0f);
  rig.read(IIR);
  rig.write(MCR, 0x10); // loopback: all four modem lines change
  rig.write(THR, 0x41);
  rig.write(THR, 0x42); // overrun, and THR is empty
  assert.equal(rig.read(IIR), 0x06);
  assert.equal(rig.read(LSR), 0x63);
  assert.equal(rig.read(IIR), 0x04);
  assert.equal(rig.read(RBR), 0x42);
  assert.equal(rig.read(IIR), 0x02);
  assert.equal(rig.read(IIR), 0x00);
  assert.equal(rig.read(MSR), 0x0b);
  assert.equal(rig.read(IIR), 0x01);
  assert.equal(rig.context.levels[0], false);
});

test("`IER` masks each interrupt source", (rig) => {
  rig.write(MCR, 0x10);
  rig.write(THR, 0x41);
  rig.write(THR, 0x42);
  assert.equal(rig.read(IIR), 0x01);
  assert.deepEqual(rig.context.edges, []);
  for (const [bit, id] of [[0x04, 0x06], [0x01, 0x04], [0x02, 0x02], [0x08, 0x00]]) {
    rig.write(IER, bit);
    assert.equal(rig.read(IIR), id);
    rig.write(IER, 0);
    assert.equal(rig.context.levels[0], false);
  }
});

test("overrun keeps the FIFO and loses the newest byte, as LSR tells once", (rig) => {
  rig.write(FCR, 0x01);
  rig.write(MCR, 0x10);
  for (let byte = 0; byte < 256; byte++) rig.write(THR, byte);
  assert.equal(rig.read(LSR), 0x63);
  assert.equal(rig.read(LSR), 0x61);
  // Linux counts this way to learn the FIFO's size.
  assert.deepEqual(readAll(rig), Array.from({ length: 16 }, (_, i) => i));
});

test("overrun replaces the byte in RBR in 16450 mode", (rig) => {
  rig.write(MCR, 0x10);
  rig.write(THR, 1);
  rig.write(THR, 2);
  assert.equal(rig.read(LSR), 0x63);
  assert.deepEqual(readAll(rig), [2]);
});

test("`FCR` clears FIFOs by its bits and by a change of mode", (rig) => {
  rig.sink.budget = 0;
  rig.write(FCR, 0x01);
  rig.input(bytes("ab"));
  rig.write(THR, 1);
  rig.write(FCR, 0x03);
  assert.equal(rig.read(LSR), 0x00);
  rig.input(bytes("ab"));
  rig.write(FCR, 0x05);
  assert.equal(rig.read(LSR), 0x61);
  rig.write(THR, 1);
  rig.write(FCR, 0x06); // bit 0 clear: the other bits are not programmed, the mode changes
  assert.equal(rig.read(LSR), 0x60);
  assert.equal(rig.read(IIR), 0x01);
  rig.writable();
  assert.deepEqual(rig.sink.sent, []);
});

test("`FCR` makes THR empty when it clears the transmitter", (rig) => {
  rig.sink.budget = 0;
  rig.write(FCR, 0x01);
  rig.write(IER, 0x02);
  rig.write(THR, 1);
  assert.equal(rig.read(IIR), 0xc1);
  rig.write(FCR, 0x05);
  assert.equal(rig.read(IIR), 0xc2);
});

test("`THR` keeps the order when the host takes bytes again before it says so", (rig) => {
  rig.sink.budget = 0;
  rig.write(THR, 1);
  rig.sink.budget = Infinity;
  rig.write(THR, 2);
  rig.writable();
  assert.deepEqual(rig.sink.sent, [1, 2]);
});

test("`FCR` lets the host send again when it clears the receiver", (rig) => {
  rig.write(FCR, 0x01);
  rig.input(new Array(16).fill(1));
  const accepts = rig.sink.accepts;
  rig.write(FCR, 0x03);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.equal(rig.call((device) => device.inputRoom!()), 16);
});

test("`MCR` loopback returns bytes and cuts the host off", (rig) => {
  rig.write(FCR, 0x01);
  rig.write(MCR, 0x10);
  rig.write(IER, 0x01);
  for (const byte of bytes("loop")) rig.write(THR, byte);
  assert.equal(rig.read(IIR), 0xc4);
  assert.deepEqual(rig.input(bytes("host")), bytes("host"));
  rig.call((device) => device.inputBreak!());
  assert.deepEqual(readAll(rig), bytes("loop"));
  assert.deepEqual(rig.sink.sent, []);
  const accepts = rig.sink.accepts;
  rig.write(MCR, 0x00);
  assert.equal(rig.sink.accepts, accepts + 1);
  assert.deepEqual(rig.input(bytes("host")), []);
  assert.deepEqual(readAll(rig), bytes("host"));
});

test("`MCR` loopback connects DTR, RTS, OUT1 and OUT2 to the modem inputs", (rig) => {
  for (const [output, input] of [[0x01, 0x20], [0x02, 0x10], [0x04, 0x40], [0x08, 0x80]]) {
    rig.write(MCR, 0x10 | output);
    assert.equal(rig.read(MSR) & 0xf0, input);
  }
  // What Linux's autoconfig looks for.
  rig.write(MCR, 0x1a);
  assert.equal(rig.read(MSR) & 0xf0, 0x90);
});

test("`MSR` records changes of its lines until it is read", (rig) => {
  assert.equal(rig.read(MSR), 0xb0);
  rig.write(MCR, 0x1b); // same lines as the host's: nothing changes
  assert.equal(rig.read(MSR), 0xb0);
  rig.write(MCR, 0x1f); // RI rises: no TERI
  assert.equal(rig.read(MSR), 0xf0);
  rig.write(IER, 0x08);
  rig.write(MCR, 0x1b); // RI falls: TERI
  assert.equal(rig.read(IIR), 0x00);
  assert.equal(rig.read(MSR), 0xb4);
  assert.equal(rig.read(IIR), 0x01);
  rig.write(MCR, 0x1a);
  assert.equal(rig.read(MSR), 0x92);
  rig.write(MCR, 0x18);
  assert.equal(rig.read(MSR), 0x81);
  rig.write(MCR, 0x10);
  assert.equal(rig.read(MSR), 0x08);
});

test("`LCR` bit 6 sends one break to the host each time it is set", (rig) => {
  rig.write(LCR, 0x43);
  rig.write(LCR, 0x43);
  assert.equal(rig.sink.breaks, 1);
  rig.write(LCR, 0x03);
  rig.write(LCR, 0x43);
  assert.equal(rig.sink.breaks, 2);
});

test("`LCR` bit 6 does nothing in loopback, where SOUT is cut off", (rig) => {
  rig.write(MCR, 0x10);
  rig.write(LCR, 0x43);
  assert.equal(rig.sink.breaks, 0);
  assert.equal(rig.read(LSR), 0x60);
  rig.write(THR, 0x99);
  assert.equal(rig.read(LSR), 0x61);
  assert.equal(rig.read(RBR), 0x99);
});

test("`inputBreak()` shows BI and FE when its zero byte is next", (rig) => {
  rig.write(FCR, 0x01);
  rig.write(IER, 0x05);
  rig.input([0x41]);
  rig.call((device) => device.inputBreak!());
  rig.input([0x42]);
  assert.equal(rig.read(LSR), 0xe1); // an error is in the FIFO, but not at its top
  assert.equal(rig.read(IIR), 0xc4);
  assert.equal(rig.read(RBR), 0x41);
  assert.equal(rig.read(IIR), 0xc6);
  assert.equal(rig.read(LSR), 0xf9);
  assert.equal(rig.read(LSR), 0x61);
  assert.equal(rig.read(RBR), 0);
  assert.equal(rig.read(LSR), 0x61);
  assert.equal(rig.read(RBR), 0x42);
});

test("`inputBreak()` counts as an overrun when the FIFO is full", (rig) => {
  rig.write(FCR, 0x01);
  rig.input(new Array(16).fill(0x41));
  rig.call((device) => device.inputBreak!());
  assert.equal(rig.read(LSR), 0x63);
  assert.deepEqual(readAll(rig), new Array(16).fill(0x41));
});

test("`input()` loses nothing when the guest leaves FIFO mode before it", (rig) => {
  rig.call((device) => device.input!(Uint8Array.of(1, 2, 3)));
  assert.equal(rig.call((device) => device.inputRoom!()), 0);
  assert.deepEqual(readAll(rig), [1, 2, 3]);
});

test("interrupt line does not depend on OUT2", (rig) => {
  rig.write(IER, 0x01);
  rig.write(MCR, 0x00);
  rig.input([1]);
  assert.equal(rig.context.levels[0], true);
});

test("`read()` and `write()` split a wide access into bytes", (rig) => {
  rig.write(SCR, 0x5a);
  assert.equal(rig.read(MSR, 2), 0x5ab0);
  assert.equal(rig.read(LCR, 4), 0xb0600000);
  assert.equal(rig.read(SCR, 4), 0xffffff5a);
  rig.write(LCR, 0x0b03, 2);
  assert.equal(rig.read(LCR), 0x03);
  assert.equal(rig.read(MCR), 0x0b);
  rig.write(THR, 0x03000f41, 4);
  assert.equal(rig.sink.text, "A");
  assert.equal(rig.read(IER), 0x0f);
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
