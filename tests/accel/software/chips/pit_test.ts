/** The 8254 and its part of port 0x61, by Intel's data sheet. */
import assert from "node:assert/strict";
import { kvmPitState2 } from "../../../../ffi/kvm/structs.ts";
import { chipsTest, TestChips } from "./testing.ts";

const CONTROL = 0x43;
const TICK = 1e9 / 1_193_181;
const LATCH = 0x00;
const LSB = 0x10;
const MSB = 0x20;
const WORD = 0x30;
/** A moment at which `ticks` have been counted, in the middle of the tick. */
const at = (ticks: number) => Math.round((ticks + 0.5) * TICK);

/** Writes control word and 16-bit count of a channel. */
function program(c: TestChips, channel: number, mode: number, count: number, bcd = 0): void {
  c.out(CONTROL, channel << 6 | WORD | mode << 1 | bcd);
  c.out(0x40 + channel, count & 0xff);
  c.out(0x40 + channel, count >> 8);
}

function readWord(c: TestChips, channel: number): number {
  const low = c.in(0x40 + channel);
  return low | c.in(0x40 + channel) << 8;
}

/** The count after so many ticks since it was written; the clock stands there afterwards. */
function countsAfter(c: TestChips, channel: number, ticks: number[]): number[] {
  const begin = c.monotonic;
  return ticks.map((n) => {
    c.monotonic = begin + at(n);
    c.out(CONTROL, channel << 6 | LATCH);
    return readWord(c, channel);
  });
}

/** OUT of channel 2 at port 0x61 after so many ticks. */
function outsAfter(c: TestChips, ticks: number[]): number[] {
  const begin = c.monotonic;
  return ticks.map((n) => {
    c.monotonic = begin + at(n);
    return c.in(0x61) >> 5 & 1;
  });
}

/** The 8259A with vectors from 0x20, all inputs open. */
function startPic(c: TestChips): void {
  for (const [port, value] of [[0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, 1]]) {
    c.out(port, value);
  }
}

/** Interrupts of line 0 that the 8259A gives when each is ended at once. */
function interrupts(c: TestChips): number {
  let count = 0;
  while (c.vcpu().acknowledge() === 0x20) {
    count++;
    c.out(0x20, 0x20);
  }
  return count;
}

chipsTest("modes 2 and 3 reload, the others go on through 0xffff", (c) => {
  c.out(0x61, 1);
  for (const channel of [0, 1, 2]) {
    for (const mode of [0, 4]) {
      program(c, channel, mode, 10);
      assert.deepEqual(countsAfter(c, channel, [0, 1, 9, 10, 11, 65546]), [10, 9, 1, 0, 0xffff, 0]);
    }
    program(c, channel, 2, 10);
    assert.deepEqual(countsAfter(c, channel, [0, 1, 9, 10, 11, 25]), [10, 9, 1, 10, 9, 5]);
    program(c, channel, 3, 10);
    assert.deepEqual(countsAfter(c, channel, [0, 1, 4, 5, 6, 10]), [10, 8, 2, 10, 8, 10]);
    // 0 is the largest count.
    program(c, channel, 2, 0);
    assert.deepEqual(countsAfter(c, channel, [0, 1, 65535, 65536]), [0, 0xffff, 1, 0]);
  }
});

chipsTest("BCD counts in decimal digits", (c) => {
  c.out(0x61, 1);
  program(c, 2, 0, 0x1000, 1);
  assert.deepEqual(countsAfter(c, 2, [0, 1, 901, 1000, 1001]), [0x1000, 0x999, 0x99, 0, 0x9999]);
  program(c, 2, 2, 0, 1);
  assert.deepEqual(countsAfter(c, 2, [0, 1, 9999, 10000]), [0, 0x9999, 1, 0]);
});

chipsTest("OUT follows the mode", (c) => {
  c.out(0x61, 1);
  program(c, 2, 0, 10);
  assert.deepEqual(outsAfter(c, [0, 9, 10, 70000]), [0, 0, 1, 1]);
  program(c, 2, 1, 10);
  assert.deepEqual(outsAfter(c, [0, 9, 10]), [0, 0, 1]);
  program(c, 2, 2, 10);
  assert.deepEqual(outsAfter(c, [0, 8, 9, 10, 19, 20]), [1, 1, 0, 1, 0, 1]);
  program(c, 2, 3, 10);
  assert.deepEqual(outsAfter(c, [0, 4, 5, 9, 10]), [1, 1, 0, 0, 1]);
  program(c, 2, 3, 9);
  assert.deepEqual(outsAfter(c, [4, 5, 8, 9]), [1, 0, 0, 1]);
  for (const mode of [4, 5]) {
    program(c, 2, mode, 10);
    assert.deepEqual(outsAfter(c, [0, 9, 10, 11]), [1, 1, 0, 1]);
  }
});

