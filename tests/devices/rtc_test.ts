import assert from "node:assert/strict";
import { mc146818rtc } from "../../devices/isa/rtc.ts";
import { deviceTest, Rig } from "./fake_context.ts";

const SECONDS = 0, SECONDS_ALARM = 1, MINUTES = 2, MINUTES_ALARM = 3, HOURS = 4, HOURS_ALARM = 5;
const DAY_OF_WEEK = 6, DAY = 7, MONTH = 8, YEAR = 9, A = 10, B = 11, C = 12, D = 13, CENTURY = 0x32;
const MS = 1_000000n;
const S = 1000n * MS;
/** The period of 1024 Hz, rate 6. */
const PERIOD = 976562n;

const test = (name: string, run: (rig: Rig) => void) => deviceTest(name, mc146818rtc, run);
const get = (rig: Rig, register: number) => {
  rig.write(0, register);
  return rig.read(1);
};
const put = (rig: Rig, register: number, value: number) => {
  rig.write(0, register);
  rig.write(1, value);
};
/** Century, year, month, day, day of week, hours, minutes, seconds. */
const DATE = [CENTURY, YEAR, MONTH, DAY, DAY_OF_WEEK, HOURS, MINUTES, SECONDS];
const getDate = (rig: Rig) => DATE.map((register) => get(rig, register));
const putDate = (rig: Rig, values: number[]) =>
  DATE.forEach((register, i) => put(rig, register, values[i]));

test("time registers show the host's UTC time in BCD and 24 hours after power-on", (rig) => {
  assert.deepEqual(getDate(rig), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x34, 0x56]);
  assert.deepEqual([A, B, C, D].map((register) => get(rig, register)), [0x26, 0x02, 0x00, 0x80]);
  rig.pass(4n * S);
  assert.deepEqual(getDate(rig), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x35, 0x00]);
  rig.pass(12n * 3600n * S);
  assert.deepEqual(getDate(rig), [0x20, 0x24, 0x03, 0x01, 0x06, 0x00, 0x35, 0x00]);
});

deviceTest(
  "`base` is what the clock shows at power-on, and it goes on from there",
  mc146818rtc,
  (rig) => {
    const [first, second] = [[0x19, 0x69, 0x12, 0x31, 0x04, 0x23, 0x59, 0x59], [0x00, 0x00]];
    assert.deepEqual(getDate(rig), first);
    rig.pass(1n * S);
    assert.deepEqual(getDate(rig).slice(-2), second);
    rig.call((device) => device.reset());
    rig.pass(1n * S);
    assert.equal(get(rig, SECONDS), 1);
  },
  { base: "-1" },
);

test("time registers follow the binary and the 12-hour mode", (rig) => {
  put(rig, B, 0x06);
  assert.deepEqual(getDate(rig), [20, 24, 2, 29, 5, 12, 34, 56]);
  put(rig, B, 0x00);
  assert.equal(get(rig, HOURS), 0x92);
  rig.pass(3600n * S);
  assert.equal(get(rig, HOURS), 0x81);
  rig.pass(11n * 3600n * S);
  assert.equal(get(rig, HOURS), 0x12);
  put(rig, B, 0x04);
  rig.pass(23n * 3600n * S);
  assert.equal(get(rig, HOURS), 0x8b);
});

test("`B` SET holds the time registers until the guest has set them", (rig) => {
  rig.pass(300n * MS);
  put(rig, B, 0x82);
  rig.pass(10n * S);
  assert.equal(get(rig, SECONDS), 0x56);
  putDate(rig, [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x58]);
  assert.deepEqual(getDate(rig), [0x19, 0x99, 0x12, 0x31, 0x06, 0x23, 0x59, 0x58]);
  put(rig, B, 0x02);
  // The divider chain has gone on: 300 ms of the second are over.
  rig.pass(699n * MS);
  assert.equal(get(rig, SECONDS), 0x58);
  rig.pass(1n * MS);
  assert.equal(get(rig, SECONDS), 0x59);
  rig.pass(1n * S);
  assert.deepEqual(getDate(rig), [0x20, 0x00, 0x01, 0x01, 0x07, 0x00, 0x00, 0x00]);
});

test("time registers are set in the mode that the write which ends SET selects", (rig) => {
  put(rig, B, 0x82);
  putDate(rig, [20, 30, 11, 21, 5, 0x80 | 9, 45, 10]);
  put(rig, B, 0x04);
  assert.deepEqual(getDate(rig), [20, 30, 11, 21, 5, 0x89, 45, 10]);
  put(rig, B, 0x02);
  assert.deepEqual(getDate(rig), [0x20, 0x30, 0x11, 0x21, 0x05, 0x21, 0x45, 0x10]);
});

