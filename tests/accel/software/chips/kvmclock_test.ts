/** kvmclock: the guest's page and MSRs, and the VMM's ioctls. */
import assert from "node:assert/strict";
import { kvmClockData } from "../../../../ffi/kvm/structs.ts";
import {
  pvclockTimeInfo,
  pvclockWallClock,
  tscScale,
} from "../../../../vmm/accel/software/chips/kvmclock.ts";
import { chipsTest, type TestChips } from "./testing.ts";

const WALL_CLOCK = 0x4b56_4d00;
const SYSTEM_TIME = 0x4b56_4d01;
const PAGE = 0x1000;
const SECOND = 1_000_000_000n;

/** A struct of 32-bit words in guest memory. */
function words(c: TestChips, address: number, size: number): ArrayBuffer {
  const copy = Uint32Array.from({ length: size / 4 }, (_, i) => c.memory.get(address + 4 * i) ?? 0);
  return copy.buffer;
}

const page = (c: TestChips, address = PAGE) =>
  pvclockTimeInfo.view(words(c, address, pvclockTimeInfo.size));

/** What a guest computes from its page (msr.rst). */
function guestTime(c: TestChips, address = PAGE, vcpu = 0): bigint {
  const { version, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift } = page(c, address);
  assert.equal(version % 2, 0);
  const delta = BigInt.asUintN(64, c.tsc + c.tscOffsets[vcpu] - tsc_timestamp);
  const shift = tsc_shift << 24 >> 24;
  const shifted = shift < 0 ? delta >> BigInt(-shift) : delta << BigInt(shift);
  return system_time + (shifted * BigInt(tsc_to_system_mul) >> 32n);
}

function getClock({ chipset }: TestChips) {
  const bytes = new Uint8Array(kvmClockData.size);
  chipset.clock.save(bytes);
  return { bytes, view: kvmClockData.view(bytes.buffer) };
}

/** Whether two times are equal but for what a scale of 32 bits loses. */
function assertNear(actual: bigint, expected: bigint): void {
  const difference = actual - expected;
  assert.ok(difference <= 0n && difference > -3n, `${actual} is not ${expected}`);
}

Deno.test("tscScale() is as precise as its factor of 32 bits", () => {
  for (
    const khz of [1, 1000, 999_999, 1_000_000, 1_000_001, 1_999_999, 2_000_000, 2_500_000, 5e6]
  ) {
    const { mul, shift } = tscScale(khz);
    assert.ok(mul >= 2 ** 31 && mul < 2 ** 32, `${khz}: ${mul}`);
    const ns = mul * 2 ** (shift - 32);
    assert.ok(Math.abs(ns * khz / 1e6 - 1) < 2 ** -31, `${khz}: ${ns}`);
  }
});

chipsTest("the guest's time goes on with its TSC, from its page, and is the VMM's", (c) => {
  c.pass(5_000_000_000);
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE + 64) | 1n, 1));
  assert.equal(c.rdmsr(SYSTEM_TIME), BigInt(PAGE) | 1n);
  assert.equal(c.rdmsr(0x12, 1), BigInt(PAGE + 64) | 1n);
  assert.equal(page(c).flags, 1);
  assertNear(guestTime(c), 5n * SECOND);
  c.pass(1_234_567_890);
  assertNear(guestTime(c), 6_234_567_890n);
  assert.equal(guestTime(c), getClock(c).view.clock);
  assert.equal(guestTime(c, PAGE + 64, 1), guestTime(c));
}, 2);

chipsTest("the page is left alone without the enable bit, and where no word can be", (c) => {
  for (const value of [BigInt(PAGE + 2) | 1n, BigInt(PAGE)]) {
    assert.ok(c.wrmsr(SYSTEM_TIME, value));
    assert.equal(c.rdmsr(SYSTEM_TIME), value);
    assert.equal(c.memory.size, 0);
  }
  assert.equal(c.chipset.clock.notePause(0), 22);
});

chipsTest("a page of a state is written when the vCPU is about to run, not before", (c) => {
  assert.ok(c.vcpu().writeMsr(SYSTEM_TIME, PAGE | 1, 0, true));
  assert.equal(c.memory.size, 0);
  assert.equal(c.rdmsr(SYSTEM_TIME), BigInt(PAGE | 1));
  c.vcpu().clock.service();
  assert.ok(page(c).tsc_to_system_mul > 0);
});

