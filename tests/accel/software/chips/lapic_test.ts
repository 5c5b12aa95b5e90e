/** The local APIC, by the Intel SDM, volume 3, chapter 12. */
import assert from "node:assert/strict";
import { LapicEvent } from "../../../../vmm/accel/software/chips/state.ts";
import { chipsTest, LAPIC, TestChips } from "./testing.ts";

const ID = 0x20;
const TPR = 0x80;
const PPR = 0xa0;
const LDR = 0xd0;
const DFR = 0xe0;
const SVR = 0xf0;
const ISR = 0x100;
const TMR = 0x180;
const IRR = 0x200;
const ESR = 0x280;
const ICR = 0x300;
const LVT_TIMER = 0x320;
const LVT_LINT0 = 0x350;
const LVT_ERROR = 0x370;
const SELF = 0x4_0000;
const ALL = 0x8_0000;
const OTHERS = 0xc_0000;

const get = (c: TestChips, register: number, vcpu = 0) => c.read(LAPIC + register, vcpu);
const put = (c: TestChips, register: number, value: number, vcpu = 0) =>
  c.write(LAPIC + register, value, vcpu);
/** Whether a vector's bit is set in ISR, TMR or IRR. */
const has = (c: TestChips, register: number, vector: number, vcpu = 0) =>
  (get(c, register + 16 * (vector >> 5), vcpu) >>> (vector & 31) & 1) === 1;
/** Sends an IPI from a vCPU. */
function send(c: TestChips, command: number, destination = 0, vcpu = 0): void {
  put(c, ICR + 0x10, destination * 2 ** 24, vcpu);
  put(c, ICR, command, vcpu);
}

chipsTest("after power-on the registers are as the SDM and KVM have them", (c) => {
  assert.equal(get(c, ID, 1), 0x0100_0000);
  assert.equal(get(c, 0x30), 0x5_0014);
  assert.equal(get(c, DFR), 0xffff_ffff);
  assert.equal(get(c, SVR), 0xff);
  assert.equal(get(c, LVT_LINT0), 0x700);
  assert.equal(get(c, LVT_LINT0, 1), 0x1_0000);
  for (const entry of [LVT_TIMER, 0x330, 0x340, 0x360, LVT_ERROR]) {
    assert.equal(get(c, entry), 0x1_0000);
  }
  for (const zero of [TPR, PPR, LDR, ESR, ICR, 0x310, 0x380, 0x390, 0x3e0]) {
    assert.equal(get(c, zero), 0);
  }
  assert.equal(c.rdmsr(0x1b, 0), 0xfee0_0900n);
  assert.equal(c.rdmsr(0x1b, 1), 0xfee0_0800n);
}, 2);

chipsTest("reserved bits are not kept", (c) => {
  put(c, SVR, 0xffff_ffff);
  assert.equal(get(c, SVR), 0x3ff);
  for (
    const [register, expected] of [
      [ID, 0xff00_0000],
      [TPR, 0xff],
      [LDR, 0xff00_0000],
      [DFR, 0xffff_ffff],
      [0x310, 0xff00_0000],
      [LVT_TIMER, 0x7_10ff],
      [0x330, 0x1_17ff],
      [0x340, 0x1_17ff],
      [LVT_LINT0, 0x1_f7ff],
      [0x360, 0x1_f7ff],
      [LVT_ERROR, 0x1_10ff],
      [0x3e0, 0xb],
    ]
  ) {
    put(c, register, 0xffff_ffff);
    assert.equal(get(c, register), expected, register.toString(16));
  }
  put(c, DFR, 0);
  assert.equal(get(c, DFR), 0x0fff_ffff);
  // Only aligned words are written; reads may be narrower.
  assert.ok(c.vcpu().writeMemory(LAPIC + TPR, 1, 0x20));
  assert.ok(c.vcpu().writeMemory(LAPIC + TPR + 4, 4, 0x20));
  assert.equal(get(c, TPR), 0xff);
  assert.equal(c.vcpu().readMemory(LAPIC + 0x32, 1), 0x05);
  assert.equal(c.vcpu().readMemory(LAPIC + 0x30, 2), 0x14);
  assert.equal(c.vcpu().readMemory(LAPIC + 0x33, 2), 0);
});