test("12-hour mode sets midnight as 12 AM and noon as 12 PM", (rig) => {
  for (const [written, hour] of [[0x12, 0x00], [0x92, 0x12], [0x01, 0x01], [0x91, 0x23]]) {
    put(rig, B, 0x80);
    put(rig, HOURS, written);
    put(rig, B, 0x00);
    assert.equal(get(rig, HOURS), written);
    put(rig, B, 0x02);
    assert.equal(get(rig, HOURS), hour);
  }
});

test("a time register written without SET changes that part of the time", (rig) => {
  rig.pass(500n * MS);
  put(rig, MINUTES, 0x10);
  put(rig, SECONDS, 0xd9);
  assert.deepEqual(getDate(rig), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x10, 0x59]);
  rig.pass(500n * MS);
  assert.deepEqual(getDate(rig), [0x20, 0x24, 0x02, 0x29, 0x05, 0x12, 0x11, 0x00]);
});

test("time registers that hold no date carry over and stay readable", (rig) => {
  put(rig, B, 0x82);
  putDate(rig, [0x20, 0x23, 0x02, 0x30, 0x00, 0x25, 0x61, 0x61]);
  put(rig, B, 0x02);
  assert.deepEqual(getDate(rig), [0x20, 0x23, 0x03, 0x03, 0x06, 0x02, 0x02, 0x01]);
  put(rig, B, 0x86);
  putDate(rig, [255, 255, 255, 255, 255, 255, 255, 255]);
  put(rig, B, 0x06);
  for (const value of getDate(rig)) assert.ok(value < 100);
});

test("`A` divider reset holds the time and ends half a second before an update", (rig) => {
  rig.pass(900n * MS);
  put(rig, A, 0x76);
  rig.pass(5n * S);
  assert.equal(get(rig, SECONDS), 0x56);
  put(rig, A, 0x26);
  rig.pass(499n * MS);
  assert.equal(get(rig, SECONDS), 0x56);
  rig.pass(1n * MS);
  assert.equal(get(rig, SECONDS), 0x57);
});

test("setting the clock as Linux does, by SET and divider reset, sets it to the half second", (rig) => {
  put(rig, B, 0x82);
  put(rig, A, 0x76);
  putDate(rig, [0x20, 0x31, 0x07, 0x04, 0x06, 0x18, 0x00, 0x00]);
  put(rig, B, 0x02);
  put(rig, A, 0x26);
  rig.pass(500n * MS);
  assert.deepEqual(getDate(rig), [0x20, 0x31, 0x07, 0x04, 0x06, 0x18, 0x00, 0x01]);
});

test("`A` UIP is set for the 244 µs before an update unless time is held", (rig) => {
  const uip = () => get(rig, A) & 0x80;
  assert.equal(uip(), 0);
  rig.pass(999n * MS + 755_000n);
  assert.equal(uip(), 0);
  rig.pass(1_000n);
  assert.equal(uip(), 0x80);
  put(rig, B, 0x82);
  assert.equal(uip(), 0);
  put(rig, B, 0x02);
  assert.equal(uip(), 0x80);
  rig.pass(244_000n);
  assert.equal(uip(), 0);
  assert.equal(get(rig, SECONDS), 0x57);
});

test("`A` UIP, `C` and `D` cannot be written", (rig) => {
  put(rig, A, 0xa6);
  put(rig, C, 0xff);
  put(rig, D, 0x00);
  assert.deepEqual([A, C, D].map((register) => get(rig, register)), [0x26, 0x00, 0x80]);
});

test("update-ended interrupt comes every second and `C` clears it", (rig) => {
  rig.pass(250n * MS);
  put(rig, B, 0x12);
  get(rig, C);
  for (let i = 0; i < 3; i++) {
    rig.pass(749n * MS);
    assert.equal(rig.context.levels[0] ?? false, false);
    rig.pass(1n * MS);
    assert.equal(rig.context.levels[0], true);
    assert.equal(get(rig, C) & 0x90, 0x90);
    assert.equal(rig.context.levels[0], false);
    assert.equal(get(rig, C), 0x00);
    rig.pass(250n * MS);
  }
  put(rig, B, 0x02);
  assert.equal(rig.context.deadline, 0n);
});

