import assert from "node:assert/strict";
import { i8042 } from "../../devices/isa/i8042.ts";
import { deviceTest, type Rig } from "./fake_context.ts";

const RESET = { kind: "reset", reason: "guest-reset" };
const test = (name: string, run: (rig: Rig) => void) => deviceTest(name, i8042, run);
const data = (rig: Rig) => rig.read(0, 1, 0);
const status = (rig: Rig) => rig.read(0, 1, 1);
const send = (rig: Rig, byte: number) => rig.write(0, byte, 1, 0);
const command = (rig: Rig, byte: number, ...parameters: number[]) => {
  rig.write(0, byte, 1, 1);
  for (const parameter of parameters) send(rig, parameter);
};
const drain = (rig: Rig) => {
  const read: number[] = [];
  while (status(rig) & 1) read.push(data(rig));
  return read;
};

test("self-test answers 0x55 and sets the system flag", (rig) => {
  assert.equal(status(rig), 0x10);
  command(rig, 0xaa);
  assert.equal(status(rig), 0x1d);
  assert.equal(data(rig), 0x55);
  assert.equal(status(rig), 0x1c);
  command(rig, 0x20);
  assert.equal(data(rig), 0x07);
});

test("interface tests find both interfaces good", (rig) => {
  command(rig, 0xab);
  assert.deepEqual(drain(rig), [0x00]);
  command(rig, 0xa9);
  assert.deepEqual(drain(rig), [0x00]);
});

test("commands 0x60 and 0x20 write and read the command byte", (rig) => {
  command(rig, 0x60, 0x65);
  assert.equal(status(rig), 0x14);
  command(rig, 0x20);
  assert.deepEqual(drain(rig), [0x65]);
});

test("commands 0xa7 to 0xae switch the interfaces in the command byte", (rig) => {
  const config = () => {
    command(rig, 0x20);
    return data(rig);
  };
  command(rig, 0xa7);
  assert.equal(config(), 0x23);
  command(rig, 0xad);
  assert.equal(config(), 0x33);
  command(rig, 0xa8);
  assert.equal(config(), 0x13);
  command(rig, 0xae);
  assert.equal(config(), 0x03);
});

test("output port keeps A20 and reads with the interrupt requests", (rig) => {
  const output = () => {
    command(rig, 0xd0);
    return data(rig);
  };
  assert.equal(output(), 0xcf);
  command(rig, 0xd1, 0xdd);
  assert.equal(output(), 0xcd);
  command(rig, 0xdf);
  assert.equal(output(), 0xcf);
  command(rig, 0xdd);
  assert.equal(output(), 0xcd);
  command(rig, 0xd2, 0x11);
  command(rig, 0xd0);
  assert.deepEqual(drain(rig), [0x11, 0xdd]);
  assert.deepEqual(rig.context.requests, []);
});

test("input port reads as an unlocked keyboard", (rig) => {
  command(rig, 0xc0);
  assert.deepEqual(drain(rig), [0x80]);
});

test("command 0xd1 with bit 0 clear requests a reset", (rig) => {
  command(rig, 0xd1, 0xce);
  assert.deepEqual(rig.context.requests, [RESET]);
});

test("commands 0xf0 to 0xff request a reset when they pulse bit 0", (rig) => {
  for (let byte = 0xf0; byte <= 0xff; byte++) command(rig, byte);
  assert.deepEqual(rig.context.requests, new Array(8).fill(RESET));
  rig.context.requests.length = 0;
  command(rig, 0xfe);
  assert.deepEqual(rig.context.requests, [RESET]);
});

test("keyboard answers reset, identify, LEDs, typematic, enable and defaults", (rig) => {
  send(rig, 0xff);
  assert.deepEqual(drain(rig), [0xfa, 0xaa]);
  send(rig, 0xf2);
  assert.deepEqual(drain(rig), [0xfa, 0xab, 0x83]);
  for (const [byte, argument] of [[0xed, 0x07], [0xf3, 0x20]]) {
    send(rig, byte);
    assert.deepEqual(drain(rig), [0xfa]);
    send(rig, argument);
    assert.deepEqual(drain(rig), [0xfa]);
  }
  for (const byte of [0xf4, 0xf5, 0xf6]) {
    send(rig, byte);
    assert.deepEqual(drain(rig), [0xfa]);
  }
  send(rig, 0xee);
  assert.deepEqual(drain(rig), [0xee]);
  send(rig, 0xfe);
  assert.deepEqual(drain(rig), [0xee]);
  send(rig, 0x07);
  assert.deepEqual(drain(rig), [0xfe]);
});

test("keyboard takes a command in place of an argument", (rig) => {
  send(rig, 0xed);
  send(rig, 0xf2);
  assert.deepEqual(drain(rig), [0xfa, 0xfa, 0xab, 0x83]);
});