chipsTest("software disables: entries are masked, nothing is accepted", (c) => {
  put(c, SVR, 0x1ff);
  put(c, LVT_LINT0, 0x700);
  put(c, LVT_ERROR, 0x55);
  put(c, SVR, 0xff);
  assert.equal(get(c, LVT_LINT0), 0x1_0700);
  assert.equal(get(c, LVT_ERROR), 0x1_0055);
  put(c, LVT_ERROR, 0x55);
  assert.equal(get(c, LVT_ERROR), 0x1_0055);
  send(c, SELF | 0x4060);
  assert.deepEqual(c.take(), []);
  // NMI, INIT and SIPI still are.
  send(c, 0x4400, 0);
  assert.equal(c.vcpu().lapic.events, LapicEvent.NMI);
});

chipsTest("vectors are taken in the order of their priorities and nest by class", (c) => {
  c.enable();
  for (const vector of [0x61, 0x42, 0x45, 0x63]) send(c, SELF | 0x4000 | vector);
  assert.ok(has(c, IRR, 0x42));
  assert.deepEqual(c.take(), [0x63]);
  assert.ok(has(c, ISR, 0x63) && !has(c, IRR, 0x63));
  assert.equal(get(c, PPR), 0x60);
  assert.equal(c.vcpu().hasInterrupt, false);
  send(c, SELF | 0x4070);
  assert.deepEqual(c.take(), [0x70]);
  assert.equal(get(c, PPR), 0x70);
  c.eoi();
  assert.equal(get(c, PPR), 0x60);
  c.kicks = [];
  c.eoi();
  // The end lets 0x61 through: the vCPU is told.
  assert.deepEqual(c.kicks, [0]);
  assert.deepEqual(c.take(), [0x61]);
  c.eoi();
  assert.deepEqual(c.take(), [0x45]);
  c.eoi();
  assert.deepEqual(c.take(), [0x42]);
  c.eoi();
  c.eoi();
  assert.equal(get(c, PPR), 0);
});

chipsTest("the task priority holds back its class and those below; CR8 is its high half", (c) => {
  c.enable();
  put(c, TPR, 0x5f);
  assert.equal(c.vcpu().lapic.cr8, 5);
  assert.equal(get(c, PPR), 0x5f);
  for (const vector of [0x4f, 0x50, 0x60]) send(c, SELF | 0x4000 | vector);
  assert.deepEqual(c.take(), [0x60]);
  c.eoi();
  assert.equal(c.vcpu().hasInterrupt, false);
  c.kicks = [];
  c.vcpu().lapic.cr8 = 4;
  assert.equal(get(c, TPR), 0x40);
  assert.deepEqual(c.kicks, [0]);
  assert.deepEqual(c.take(), [0x50]);
  c.eoi();
  assert.deepEqual(c.take(), []);
  put(c, TPR, 0);
  assert.deepEqual(c.take(), [0x4f]);
  // The task's own priority counts where it is at least that of what is in service.
  put(c, TPR, 0x47);
  assert.equal(get(c, PPR), 0x47);
  put(c, TPR, 0x37);
  assert.equal(get(c, PPR), 0x40);
});