test("no timer is armed while the interrupt that it would raise is pending", (rig) => {
  put(rig, B, 0x12);
  assert.notEqual(rig.context.deadline, 0n);
  rig.pass(5n * S);
  assert.equal(rig.context.deadline, 0n);
  assert.deepEqual(rig.context.edges, ["+0"]);
  get(rig, C);
  assert.notEqual(rig.context.deadline, 0n);
});

test("`C` flags are set without being enabled, and enabling one interrupts at once", (rig) => {
  rig.pass(2n * S);
  assert.deepEqual(rig.context.edges, []);
  put(rig, B, 0x12);
  assert.deepEqual(rig.context.edges, ["+0"]);
  put(rig, B, 0x02);
  assert.deepEqual(rig.context.edges, ["+0", "-0"]);
  assert.equal(get(rig, C), 0x50);
  assert.equal(get(rig, C), 0x00);
});

test("`B` SET clears UIE and stops updates and alarms", (rig) => {
  for (const register of [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM]) put(rig, register, 0xff);
  put(rig, B, 0xb2);
  assert.equal(get(rig, B), 0xa2);
  rig.pass(3n * S);
  assert.equal(get(rig, C) & 0x30, 0);
  assert.equal(rig.context.deadline, 0n);
});

test("alarm interrupts at the time in the alarm registers, each day", (rig) => {
  put(rig, HOURS_ALARM, 0x12);
  put(rig, MINUTES_ALARM, 0x35);
  put(rig, SECONDS_ALARM, 0x01);
  put(rig, B, 0x22);
  rig.pass(4999n * MS);
  assert.deepEqual(rig.context.edges, []);
  rig.pass(1n * MS);
  assert.deepEqual(rig.context.edges, ["+0"]);
  assert.equal(get(rig, C) & 0xa0, 0xa0);
  rig.pass(24n * 3600n * S - 1n * MS);
  assert.deepEqual(rig.context.edges, ["+0", "-0"]);
  rig.pass(1n * MS);
  assert.deepEqual(rig.context.edges, ["+0", "-0", "+0"]);
});

test("alarm registers from 0xc0 up match any value", (rig) => {
  const alarmAfter = (hours: number, minutes: number, seconds: number) => {
    put(rig, HOURS_ALARM, hours);
    put(rig, MINUTES_ALARM, minutes);
    put(rig, SECONDS_ALARM, seconds);
    put(rig, B, 0x22);
    get(rig, C);
    const { deadline, monotonic } = rig.context;
    return (deadline - monotonic) / S;
  };
  // It is 12:34:56.
  assert.equal(alarmAfter(0xff, 0xc0, 0xff), 1n);
  assert.equal(alarmAfter(0xff, 0xff, 0x56), 60n);
  assert.equal(alarmAfter(0xff, 0x00, 0x10), 25n * 60n + 14n);
  assert.equal(alarmAfter(0x12, 0xff, 0xff), 1n);
  assert.equal(alarmAfter(0x00, 0xff, 0xff), 11n * 3600n + 25n * 60n + 4n);
  assert.equal(alarmAfter(0x12, 0x34, 0x56), 24n * 3600n);
});

test("alarm compares in the guest's own format", (rig) => {
  put(rig, B, 0x24);
  put(rig, HOURS_ALARM, 0x80 | 1);
  put(rig, MINUTES_ALARM, 0);
  put(rig, SECONDS_ALARM, 30);
  rig.pass(25n * 60n * S + 33n * S);
  assert.deepEqual(rig.context.edges, []);
  rig.pass(1n * S);
  assert.deepEqual(rig.context.edges, ["+0"]);
});

test("alarm registers that no time matches arm no timer", (rig) => {
  put(rig, SECONDS_ALARM, 0x60);
  put(rig, B, 0x22);
  assert.equal(rig.context.deadline, 0n);
  rig.pass(3n * S);
  assert.equal(get(rig, C) & 0x20, 0);
});

