/** The local APIC's timer: Intel SDM, volume 3, 12.5.4; its bus runs at 1 GHz. */
import assert from "node:assert/strict";
import { chipsTest, LAPIC, TestChips } from "./testing.ts";

const LVT_TIMER = LAPIC + 0x320;
const INITIAL = LAPIC + 0x380;
const CURRENT = LAPIC + 0x390;
const DIVIDE = LAPIC + 0x3e0;
const PERIODIC = 0x2_0000;
const DEADLINE = 0x4_0000;
const MASKED = 0x1_0000;
const VECTOR = 0x40;
const TSC_DEADLINE = 0x6e0;
const BY_1 = 0xb;

/** A timer with a mode that divides by 1. */
function start(c: TestChips, mode: number, count: number): void {
  c.enable();
  c.write(DIVIDE, BY_1);
  c.write(LVT_TIMER, mode | VECTOR);
  c.write(INITIAL, count);
}

/** Lets time go by, and ends what has interrupted. */
function interrupts(c: TestChips, ns: number): number {
  c.pass(ns);
  const count = c.take().length;
  if (count > 0) c.eoi();
  return count;
}

chipsTest("one-shot counts down to zero and interrupts once", (c) => {
  start(c, 0, 1_000_000);
  assert.equal(c.vcpu().deadline, c.monotonic + 1_000_000);
  assert.equal(c.read(CURRENT), 1_000_000);
  assert.equal(interrupts(c, 400_000), 0);
  assert.equal(c.read(CURRENT), 600_000);
  assert.equal(interrupts(c, 599_999), 0);
  assert.equal(c.read(CURRENT), 1);
  c.kicks = [];
  assert.equal(interrupts(c, 1), 1);
  assert.ok(c.kicks.includes(0));
  assert.equal(c.read(CURRENT), 0);
  assert.equal(c.read(INITIAL), 1_000_000);
  assert.equal(c.vcpu().deadline, Infinity);
  assert.equal(interrupts(c, 1e9), 0);
});

chipsTest("periodic goes on in its phase, however late it is looked at", (c) => {
  start(c, PERIODIC, 1_000_000);
  assert.equal(interrupts(c, 1_000_000), 1);
  assert.equal(interrupts(c, 999_999), 0);
  assert.equal(interrupts(c, 3_300_001), 1);
  assert.equal(c.read(CURRENT), 700_000);
  assert.equal(interrupts(c, 699_999), 0);
  assert.equal(interrupts(c, 1), 1);
  // Time that has gone by without a look counts too.
  c.monotonic += 2_250_000;
  assert.equal(c.read(CURRENT), 750_000);
});

chipsTest("a period is at least 200 µs, as on KVM", (c) => {
  start(c, PERIODIC, 1);
  assert.equal(c.vcpu().deadline, c.monotonic + 200_000);
  assert.equal(interrupts(c, 200_000), 1);
  assert.equal(c.vcpu().deadline, c.monotonic + 200_000);
  start(c, 0, 1000);
  assert.equal(c.vcpu().deadline, c.monotonic + 1000);
});

chipsTest("the divide configuration scales the count, also while it runs", (c) => {
  const divisors = [2, 4, 8, 16, undefined, undefined, undefined, undefined, 32, 64, 128, 1];
  divisors.forEach((divisor, value) => {
    if (divisor === undefined) return;
    c.enable();
    c.write(LVT_TIMER, VECTOR);
    c.write(DIVIDE, value);
    c.write(INITIAL, 1000);
    assert.equal(c.vcpu().deadline, c.monotonic + 1000 * divisor);
  });
  start(c, 0, 1000);
  c.pass(250);
  c.write(DIVIDE, 0x3);
  assert.equal(c.read(CURRENT), 750);
  assert.equal(interrupts(c, 750 * 16 - 1), 0);
  assert.equal(interrupts(c, 1), 1);
});

chipsTest("a masked timer counts but does not interrupt", (c) => {
  start(c, MASKED, 1000);
  c.pass(500);
  assert.equal(c.read(CURRENT), 500);
  assert.equal(interrupts(c, 1000), 0);
  assert.equal(c.read(CURRENT), 0);
});

chipsTest("an initial count of 0 stops; another one starts again", (c) => {
  start(c, PERIODIC, 1_000_000);
  c.write(INITIAL, 0);
  assert.equal(c.vcpu().deadline, Infinity);
  assert.equal(c.read(CURRENT), 0);
  c.write(INITIAL, 500_000);
  c.pass(400_000);
  c.write(INITIAL, 500_000);
  assert.equal(interrupts(c, 400_000), 0);
  assert.equal(interrupts(c, 100_000), 1);
});

chipsTest("what is due when the timer is set anew has interrupted", (c) => {
  start(c, 0, 1000);
  c.monotonic += 1000;
  c.write(INITIAL, 5000);
  assert.deepEqual(c.take(), [VECTOR]);
  c.eoi();
  c.monotonic += 5000;
  c.write(LVT_TIMER, MASKED);
  assert.deepEqual(c.take(), [VECTOR]);
});