chipsTest("IPIs reach whom their destination or shorthand names", (c) => {
  for (const vcpu of [0, 1, 2]) {
    c.enable(vcpu);
    put(c, LDR, 2 ** (24 + vcpu), vcpu);
  }
  const reached = (command: number, destination = 0) => {
    c.kicks = [];
    send(c, command | 0x4000, destination, 1);
    const kicked = c.kicks.toSorted();
    const takers = [0, 1, 2].filter((vcpu) => c.take(vcpu).length > 0);
    for (const vcpu of takers) c.eoi(vcpu);
    assert.deepEqual(kicked.slice(0, takers.length), takers);
    return takers;
  };
  assert.deepEqual(reached(0x50, 2), [2]);
  assert.deepEqual(reached(0x50, 1), [1]);
  assert.deepEqual(reached(0x50, 7), []);
  assert.deepEqual(reached(0x50, 0xff), [0, 1, 2]);
  assert.deepEqual(reached(0x850, 5), [0, 2]);
  assert.deepEqual(reached(SELF | 0x50, 0), [1]);
  assert.deepEqual(reached(ALL | 0x50, 0), [0, 1, 2]);
  assert.deepEqual(reached(OTHERS | 0x50, 0), [0, 2]);
  // Lowest priority to three: the vector chooses.
  assert.deepEqual(reached(0x950, 7).length, 1);
  assert.notDeepEqual(reached(0x950, 7), reached(0x951, 7));
  // A physical broadcast of lowest priority reaches all, as on KVM.
  assert.deepEqual(reached(0x150, 0xff), [0, 1, 2]);
  assert.equal(get(c, ICR, 1), 0x4150);
  assert.equal(get(c, ICR + 0x10, 1), 0xff00_0000);
}, 3);

chipsTest("NMI, INIT and SIPI wait as events; INIT forgets a SIPI before it", (c) => {
  send(c, 0x4607, 1);
  assert.equal(c.vcpu(1).lapic.events, LapicEvent.SIPI);
  send(c, 0xc500, 1);
  assert.equal(c.vcpu(1).lapic.events, LapicEvent.INIT);
  // The de-assertion of INIT's level is no INIT.
  assert.ok(c.vcpu(1).lapic.take(LapicEvent.INIT));
  send(c, 0x8500, 1);
  assert.equal(c.vcpu(1).lapic.events, 0);
  send(c, 0x4500, 1);
  send(c, 0x4608, 1);
  send(c, 0x4609, 1);
  send(c, 0x4400, 1);
  assert.equal(c.vcpu(1).lapic.events, 7);
  assert.equal(c.vcpu(1).lapic.sipiVector, 9);
  assert.ok(c.vcpu(1).lapic.take(LapicEvent.SIPI));
  assert.ok(!c.vcpu(1).lapic.take(LapicEvent.SIPI));
  assert.equal(c.vcpu(1).lapic.events, 5);
  c.chipset.bus.nmi(0);
  assert.equal(c.vcpu(0).lapic.events, LapicEvent.NMI);
  // What is no mode, or nobody's here, is dropped.
  c.vcpu(0).lapic.take(LapicEvent.NMI);
  for (const mode of [0x200, 0x300, 0x700]) send(c, 0x4000 | mode, 0);
  assert.equal(c.vcpu(0).lapic.events, 0);
}, 2);

chipsTest("INIT keeps id, base and mode, and nothing else", (c) => {
  c.enable(1);
  put(c, ID, 0x0700_0000, 1);
  put(c, TPR, 0x20, 1);
  put(c, LDR, 0x0200_0000, 1);
  put(c, LVT_TIMER, 0x2_0040, 1);
  put(c, 0x380, 1000, 1);
  send(c, 0x4050, 7);
  c.vcpu(1).lapic.init();
  assert.equal(get(c, ID, 1), 0x0700_0000);
  for (const zero of [TPR, LDR, 0x380, IRR + 0x20]) assert.equal(get(c, zero, 1), 0);
  assert.equal(get(c, SVR, 1), 0xff);
  assert.equal(get(c, LVT_TIMER, 1), 0x1_0000);
  assert.equal(c.vcpu(1).deadline, Infinity);
  c.vcpu(0).lapic.init();
  assert.equal(get(c, LVT_LINT0, 0), 0x700);
  assert.ok(c.wrmsr(0x1b, 0xfee0_0c00n, 1));
  c.vcpu(1).lapic.init();
  assert.equal(c.rdmsr(0x802, 1), 1n);
  assert.equal(c.rdmsr(0x80d, 1), 2n);
}, 2);