test("periodic interrupt comes at the rate that `A` selects", (rig) => {
  const rates = [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
  rates.forEach((hertz, rate) => {
    put(rig, B, 0x02);
    put(rig, A, 0x20 | rate);
    get(rig, C);
    put(rig, B, 0x42);
    let interrupts = 0;
    const end = rig.context.monotonic + 1n * S;
    while (rig.context.deadline !== 0n && rig.context.deadline <= end) {
      rig.pass(rig.context.deadline - rig.context.monotonic);
      assert.equal(rig.context.levels[0], true);
      assert.equal(get(rig, C) & 0xc0, 0xc0);
      interrupts++;
    }
    rig.pass(end - rig.context.monotonic);
    assert.equal(interrupts, hertz);
  });
});

test("periodic interrupt goes on while SET holds the time, not while the divider is reset", (rig) => {
  put(rig, B, 0xc2);
  rig.pass(PERIOD + 1n);
  assert.equal(get(rig, C), 0xc0);
  put(rig, A, 0x76);
  assert.equal(rig.context.deadline, 0n);
  rig.pass(1n * S);
  assert.equal(get(rig, C), 0x00);
});

test("`C` collects all three events and the earliest enabled one interrupts", (rig) => {
  for (const register of [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM]) put(rig, register, 0xff);
  put(rig, A, 0x2f);
  put(rig, B, 0x72);
  rig.pass(500n * MS);
  assert.deepEqual(rig.context.edges, ["+0"]);
  rig.pass(500n * MS);
  assert.equal(get(rig, C), 0xf0);
});

test("a host clock set back neither repeats nor stops events", (rig) => {
  put(rig, B, 0x12);
  rig.context.realtime -= 3600n * S;
  assert.equal(get(rig, C), 0x00);
  assert.equal(get(rig, HOURS), 0x11);
  rig.pass(1n * S);
  assert.equal(get(rig, C) & 0x90, 0x90);
});

test("`reset()` disables interrupts and keeps RAM and the guest's time", (rig) => {
  put(rig, YEAR, 0x40);
  put(rig, 0x0f, 0x5a);
  put(rig, 0x7f, 0xa5);
  put(rig, B, 0x7e);
  rig.pass(1n * S);
  assert.equal(rig.context.levels[0], true);
  rig.call((device) => device.reset());
  assert.equal(rig.context.levels[0], false);
  assert.equal(rig.context.deadline, 0n);
  assert.equal(get(rig, B), 0x06);
  assert.equal(get(rig, C), 0x00);
  assert.equal(get(rig, YEAR), 40);
  assert.equal(get(rig, 0x0f), 0x5a);
  assert.equal(get(rig, 0x7f), 0xa5);
});

test("port 0x70 selects with its low seven bits and cannot be read", (rig) => {
  put(rig, 0x80 | 0x40, 0x12);
  assert.equal(get(rig, 0x40), 0x12);
  assert.equal(rig.read(0), 0xff);
  assert.equal(rig.read(0, 2), 0x12ff);
  rig.write(0, 0x3441, 2);
  assert.equal(get(rig, 0x41), 0x34);
});

Deno.test("timers advance when the saved offset is out of all bounds", () => {
  for (const offset of [2n ** 63n - 1n, -(2n ** 63n)]) {
    const rig = new Rig(mc146818rtc);
    put(rig, A, 0x23);
    put(rig, B, 0x72);
    const saved = rig.bytes.slice();
    new DataView(saved.buffer).setBigInt64(mc146818rtc.state.offsets.offset, offset, true);
    rig.load(saved);
    for (let i = 0; i < 100; i++) {
      get(rig, C);
      assert.ok(rig.context.deadline > rig.context.monotonic);
      rig.pass(1n * MS);
    }
    for (const value of getDate(rig)) assert.match(value.toString(16), /^\d+$/);
  }
});

const cmosTest = (name: string, properties: Record<string, number>, expected: number[]) =>
  deviceTest(name, mc146818rtc, (rig) => {
    const registers = [0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d, 0x5f];
    assert.deepEqual(registers.map((register) => get(rig, register)), expected);
  }, properties);

cmosTest(
  "CMOS tells firmware the RAM sizes when RAM ends below 64 MiB",
  { "ram-below-4g": 32 * 1024, "ram-above-4g": 0 },
  [0x80, 0x02, 0x00, 0x7c, 0x00, 0x7c, 0x00, 0x01, 0, 0, 0, 0],
);
cmosTest(
  "CMOS tells firmware the RAM sizes when RAM goes beyond 4 GiB",
  { "ram-below-4g": 3 * 1024 * 1024, "ram-above-4g": 5 * 1024 * 1024 + 64, cpus: 4 },
  [0x80, 0x02, 0xff, 0xff, 0xff, 0xff, 0x00, 0xbf, 0x01, 0x40, 0x01, 3],
);
cmosTest(
  "CMOS tells firmware the RAM sizes when there is less than 1 MiB",
  { "ram-below-4g": 512 },
  [0x00, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
);

Deno.test("`ranges()` and `irqs()` are the PC's by default", () => {
  const properties = { iobase: 0x70, irq: 8 };
  assert.deepEqual(mc146818rtc.ranges(properties), [
    { space: "pio", base: 0x70, size: 2, name: "rtc" },
  ]);
  assert.deepEqual(mc146818rtc.irqs(properties), [8]);
});