chipsTest("bytes are written and read as the control word says", (c) => {
  c.out(CONTROL, 0x80 | LSB);
  c.out(0x42, 0x12);
  assert.deepEqual([c.in(0x42), c.in(0x42)], [0x12, 0x12]);
  c.out(CONTROL, 0x80 | MSB);
  c.out(0x42, 0x34);
  assert.deepEqual([c.in(0x42), c.in(0x42)], [0x34, 0x34]);
  c.out(CONTROL, 0x80 | WORD);
  c.out(0x42, 0x78);
  c.out(0x42, 0x56);
  assert.deepEqual([c.in(0x42), c.in(0x42), c.in(0x42)], [0x78, 0x56, 0x78]);
  assert.equal(c.in(CONTROL), 0);
});

chipsTest("a latched count stands until it is read", (c) => {
  program(c, 1, 2, 1000);
  c.monotonic += at(100);
  c.out(CONTROL, 0x40 | LATCH);
  c.monotonic += at(100);
  c.out(CONTROL, 0x40 | LATCH);
  assert.equal(readWord(c, 1), 900);
  assert.equal(readWord(c, 1), 799);
  c.out(CONTROL, 0x40 | MSB | 4);
  c.out(0x41, 0x20);
  c.out(CONTROL, 0x40 | LATCH);
  assert.equal(c.in(0x41), 0x20);
});

chipsTest("the read-back command latches counts and status of several channels", (c) => {
  c.out(0x61, 1);
  program(c, 0, 2, 1000);
  program(c, 2, 0, 1000);
  c.monotonic += at(100);
  c.out(CONTROL, 0xc0 | 0x02 | 0x08);
  c.monotonic += at(1000);
  // Status first, then the count: OUT, access, mode.
  assert.equal(c.in(0x40), 0x80 | WORD | 2 << 1);
  assert.equal(readWord(c, 0), 900);
  assert.equal(c.in(0x42), WORD);
  assert.equal(readWord(c, 2), 900);
  c.out(CONTROL, 0xc0 | 0x20 | 0x08);
  assert.equal(c.in(0x42), 0x80 | WORD);
  c.out(CONTROL, 0xc0 | 0x10 | 0x08);
  assert.equal(readWord(c, 2), 0x1_0000 + 1000 - 1101);
  // Modes 6 and 7 are 2 and 3.
  program(c, 1, 7, 0x1234, 1);
  c.out(CONTROL, 0xc0 | 0x20 | 0x04);
  assert.equal(c.in(0x41), 0x80 | WORD | 3 << 1 | 1);
});

chipsTest("channel 0 in modes 2 and 3 interrupts periodically", (c) => {
  startPic(c);
  for (const mode of [2, 3]) {
    program(c, 0, mode, 11932);
    const period = 11932 * TICK;
    assert.equal(c.vcpu().deadline, c.monotonic + period);
    c.pass(Math.floor(period));
    assert.equal(interrupts(c), 0);
    c.pass(1);
    assert.equal(interrupts(c), 1);
    c.pass(Math.ceil(period));
    assert.equal(interrupts(c), 1);
  }
  // The shortest period is 200 µs, as on KVM.
  program(c, 0, 2, 1);
  assert.equal(c.vcpu().deadline, c.monotonic + 200_000);
});

chipsTest("channel 0 in modes 0 and 4 interrupts once, in mode 5 never", (c) => {
  startPic(c);
  for (const mode of [0, 4]) {
    program(c, 0, mode, 1000);
    c.pass(Math.ceil(1000 * TICK));
    assert.equal(interrupts(c), 1);
    assert.equal(c.vcpu().deadline, Infinity);
  }
  program(c, 0, 5, 1000);
  assert.equal(c.vcpu().deadline, Infinity);
  program(c, 0, 2, 1000);
  c.out(CONTROL, WORD);
  assert.equal(c.vcpu().deadline, Infinity);
});

