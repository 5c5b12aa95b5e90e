import assert from "node:assert/strict";
import { isaSerial } from "../../devices/isa/serial.ts";
import { Rig } from "./fake_context.ts";
import {
  bytes,
  DLL,
  DLM,
  FCR,
  FCR_CLEAR_RCVR,
  FCR_CLEAR_XMIT,
  FCR_ENABLE_FIFO,
  FCR_TRIGGER_14,
  IER,
  IER_ALL,
  IER_RDI,
  IIR,
  IIR_FIFOS,
  IIR_NO_INT,
  IIR_RDI,
  IIR_RX_TIMEOUT,
  LCR,
  LCR_8N1,
  LCR_DLAB,
  RBR,
  readAll,
  serialTest,
} from "./serial_driver.ts";

/** Sets the latch and a line format, as a driver does. */
function setLine(rig: Rig, divisor: number, lcr: number) {
  rig.write(LCR, LCR_DLAB | lcr);
  rig.write(DLL, divisor & 0xff);
  rig.write(DLM, divisor >> 8);
  rig.write(LCR, lcr);
}

/** 4 characters of 10 bits at 115200 baud, rounded down to nanoseconds. */
const TIMEOUT_115200 = 347_220n;

serialTest(
  "character timeout comes four characters after the last byte, until one is read",
  (rig) => {
    setLine(rig, 1, LCR_8N1);
    rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
    rig.write(IER, IER_RDI);
    rig.input(bytes("a"));
    rig.pass(TIMEOUT_115200 - 1n);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
    rig.input(bytes("b"));
    rig.pass(TIMEOUT_115200 - 1n);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
    assert.equal(rig.context.levels[0] ?? false, false);
    rig.pass(1n);
    assert.equal(rig.context.levels[0], true);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
    // Neither time nor a further byte takes back what has come.
    rig.input(bytes("c"));
    rig.pass(TIMEOUT_115200);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
    assert.equal(rig.read(RBR), 0x61);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
    assert.equal(rig.context.levels[0], false);
    // What is left counts anew.
    rig.pass(TIMEOUT_115200);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
    assert.deepEqual(readAll(rig), bytes("bc"));
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
    const { edges } = rig.context;
    const seen = edges.length;
    rig.pass(TIMEOUT_115200 * 4n);
    assert.equal(edges.length, seen);
    assert.equal(rig.context.deadline, 0n);
  },
);

serialTest("character timeout depends on the divisor and the line's format", (rig) => {
  const bitNs = (divisor: number) => 16e9 * divisor / 1_843_200;
  const formats = [
    { lcr: 0x03, bits: 10 },
    { lcr: 0x00, bits: 7 },
    { lcr: 0x04, bits: 7.5 },
    { lcr: 0x07, bits: 11 },
    { lcr: 0x1a, bits: 10 },
    { lcr: 0x1f, bits: 12 },
  ];
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  rig.write(IER, IER_RDI);
  for (const divisor of [1, 12, 0xffff]) {
    for (const { lcr, bits } of formats) {
      setLine(rig, divisor, lcr);
      const ns = BigInt(Math.floor(4 * bits * bitNs(divisor)));
      rig.input(bytes("x"));
      rig.pass(ns - 10n);
      assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
      rig.pass(10n);
      assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
      rig.read(RBR);
    }
  }
});

serialTest(
  "character timeout is short when the divisor is 0, with which the chip would not run",
  (rig) => {
    setLine(rig, 0, LCR_8N1);
    rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
    rig.write(IER, IER_RDI);
    rig.input(bytes("x"));
    rig.pass(TIMEOUT_115200);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
  },
);

serialTest("character timeout counts for bytes that were there before it was wanted", (rig) => {
  setLine(rig, 1, LCR_8N1);
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  rig.input(bytes("ab"));
  assert.equal(rig.context.deadline, 0n);
  rig.write(IER, IER_RDI);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RDI);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO); // the level rises above what is there
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
  assert.equal(rig.context.levels[0], false);
  rig.write(IER, 0);
  rig.input(bytes("c"));
  rig.pass(TIMEOUT_115200);
  rig.write(IER, IER_RDI);
  rig.pass(TIMEOUT_115200);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
});

serialTest(
  "character timeout comes sooner when a shorter one starts before a longer one is over",
  (rig) => {
    setLine(rig, 0xffff, LCR_8N1);
    rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
    rig.write(IER, IER_RDI);
    rig.input(bytes("a"));
    setLine(rig, 1, LCR_8N1);
    rig.input(bytes("b"));
    rig.pass(TIMEOUT_115200);
    assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
  },
);

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
  rig.write(IER, IER_ALL);
  assert.equal(countTimerCalls(rig, stream), 0);
  rig.write(FCR, FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  assert.equal(countTimerCalls(rig, stream), 0);
  rig.write(IER, 0);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  assert.equal(countTimerCalls(rig, stream), 0);
});

Deno.test("character timeout sets one timer for a burst, however many bytes it has", () => {
  const rig = new Rig(isaSerial);
  setLine(rig, 1, LCR_8N1);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  rig.write(IER, IER_RDI);
  const burst = () => {
    for (let i = 0; i < 13; i++) rig.input([i]);
    readAll(rig);
  };
  assert.equal(countTimerCalls(rig, burst), 1);
});

Deno.test("`restored()` bounds times that no timeout can have", () => {
  const rig = new Rig(isaSerial);
  rig.write(FCR, FCR_TRIGGER_14 | FCR_ENABLE_FIFO | FCR_CLEAR_RCVR | FCR_CLEAR_XMIT);
  rig.write(IER, IER_RDI);
  rig.input(bytes("a"));
  const saved = rig.bytes.slice();
  rig.pass(10_000_000_000n);
  const timeout = isaSerial.state.offsets.timeout;
  saved.fill(0xff, timeout + 8, timeout + 24);
  rig.load(saved);
  assert.ok(rig.context.deadline <= rig.context.monotonic + 30_000_000_000n);
  rig.pass(30_000_000_000n);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_RX_TIMEOUT);
  saved.fill(0xff, timeout);
  rig.load(saved);
  assert.equal(rig.read(IIR), IIR_FIFOS | IIR_NO_INT);
});