chipsTest("errors are latched by writing the ESR, and interrupt once each", (c) => {
  c.enable();
  put(c, LVT_ERROR, 0xe0);
  send(c, SELF | 0x400f);
  assert.deepEqual(c.take(), [0xe0]);
  c.eoi();
  send(c, SELF | 0x4001);
  assert.deepEqual(c.take(), []);
  assert.equal(get(c, ESR), 0);
  put(c, ESR, 0);
  assert.equal(get(c, ESR), 0x20);
  put(c, ESR, 0);
  assert.equal(get(c, ESR), 0);
  // A vector that cannot be, from elsewhere.
  c.redirect(16, 0x05);
  c.chipset.pulse(16);
  put(c, ESR, 0);
  assert.equal(get(c, ESR), 0x40);
  assert.deepEqual(c.take(), [0xe0]);
  c.eoi();
  // A register that is not there; one that can only be written is there.
  get(c, 0xb0);
  put(c, ESR, 0);
  assert.equal(get(c, ESR), 0);
  get(c, 0x3f0);
  put(c, 0x2f0, 0);
  put(c, ESR, 0);
  assert.equal(get(c, ESR), 0x80);
});

chipsTest("the end of a level-triggered IPI is told to the IOAPIC, that of an edge is not", (c) => {
  c.enable();
  c.redirect(16, 0x8050);
  c.chipset.setLine(16, true);
  assert.ok(has(c, TMR, 0x50));
  assert.deepEqual(c.take(), [0x50]);
  // The same vector by edge: the TMR says how the last one came.
  send(c, SELF | 0x4050);
  assert.ok(!has(c, TMR, 0x50));
  c.eoi();
  assert.deepEqual(c.take(), [0x50]);
  assert.equal(c.readIoapic(0x30), 0xc050);
});

chipsTest("LINT0 brings the 8259A in as ExtINT, as an NMI, or as a vector", (c) => {
  const interrupts = () => {
    c.chipset.pulse(3);
    const taken = c.take();
    c.out(0x20, 0x20);
    return taken;
  };
  for (const [port, value] of [[0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, 1]]) {
    c.out(port, value);
  }
  assert.deepEqual(interrupts(), [0x23]);
  put(c, SVR, 0x1ff);
  put(c, LVT_LINT0, 0x1_0700);
  assert.deepEqual(interrupts(), []);
  put(c, LVT_LINT0, 0x700);
  assert.deepEqual(c.take(), [0x23]);
  c.out(0x20, 0x20);
  put(c, LVT_LINT0, 0x400);
  assert.deepEqual(interrupts(), []);
  assert.equal(c.vcpu().lapic.events, LapicEvent.NMI);
  put(c, LVT_LINT0, 0x700);
  c.take();
  c.out(0x20, 0x20);
  put(c, LVT_LINT0, 0x051);
  assert.deepEqual(interrupts(), [0x51]);
  put(c, LVT_LINT0, 0x1_0700);
  c.eoi();
  // Without a LAPIC INTR is the processor's own.
  assert.ok(c.wrmsr(0x1b, 0xfee0_0100n));
  c.out(0x20, 0x20);
  assert.deepEqual(c.take(), [0x23]);
});

chipsTest("the 8259A's interrupt comes before the LAPIC's", (c) => {
  for (const [port, value] of [[0x20, 0x11], [0x21, 0x20], [0x21, 4], [0x21, 1]]) {
    c.out(port, value);
  }
  put(c, SVR, 0x1ff);
  put(c, LVT_LINT0, 0x700);
  send(c, SELF | 0x40f0);
  c.chipset.pulse(4);
  assert.deepEqual(c.take(), [0x24, 0xf0]);
});

