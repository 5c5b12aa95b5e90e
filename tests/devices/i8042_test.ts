import assert from "node:assert/strict";
import { i8042 } from "../../devices/isa/i8042.ts";
import { deviceTest, Rig } from "./fake_context.ts";

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

const MS = 1_000_000n;
const press = (rig: Rig, keys: string[], holdMs = 100) =>
  rig.call((device) => device.press!(keys, holdMs));
/** Sets whether the controller translates. */
const translate = (rig: Rig, on: boolean) => command(rig, 0x60, on ? 0x43 : 0x03);

test("a key that is pressed is released after its time", (rig) => {
  assert.equal(press(rig, ["a"], 30), true);
  assert.deepEqual(drain(rig), [0x1c]);
  rig.pass(29n * MS);
  assert.deepEqual(drain(rig), []);
  rig.pass(1n * MS);
  assert.deepEqual(drain(rig), [0xf0, 0x1c]);
  rig.pass(1000n * MS);
  assert.deepEqual(drain(rig), []);
});

test("keys pressed together are released in the opposite order", (rig) => {
  translate(rig, true);
  press(rig, ["ctrl", "alt", "delete"]);
  assert.deepEqual(drain(rig), [0x1d, 0x38, 0xe0, 0x53]);
  rig.pass(100n * MS);
  assert.deepEqual(drain(rig), [0xe0, 0xd3, 0xb8, 0x9d]);
});

test("each byte of a key raises the interrupt", (rig) => {
  press(rig, ["up"], 5);
  assert.equal(rig.context.levels[0], true);
  rig.context.edges.length = 0;
  assert.deepEqual(drain(rig), [0xe0, 0x75]);
  assert.deepEqual(rig.context.edges, ["-0", "+0", "-0"]);
  rig.pass(5n * MS);
  assert.equal(rig.context.levels[0], true);
});

test("what is typed quickly comes out in order", (rig) => {
  translate(rig, true);
  for (const key of ["h", "i", "ret"]) assert.equal(press(rig, [key], 10), true);
  const typed: number[] = [];
  for (let i = 0; i < 4; i++) {
    typed.push(...drain(rig));
    rig.pass(10n * MS);
  }
  typed.push(...drain(rig));
  assert.deepEqual(typed, [0x23, 0xa3, 0x17, 0x97, 0x1c, 0x9c]);
});

test("the keyboard takes no more than it can remember", (rig) => {
  let taken = 0;
  while (press(rig, ["a"])) assert.ok(++taken < 100);
  assert.equal(taken, 41);
  assert.deepEqual(drain(rig), [0x1c]);
  for (let i = 0; i < taken; i++) {
    rig.pass(100n * MS);
    assert.deepEqual(drain(rig), i < taken - 1 ? [0xf0, 0x1c, 0x1c] : [0xf0, 0x1c], `key ${i}`);
  }
  assert.equal(press(rig, ["b"]), true);
});

test("bytes of a key come all, or not at all when nobody reads", (rig) => {
  for (let i = 0; i < 9; i++) {
    press(rig, ["up"], 1);
    rig.pass(1n * MS);
  }
  const read = drain(rig);
  assert.equal(read.length, 17);
  // One is in the output buffer, and the 16 behind it are whole sequences.
  assert.deepEqual(read.slice(-2), [0xe0, 0x75]);
});

test("a keyboard that is switched off, or reset, types nothing", (rig) => {
  press(rig, ["a"]);
  drain(rig);
  send(rig, 0xf5);
  assert.deepEqual(drain(rig), [0xfa]);
  assert.equal(press(rig, ["b"]), true);
  rig.pass(1000n * MS);
  assert.deepEqual(drain(rig), []);
  send(rig, 0xf4);
  assert.deepEqual(drain(rig), [0xfa]);
  press(rig, ["c"]);
  press(rig, ["d"]);
  assert.deepEqual(drain(rig), [0x21]);
  send(rig, 0xff);
  assert.deepEqual(drain(rig), [0xfa, 0xaa]);
  rig.pass(1000n * MS);
  assert.deepEqual(drain(rig), []);
  press(rig, ["e"]);
  drain(rig);
  rig.call((device) => device.reset());
  rig.pass(1000n * MS);
  assert.deepEqual(drain(rig), []);
});

test("scancode sets 1 and 3 have codes of their own", (rig) => {
  send(rig, 0xf0);
  send(rig, 3);
  drain(rig);
  press(rig, ["ctrl", "up"], 1);
  rig.pass(1n * MS);
  assert.deepEqual(drain(rig), [0x11, 0x63, 0xf0, 0x63, 0xf0, 0x11]);
  send(rig, 0xf0);
  send(rig, 1);
  drain(rig);
  press(rig, ["ctrl", "up"], 1);
  rig.pass(1n * MS);
  assert.deepEqual(drain(rig), [0x1d, 0xe0, 0x48, 0xe0, 0xc8, 0x9d]);
});

test("print, pause and keys without a code are what they are on a keyboard", (rig) => {
  const typed = (key: string) => {
    press(rig, [key], 1);
    rig.pass(1n * MS);
    return drain(rig);
  };
  assert.deepEqual(typed("print"), [0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12]);
  assert.deepEqual(typed("pause"), [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]);
  assert.deepEqual(typed("lang1"), []);
  translate(rig, true);
  assert.deepEqual(typed("pause"), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
  assert.deepEqual(typed("print"), [0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa]);
  assert.deepEqual(typed("sysrq"), [0x54, 0xd4]);
  assert.deepEqual(typed("f7"), [0x41, 0xc1]);
});

Deno.test("held keys from a host whose clock is ahead are released after their time", () => {
  const rig = new Rig(i8042);
  press(rig, ["a"], 50);
  drain(rig);
  const saved = rig.bytes.slice();
  const later = new Rig(i8042);
  later.context.monotonic = 5n * MS;
  later.load(saved);
  later.pass(50n * MS);
  assert.deepEqual(drain(later), [0xf0, 0x1c]);
});

Deno.test("keys are saved only if they are used", () => {
  const [{ needed, field }] = i8042.subsections!;
  assert.equal(field, "keys");
  const rig = new Rig(i8042);
  const isNeeded = () => needed(i8042.state.view(rig.bytes.buffer as ArrayBuffer));
  assert.equal(isNeeded(), false);
  press(rig, ["a"]);
  assert.equal(isNeeded(), true);
  rig.pass(100n * MS);
  assert.equal(isNeeded(), false);
  send(rig, 0xf5);
  assert.equal(isNeeded(), true);
});