chipsTest("a TSC deadline interrupts when the guest's TSC reaches it, and is then 0", (c) => {
  c.enable();
  c.write(LVT_TIMER, DEADLINE | VECTOR);
  const deadline = c.tsc + 2500n;
  assert.ok(c.wrmsr(TSC_DEADLINE, deadline));
  assert.equal(c.rdmsr(TSC_DEADLINE), deadline);
  assert.equal(c.vcpu().deadline, c.monotonic + 1000);
  assert.equal(c.read(CURRENT), 0);
  assert.equal(interrupts(c, 999), 0);
  assert.equal(interrupts(c, 1), 1);
  assert.equal(c.rdmsr(TSC_DEADLINE), 0n);
  assert.equal(c.vcpu().deadline, Infinity);
  // A deadline that has passed interrupts at once; 0 disarms.
  assert.ok(c.wrmsr(TSC_DEADLINE, 1n));
  assert.equal(interrupts(c, 0), 1);
  assert.ok(c.wrmsr(TSC_DEADLINE, c.tsc + 2500n));
  assert.ok(c.wrmsr(TSC_DEADLINE, 0n));
  assert.equal(interrupts(c, 2000), 0);
  // Far away is never.
  assert.ok(c.wrmsr(TSC_DEADLINE, 0xffff_ffff_ffff_ffffn));
  assert.equal(interrupts(c, 1e9), 0);
});

chipsTest("each vCPU's deadline is in its own TSC, and follows when that is set", (c) => {
  c.enable(1);
  c.write(LVT_TIMER, DEADLINE | VECTOR, 1);
  const deadline = c.tsc + c.tscOffsets[1] + 2500n;
  assert.ok(c.wrmsr(TSC_DEADLINE, deadline, 1));
  assert.equal(c.vcpu(1).deadline, c.monotonic + 1000);
  c.tscOffsets[1] -= 2500n;
  c.vcpu(1).tscChanged();
  assert.equal(c.vcpu(1).deadline, c.monotonic + 2000);
  // If the clocks drift apart the TSC counts.
  c.tscOffsets[1] -= 250n;
  c.pass(2000);
  assert.deepEqual(c.take(1), []);
  assert.equal(c.vcpu(1).deadline, c.monotonic + 100);
  c.pass(100);
  assert.deepEqual(c.take(1), [VECTOR]);
}, 2);

chipsTest("to and from TSC deadline mode the timer stops", (c) => {
  start(c, 0, 1_000_000);
  c.write(LVT_TIMER, PERIODIC | VECTOR);
  assert.notEqual(c.vcpu().deadline, Infinity);
  c.write(LVT_TIMER, DEADLINE | VECTOR);
  assert.equal(c.vcpu().deadline, Infinity);
  assert.equal(c.read(INITIAL), 0);
  c.write(INITIAL, 1000);
  assert.equal(c.read(INITIAL), 0);
  assert.ok(c.wrmsr(TSC_DEADLINE, c.tsc + 1000n));
  c.write(LVT_TIMER, VECTOR);
  assert.equal(c.vcpu().deadline, Infinity);
  assert.ok(c.wrmsr(TSC_DEADLINE, c.tsc + 1000n));
  assert.equal(c.rdmsr(TSC_DEADLINE), 0n);
});

for (const [name, mode, left] of [["one-shot", 0, 300_000], ["periodic", PERIODIC, 300_000]]) {
  chipsTest(`a saved ${name} timer counts on from where it was`, (c) => {
    start(c, Number(mode), 1_000_000);
    c.pass(700_000);
    const page = new Uint8Array(1024);
    c.vcpu().lapic.save(page);
    assert.equal(new DataView(page.buffer).getUint32(0x390, true), left);
    const other = new TestChips();
    other.vcpu().lapic.load(page);
    assert.equal(other.vcpu().deadline, other.monotonic + Number(left));
    assert.equal(interrupts(other, Number(left)), 1);
    assert.equal(other.vcpu().deadline, mode ? other.monotonic + 1_000_000 : Infinity);
  });
}

chipsTest("saving lets a timer that has run out interrupt first", (c) => {
  start(c, 0, 1000);
  c.monotonic += 1000;
  const page = new Uint8Array(1024);
  c.vcpu().lapic.save(page);
  assert.equal(page[0x200 + 16 * (VECTOR >> 5)], 1);
  assert.equal(c.vcpu().deadline, Infinity);
});

Deno.test("without TSC deadline mode in CPUID there is neither its MSR nor its mode", () => {
  const c = new TestChips(1, "kept", { tscDeadline: false });
  start(c, DEADLINE | PERIODIC, 1_000_000);
  assert.equal(c.read(LVT_TIMER), PERIODIC | VECTOR);
  assert.equal(interrupts(c, 1_000_000), 1);
  assert.equal(c.rdmsr(TSC_DEADLINE), undefined);
  assert.equal(c.wrmsr(TSC_DEADLINE, 1n), false);
});

chipsTest("saving finds a TSC deadline that has run out as an interrupt or as a deadline", (c) => {
  c.enable();
  c.write(LVT_TIMER, DEADLINE | VECTOR);
  const page = new Uint8Array(1024);
  const saved = () => {
    c.vcpu().lapic.save(page);
    return page[0x200 + 16 * (VECTOR >> 5)];
  };
  const deadline = c.tsc + 1000n;
  assert.ok(c.wrmsr(TSC_DEADLINE, deadline));
  assert.equal(c.rdmsr(TSC_DEADLINE), deadline);
  // It runs out between the two: the one that takes the state over lets it interrupt.
  c.monotonic += 1_000_000;
  assert.equal(saved(), 0);
  assert.equal(c.rdmsr(TSC_DEADLINE), 0n);
  assert.equal(saved(), 1);
});