test("keyboard keeps its scancode set", (rig) => {
  const set = () => {
    send(rig, 0xf0);
    send(rig, 0x00);
    return drain(rig);
  };
  assert.deepEqual(set(), [0xfa, 0xfa, 2]);
  send(rig, 0xf0);
  send(rig, 0x03);
  assert.deepEqual(drain(rig), [0xfa, 0xfa]);
  assert.deepEqual(set(), [0xfa, 0xfa, 3]);
  send(rig, 0xf0);
  send(rig, 0x04);
  assert.deepEqual(drain(rig), [0xfa, 0xfe]);
  send(rig, 0xf6);
  assert.deepEqual(drain(rig), [0xfa]);
  assert.deepEqual(set(), [0xfa, 0xfa, 2]);
});

test("command byte bit 6 translates the keyboard's answers to set 1", (rig) => {
  command(rig, 0x60, 0x43);
  send(rig, 0xf2);
  assert.deepEqual(drain(rig), [0xfa, 0xab, 0x41]);
  send(rig, 0xf0);
  send(rig, 0x00);
  assert.deepEqual(drain(rig), [0xfa, 0xfa, 0x41]);
});

test("keyboard holds its answers while it is disabled, and a byte to it enables it", (rig) => {
  send(rig, 0xf2);
  command(rig, 0xad);
  assert.deepEqual(drain(rig), [0xfa]);
  command(rig, 0xae);
  assert.deepEqual(drain(rig), [0xab, 0x83]);
  command(rig, 0xad);
  send(rig, 0xee);
  assert.deepEqual(drain(rig), [0xee]);
});

test("the controller's answer comes before the keyboard's", (rig) => {
  send(rig, 0xf2);
  command(rig, 0x20);
  assert.deepEqual(drain(rig), [0xfa, 0x03, 0xab, 0x83]);
});

test("keyboard's answers beyond its queue are lost without harm", (rig) => {
  for (let i = 0; i < 40; i++) send(rig, 0xee);
  assert.deepEqual(drain(rig), new Array(17).fill(0xee));
});

test("command 0xd4 times out because there is no mouse", (rig) => {
  command(rig, 0xd4, 0xf2);
  assert.equal(status(rig), 0x71);
  assert.deepEqual(rig.context.edges, ["+1"]);
  assert.equal(data(rig), 0xfe);
  assert.equal(status(rig), 0x10);
  assert.deepEqual(rig.context.edges, ["+1", "-1"]);
});

test("commands 0xd2 and 0xd3 put bytes into the output buffer", (rig) => {
  command(rig, 0xd2, 0x12);
  assert.equal(status(rig), 0x11);
  assert.equal(data(rig), 0x12);
  command(rig, 0xd3, 0x5a);
  assert.equal(status(rig), 0x31);
  assert.equal(data(rig), 0x5a);
  assert.deepEqual(rig.context.edges, ["+0", "-0", "+1", "-1"]);
});

test("interrupt 1 makes an edge for each byte when the command byte enables it", (rig) => {
  send(rig, 0xf2);
  assert.deepEqual(drain(rig), [0xfa, 0xab, 0x83]);
  assert.deepEqual(rig.context.edges, ["+0", "-0", "+0", "-0", "+0", "-0"]);
  command(rig, 0x60, 0x00);
  send(rig, 0xf2);
  command(rig, 0xd3, 0x5a);
  assert.deepEqual(drain(rig), [0xfa, 0x5a, 0xab, 0x83]);
  assert.equal(rig.context.edges.length, 6);
});

test("a new controller command abandons one that waits for data", (rig) => {
  command(rig, 0x60);
  command(rig, 0xaa);
  assert.deepEqual(drain(rig), [0x55]);
  send(rig, 0xee);
  assert.deepEqual(drain(rig), [0xee]);
});

test("`reset()` empties the buffers and drops the interrupts", (rig) => {
  command(rig, 0x60, 0x47);
  send(rig, 0xf2);
  command(rig, 0xd1);
  rig.call((device) => device.reset());
  assert.equal(rig.context.levels[0], false);
  assert.equal(status(rig), 0x10);
  command(rig, 0x20);
  assert.deepEqual(drain(rig), [0x03]);
});

test("a wide access reaches one register only", (rig) => {
  command(rig, 0xaa);
  assert.equal(rig.read(0, 2, 1), 0xff1d);
  rig.write(0, 0xfeab, 2, 1);
  assert.deepEqual(rig.context.requests, []);
});

Deno.test("`irqs()` are 1 and 12 unless the properties say otherwise", () => {
  assert.deepEqual(i8042.irqs({ "kbd-irq": 1, "mouse-irq": 12 }), [1, 12]);
  assert.throws(() => i8042.irqs({ "kbd-irq": 16, "mouse-irq": 12 }), /"kbd-irq" is: 15/);
});