chipsTest("the version is odd while the page is written, and grows", (c) => {
  const seen: number[] = [];
  c.memory.set = function (address, value) {
    Map.prototype.set.call(this, address, value);
    seen.push((this.get(PAGE) ?? 0) % 2);
    return this;
  };
  for (const expected of [2, 4]) {
    assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
    assert.equal(page(c).version, expected);
  }
  assert.deepEqual(seen, [1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
  c.memory.set(PAGE, 0xffff_ffff);
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
  assert.equal(page(c).version, 2);
});

chipsTest("the wall clock is when the guest's time was 0", (c) => {
  const start = c.realtime;
  c.pass(2_000_000_000);
  assert.ok(c.wrmsr(WALL_CLOCK, BigInt(PAGE)));
  assert.equal(c.rdmsr(0x11), BigInt(PAGE));
  const { version, sec, nsec } = pvclockWallClock.view(words(c, PAGE, 12));
  assert.equal(version, 2);
  assertNear(start, BigInt(sec) * SECOND + BigInt(nsec));
  assert.ok(c.wrmsr(0x11, BigInt(PAGE + 0x100)));
  assert.equal(c.memory.get(PAGE + 0x100), 2);
  // A state that is loaded has it in its memory.
  assert.ok(c.vcpu().writeMsr(WALL_CLOCK, PAGE + 0x200, 0, true));
  assert.equal(c.memory.get(PAGE + 0x200), undefined);
  assert.equal(c.rdmsr(WALL_CLOCK), BigInt(PAGE + 0x200));
});

chipsTest("a clock that is set without the host's time stands still meanwhile", (c) => {
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
  c.pass(1_000_000_000);
  const { bytes, view } = getClock(c);
  const { clock } = view;
  view.flags = 0;
  c.pass(5_000_000_000);
  c.kicks = [];
  assert.equal(c.chipset.clock.load(bytes), 0);
  assert.deepEqual(c.kicks, [0]);
  assert.equal(getClock(c).view.clock, clock);
  c.vcpu().clock.service();
  assert.equal(guestTime(c), clock);
  assert.equal(page(c).flags, 1);
});

chipsTest("a clock that is set with the host's time has gone on, never back", (c) => {
  c.pass(1_000_000_000);
  const { bytes, view } = getClock(c);
  assert.equal(view.flags, 2 | 4 | 8);
  assert.equal(view.realtime, c.realtime);
  assert.equal(view.host_tsc, c.tsc);
  const { clock } = view;
  view.flags = 4;
  c.pass(5_000_000_000);
  assert.equal(c.chipset.clock.load(bytes), 0);
  assert.equal(getClock(c).view.clock, clock + 5n * SECOND);
  view.realtime = c.realtime + SECOND;
  assert.equal(c.chipset.clock.load(bytes), 0);
  assert.equal(getClock(c).view.clock, clock);
  view.flags = 0x10;
  assert.equal(c.chipset.clock.load(bytes), 22);
});

chipsTest("the guest is told once that it was paused, until it has seen it", (c) => {
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
  assert.equal(c.chipset.clock.notePause(0), 0);
  assert.equal(page(c).flags, 1);
  c.vcpu().clock.service();
  assert.equal(page(c).flags, 3);
  const { version } = page(c);
  c.vcpu().clock.service();
  assert.equal(page(c).version, version);
  // Whatever else happens, what it has not seen stays.
  c.chipset.clock.requestUpdate(0);
  c.vcpu().clock.service();
  assert.equal(page(c).flags, 3);
  const flags = PAGE + pvclockTimeInfo.offsets.flags - 1;
  c.memory.set(flags, c.memory.get(flags)! & ~0x200);
  c.chipset.clock.requestUpdate(0);
  c.vcpu().clock.service();
  assert.equal(page(c).flags, 1);
});

chipsTest("a change of the vCPU's TSC changes its page, not its time", (c) => {
  assert.ok(c.wrmsr(SYSTEM_TIME, BigInt(PAGE) | 1n));
  c.pass(1_000_000_000);
  const before = guestTime(c);
  c.tscOffsets[0] -= 12_345_678_901_234n;
  c.vcpu().tscChanged();
  assert.equal(guestTime(c), before);
  assert.equal(c.rdmsr(0x4b56_4d02), undefined);
  assert.equal(c.wrmsr(0x4b56_4d02, 0n), false);
});