chipsTest("ticks that nobody could take come one after the other when they are ended", (c) => {
  startPic(c);
  program(c, 0, 2, 11932);
  c.pass(Math.ceil(5 * 11932 * TICK));
  assert.equal(interrupts(c), 5);
  // Also by the IOAPIC, whose end the local APIC tells.
  c.enable();
  c.redirect(0, 0x40);
  program(c, 0, 2, 11932);
  c.pass(Math.ceil(3 * 11932 * TICK));
  for (let tick = 0; tick < 3; tick++) {
    assert.deepEqual(c.take(), [0x40]);
    c.eoi();
    c.out(0x20, 0x20);
  }
  assert.deepEqual(c.take(), []);
});

chipsTest("ticks of the time while line 0 was masked are forgotten", (c) => {
  startPic(c);
  c.out(0x21, 0xff);
  program(c, 0, 2, 11932);
  c.pass(Math.ceil(100 * 11932 * TICK));
  c.out(0x21, 0xfe);
  assert.equal(interrupts(c), 1);
  c.pass(Math.ceil(11932 * TICK));
  assert.equal(interrupts(c), 1);
});

chipsTest("vCPU 0 is told of an earlier deadline, whoever sets it", (c) => {
  program(c, 0, 2, 0);
  c.kicks = [];
  program(c, 0, 2, 1000);
  assert.deepEqual(c.kicks, [0]);
  assert.equal(c.vcpu(1).deadline, Infinity);
}, 2);

chipsTest("port 0x61 has gate, speaker, refresh and OUT of channel 2", (c) => {
  assert.equal(c.in(0x61) & 0x2f, 0x20);
  c.out(0x61, 3);
  assert.equal(c.in(0x61) & 3, 3);
  c.out(0x61, 0xfc);
  assert.equal(c.in(0x61) & 0x0f, 0);
  const refresh = Array.from({ length: 4 }, () => (c.monotonic += 0x4000, c.in(0x61) & 0x10));
  assert.deepEqual(refresh.slice(0, 2), refresh.slice(2));
  assert.notEqual(refresh[0], refresh[1]);
});

chipsTest("the gate of channel 2 holds mode 0, restarts modes 1 and 3", (c) => {
  c.out(0x61, 1);
  program(c, 2, 0, 1000);
  c.monotonic += at(100);
  c.out(0x61, 0);
  c.monotonic += at(5000);
  assert.equal(readWord(c, 2), 900);
  c.out(0x61, 1);
  c.monotonic += at(890);
  assert.equal(c.in(0x61) & 0x20, 0);
  c.monotonic += at(10);
  assert.equal(c.in(0x61) & 0x20, 0x20);
  for (const mode of [1, 3]) {
    program(c, 2, mode, 100);
    c.monotonic += at(60);
    c.out(0x61, 0);
    if (mode === 3) assert.equal(c.in(0x61) & 0x20, 0x20);
    c.out(0x61, 1);
    c.monotonic += at(50);
    assert.equal(c.in(0x61) & 0x20, 0);
    c.monotonic += at(60);
    assert.equal(c.in(0x61) & 0x20, 0x20);
  }
});

chipsTest("a state that is loaded begins its counts anew, as on KVM", (c) => {
  c.out(0x61, 3);
  program(c, 0, 2, 11932);
  program(c, 2, 3, 1000);
  c.out(CONTROL, 0xc0 | 0x08);
  c.pass(5000);
  const bytes = new Uint8Array(kvmPitState2.size);
  c.chipset.savePit(bytes);
  const view = kvmPitState2.view(bytes.buffer);
  assert.equal(view.channels.at(0).count, 11932);
  assert.equal(view.channels.at(2).status_latched, 1);
  assert.equal(view.flags, 2);
  const other = new TestChips();
  other.kicks = [];
  other.chipset.loadPit(bytes);
  assert.deepEqual(other.kicks, [0]);
  assert.equal(other.vcpu().deadline, other.monotonic + 11932 * TICK);
  assert.equal(other.in(0x42), 0x80 | WORD | 3 << 1);
  assert.equal(readWord(other, 2), 1000);
  assert.equal(other.in(0x61) & 3, 3);
});

Deno.test("any state of the PIT can be loaded and used", () => {
  const c = new TestChips();
  for (let round = 0; round < 300; round++) {
    c.chipset.loadPit(crypto.getRandomValues(new Uint8Array(kvmPitState2.size)));
    for (let port = 0x40; port < 0x44; port++) {
      for (let i = 0; i < 4; i++) {
        const value = c.in(port);
        assert.ok(value >= 0 && value <= 0xff, `${value}`);
      }
    }
    c.out(CONTROL, 0xde);
    c.out(0x61, round & 3);
    assert.ok(c.in(0x61) <= 0xff);
    c.pass(1e6);
    assert.ok(c.vcpu().deadline > c.monotonic);
  }
});