chipsTest("IA32_APIC_BASE faults on reserved bits and on forbidden changes of mode", (c) => {
  const base = 0xfee0_0000n;
  for (const bit of [0n, 7n, 9n, 40n, 63n]) {
    assert.equal(c.wrmsr(0x1b, base | 0x900n | 1n << bit), false, `${bit}`);
  }
  // x2APIC without the LAPIC; from off to x2APIC; from x2APIC to xAPIC.
  assert.equal(c.wrmsr(0x1b, base | 0x400n), false);
  assert.ok(c.wrmsr(0x1b, base | 0x100n));
  assert.equal(c.wrmsr(0x1b, base | 0xd00n), false);
  assert.equal(c.rdmsr(0x1b), base | 0x100n);
  assert.ok(c.wrmsr(0x1b, base | 0x900n));
  assert.ok(c.wrmsr(0x1b, base | 0xd00n));
  assert.equal(c.wrmsr(0x1b, base | 0x900n), false);
  assert.ok(c.wrmsr(0x1b, base | 0x100n));
  assert.equal(c.vcpu().lapic.isX2apic, false);
  // Who loads a state may do so.
  assert.ok(c.vcpu().writeMsr(0x1b, 0xfee0_0d00, 0, true));
  assert.ok(c.vcpu().writeMsr(0x1b, 0xfee0_0900, 0, true));
  assert.equal(c.vcpu().lapic.isXapic, true);
});

chipsTest("the registers move with IA32_APIC_BASE, and vanish without the LAPIC", (c) => {
  assert.ok(c.wrmsr(0x1b, 0x12_3456_7900n));
  assert.equal(c.vcpu().readMemory(LAPIC + 0x30, 4), -1);
  assert.equal(c.vcpu().readMemory(0x12_3456_7030, 4), 0x5_0014);
  assert.equal(c.vcpu().readMemory(0x12_3456_8000, 4), -1);
  assert.equal(c.vcpu().readMemory(0x12_3456_6fff, 4), -1);
  for (const mode of [0x100n, 0xd00n]) {
    assert.ok(c.wrmsr(0x1b, BigInt(LAPIC) | 0x900n));
    assert.ok(c.wrmsr(0x1b, BigInt(LAPIC) | mode));
    assert.equal(c.vcpu().readMemory(LAPIC + 0x30, 4), -1);
    assert.equal(c.vcpu().writeMemory(LAPIC + 0x80, 4, 0), false);
  }
});

chipsTest("a LAPIC that is off takes no part", (c) => {
  c.enable(0);
  c.enable(1);
  assert.ok(c.wrmsr(0x1b, 0xfee0_0000n, 1));
  send(c, ALL | 0x4050);
  assert.deepEqual([c.take(0), c.take(1)], [[0x50], []]);
  send(c, 0x4400, 1);
  assert.equal(c.vcpu(1).lapic.events, 0);
  assert.equal(c.rdmsr(0x830, 1), undefined);
  assert.ok(c.wrmsr(0x1b, 0xfee0_0800n, 1));
  assert.equal(get(c, ID, 1), 0x0100_0000);
}, 2);

