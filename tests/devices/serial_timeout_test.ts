import assert from "node:assert/strict";
import { isaSerial } from "../../devices/isa/serial.ts";
import { deviceTest, Rig } from "./fake_context.ts";

const RBR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, LSR = 5;
const test = (name: string, run: (rig: Rig) => void) => deviceTest(name, isaSerial, run);
const bytes = (text: string) => [...text].map((c) => c.charCodeAt(0));
const readAll = (rig: Rig) => {
  const read: number[] = [];
  while (rig.read(LSR) & 1) read.push(rig.read(RBR));
  return read;
};

/** Sets the latch and a line format, as a driver does. */
function setLine(rig: Rig, divisor: number, lcr: number) {
  rig.write(LCR, 0x80 | lcr);
  rig.write(0, divisor & 0xff);
  rig.write(1, divisor >> 8);
  rig.write(LCR, lcr);
}

/** 4 characters of 10 bits at 115200 baud, rounded down to nanoseconds. */
const TIMEOUT_115200 = 347_220n;

test("character timeout comes four characters after the last byte, until one is read", (rig) => {
  setLine(rig, 1, 0x03);
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  rig.input(bytes("a"));
  rig.pass(TIMEOUT_115200 - 1n);
  assert.equal(rig.read(IIR), 0xc1);
  rig.input(bytes("b"));
  rig.pass(TIMEOUT_115200 - 1n);
  assert.equal(rig.read(IIR), 0xc1);
  assert.equal(rig.context.levels[0] ?? false, false);
  rig.pass(1n);
  assert.equal(rig.context.levels[0], true);
  assert.equal(rig.read(IIR), 0xcc);
  assert.equal(rig.read(IIR), 0xcc);
  // Neither time nor a further byte takes back what has come.
  rig.input(bytes("c"));
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
  assert.equal(rig.read(RBR), 0x61);
  assert.equal(rig.read(IIR), 0xc1);
  assert.equal(rig.context.levels[0], false);
  // What is left counts anew.
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
  assert.deepEqual(readAll(rig), bytes("bc"));
  assert.equal(rig.read(IIR), 0xc1);
  const { edges } = rig.context;
  const seen = edges.length;
  rig.pass(TIMEOUT_115200 * 4n);
  assert.equal(edges.length, seen);
  assert.equal(rig.context.deadline, 0n);
});

test("character timeout depends on the divisor and the line's format", (rig) => {
  const bitNs = (divisor: number) => 16e9 * divisor / 1_843_200;
  const formats = [
    { lcr: 0x03, bits: 10 },
    { lcr: 0x00, bits: 7 },
    { lcr: 0x04, bits: 7.5 },
    { lcr: 0x07, bits: 11 },
    { lcr: 0x1a, bits: 10 },
    { lcr: 0x1f, bits: 12 },
  ];
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  for (const divisor of [1, 12, 0xffff]) {
    for (const { lcr, bits } of formats) {
      setLine(rig, divisor, lcr);
      const ns = BigInt(Math.floor(4 * bits * bitNs(divisor)));
      rig.input(bytes("x"));
      rig.pass(ns - 10n);
      assert.equal(rig.read(IIR), 0xc1);
      rig.pass(10n);
      assert.equal(rig.read(IIR), 0xcc);
      rig.read(RBR);
    }
  }
});

test("character timeout is short when the divisor is 0, with which the chip would not run", (rig) => {
  setLine(rig, 0, 0x03);
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  rig.input(bytes("x"));
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
});

test("character timeout counts for bytes that were there before it was wanted", (rig) => {
  setLine(rig, 1, 0x03);
  rig.write(FCR, 0x07);
  rig.input(bytes("ab"));
  assert.equal(rig.context.deadline, 0n);
  rig.write(IER, 0x01);
  assert.equal(rig.read(IIR), 0xc4);
  rig.write(FCR, 0xc1); // the level rises above what is there
  assert.equal(rig.read(IIR), 0xc1);
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
  rig.write(FCR, 0xc3);
  assert.equal(rig.read(IIR), 0xc1);
  assert.equal(rig.context.levels[0], false);
  rig.write(IER, 0x00);
  rig.input(bytes("c"));
  rig.pass(TIMEOUT_115200);
  rig.write(IER, 0x01);
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
});

test("character timeout comes sooner when a shorter one starts before a longer one is over", (rig) => {
  setLine(rig, 0xffff, 0x03);
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  rig.input(bytes("a"));
  setLine(rig, 1, 0x03);
  rig.input(bytes("b"));
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), 0xcc);
});

/** How often something sets the device's timer. */
function countTimerCalls(rig: Rig, action: () => void): number {
  const before = rig.context.timerCalls;
  action();
  return rig.context.timerCalls - before;
}

Deno.test("character timeout sets no timer without FIFO, at level 1, or while a guest polls", () => {
  const rig = new Rig(isaSerial);
  const stream = () => {
    for (let i = 0; i < 100; i++) {
      rig.input(bytes("abc"));
      readAll(rig);
    }
  };
  rig.write(IER, 0x0f);
  assert.equal(countTimerCalls(rig, stream), 0);
  rig.write(FCR, 0x07);
  assert.equal(countTimerCalls(rig, stream), 0);
  rig.write(IER, 0x00);
  rig.write(FCR, 0xc7);
  assert.equal(countTimerCalls(rig, stream), 0);
});

Deno.test("character timeout sets one timer for a burst, however many bytes it has", () => {
  const rig = new Rig(isaSerial);
  setLine(rig, 1, 0x03);
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  const burst = () => {
    for (let i = 0; i < 13; i++) rig.input([i]);
    readAll(rig);
  };
  assert.equal(countTimerCalls(rig, burst), 1);
});

Deno.test("`restored()` bounds times that no timeout can have", () => {
  const rig = new Rig(isaSerial);
  rig.write(FCR, 0xc7);
  rig.write(IER, 0x01);
  rig.input(bytes("a"));
  const saved = rig.bytes.slice();
  rig.pass(10_000_000_000n);
  const timeout = isaSerial.state.offsets.timeout;
  saved.fill(0xff, timeout + 8, timeout + 24);
  rig.load(saved);
  assert.ok(rig.context.deadline <= rig.context.monotonic + 30_000_000_000n);
  rig.pass(30_000_000_000n);
  assert.equal(rig.read(IIR), 0xcc);
  saved.fill(0xff, timeout);
  rig.load(saved);
  assert.equal(rig.read(IIR), 0xc1);
});