chipsTest("x2APIC mode: ids, 64-bit ICR, self IPI, and faults", (c) => {
  for (const vcpu of [0, 1, 2]) {
    c.enable(vcpu);
    assert.equal(c.rdmsr(0x802, vcpu), undefined);
    assert.ok(c.wrmsr(0x1b, 0xfee0_0c00n, vcpu));
  }
  assert.equal(c.rdmsr(0x802, 2), 2n);
  assert.equal(c.rdmsr(0x80d, 2), 4n);
  assert.equal(c.rdmsr(0x803), 0x5_0014n);
  assert.ok(c.wrmsr(0x830, 0x2_0000_4050n));
  assert.equal(c.rdmsr(0x830), 0x2_0000_4050n);
  assert.deepEqual([0, 1, 2].map((vcpu) => c.take(vcpu)), [[], [], [0x50]]);
  // A broadcast; a logical destination, cluster and bits; a device's broadcast of 8 bits.
  assert.ok(c.wrmsr(0x830, 0xffff_ffff_0000_4061n));
  assert.deepEqual([0, 1, 2].map((vcpu) => c.take(vcpu)), [[0x61], [0x61], [0x61]]);
  assert.ok(c.wrmsr(0x830, 0x0000_0005_0000_4871n));
  assert.deepEqual([0, 1, 2].map((vcpu) => c.take(vcpu)), [[0x71], [], [0x71]]);
  assert.ok(c.wrmsr(0x830, 0x0001_0005_0000_4881n));
  assert.deepEqual([0, 1, 2].map((vcpu) => c.take(vcpu)), [[], [], []]);
  assert.equal(c.chipset.sendMsi(0xfeef_f000, 0x91), 3);
  assert.ok(c.wrmsr(0x83f, 0xa2n));
  assert.ok(c.take(0).includes(0xa2));
  assert.equal(c.wrmsr(0x83f, 0x1a2n), false);
  assert.ok(c.wrmsr(0x80b, 0n));
  assert.equal(c.wrmsr(0x80b, 1n), false);
  assert.equal(c.wrmsr(0x828, 1n), false);
  assert.equal(c.wrmsr(0x808, 1n << 32n), false);
  // Not there, or only in the other mode, or only to be written or read.
  for (const msr of [0x80e, 0x831, 0x80b, 0x83f, 0x809, 0x800, 0x8ff]) {
    assert.equal(c.rdmsr(msr), undefined, msr.toString(16));
  }
  for (const msr of [0x802, 0x803, 0x80d, 0x80e, 0x831, 0x810, 0x839, 0x8ff]) {
    assert.equal(c.wrmsr(msr, 0n), false, msr.toString(16));
  }
  for (const msr of [0x7ff, 0x900, 0x10]) {
    assert.equal(c.rdmsr(msr), undefined);
    assert.equal(c.wrmsr(msr, 0n), false);
  }
}, 3);

chipsTest("a saved LAPIC goes on elsewhere, in both modes", (c) => {
  for (const x2apic of [false, true]) {
    const other = new TestChips();
    if (x2apic) {
      assert.ok(c.wrmsr(0x1b, 0xfee0_0d00n));
      assert.ok(other.wrmsr(0x1b, 0xfee0_0d00n));
      assert.ok(c.wrmsr(0x830, 0x1234_0000_4400n));
    } else {
      c.enable();
      send(c, SELF | 0x4075);
      send(c, SELF | 0x4085);
      assert.deepEqual(c.take(), [0x85]);
      put(c, TPR, 0x30);
    }
    const bytes = new Uint8Array(1024);
    c.vcpu().lapic.save(bytes);
    other.vcpu().lapic.load(bytes);
    const again = new Uint8Array(1024);
    other.vcpu().lapic.save(again);
    assert.deepEqual(again, bytes);
    assert.deepEqual(other.take(), []);
    if (x2apic) {
      assert.equal(other.rdmsr(0x830), 0x1234_0000_4400n);
      assert.ok(other.wrmsr(0x80b, 0n));
    } else other.eoi();
    assert.deepEqual(other.take(), [0x75]);
  }
});

Deno.test("any state of the LAPIC can be loaded and used", () => {
  const c = new TestChips(2);
  for (let round = 0; round < 200; round++) {
    const page = crypto.getRandomValues(new Uint8Array(1024));
    c.vcpu(round & 1).lapic.load(page);
    for (let i = 0; i < 300 && c.vcpu(round & 1).acknowledge() >= 0; i++) c.eoi(round & 1);
    for (let register = 0; register < 0x400; register += 16) {
      assert.ok(get(c, register, round & 1) >= 0);
      put(c, register, round * 0x1234567 >>> 0, round & 1);
    }
    c.pass(1e9);
    assert.ok(c.vcpu(0).deadline > c.monotonic);
  }
});
