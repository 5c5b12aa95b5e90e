/** The software's chips against KVM's: the same accesses must give the same, and leave the same. */
import assert from "node:assert/strict";
import { fieldsOf, isView } from "../../../../ffi/struct.ts";
import { KVM } from "../../../../ffi/kvm/ioctl.ts";
import {
  kvmIoapicState,
  kvmIrqchip,
  kvmMsrEntry,
  kvmPicState,
  kvmPitState2,
  lapicRegisters,
} from "../../../../ffi/kvm/structs.ts";
import { whyNoKvm } from "../../../../ffi/kvm/system.ts";
import {
  ClockMsr,
  pvclockTimeInfo,
  tscScale,
} from "../../../../vmm/accel/software/chips/kvmclock.ts";
import { type Access, KvmMachine, type Result } from "./kvm_machine.ts";
import { IOAPIC, LAPIC, TestChips } from "./testing.ts";

const noKvm = whyNoKvm();
if (noKvm !== undefined) console.warn(`SKIPPED: chips against KVM's: ${noKvm}`);

function kvmTest(name: string, fn: () => void): void {
  Deno.test({ name, ignore: noKvm !== undefined, fn });
}

/** Does the accesses on the software's chips. */
function perform(chips: TestChips, accesses: readonly Access[]): Result[] {
  return accesses.map((access): Result => {
    switch (access.kind) {
      case "out":
        return chips.out(access.port, access.value) as undefined;
      case "in":
        return chips.in(access.port);
      case "write":
        return chips.write(access.address, access.value) as undefined;
      case "read":
        return chips.read(access.address);
      case "line":
        return chips.chipset.setLine(access.gsi, access.level) as undefined;
      case "window":
        return chips.vcpu().acknowledge();
      case "accept":
        return chips.vcpu().lapic.acknowledge();
    }
  });
}

/** The state of PIC, IOAPIC and LAPICs by names, numbers in hexadecimal. */
type State = Record<string, unknown>;

function named(view: object): State {
  const hex = (value: unknown): unknown => {
    if (typeof value === "bigint" || typeof value === "number") return value.toString(16);
    if (isView(value)) return named(value);
    return value instanceof Uint8Array ? value.toHex() : [...(value as Iterable<unknown>)].map(hex);
  };
  return Object.fromEntries([...fieldsOf(view)].map(([name, value]) => [name, hex(value)]));
}

/** An image by the names of its fields; but for what time changes. */
function describe({ irqchips, lapics }: Image): State {
  const [master, slave] = irqchips.map(({ buffer }) =>
    named(kvmPicState.view(buffer, kvmIrqchip.offsets.chip))
  );
  const ioapic = named(kvmIoapicState.view(irqchips[2].buffer, kvmIrqchip.offsets.chip));
  const registers = lapics.map(({ buffer }) => {
    const { timer_current: _, ...rest } = named(lapicRegisters.view(buffer));
    return rest;
  });
  return { master, slave, ioapic, registers };
}

/** What travels: KVM's structs of the three chips and of the LAPICs. */
interface Image {
  readonly irqchips: Uint8Array<ArrayBuffer>[];
  readonly lapics: Uint8Array<ArrayBuffer>[];
}

function kvmImage(kvm: KvmMachine): Image {
  return {
    irqchips: [0, 1, 2].map((id) => kvm.irqchip(id)),
    lapics: kvm.vcpus.map((_, i) => kvm.lapic(i)),
  };
}

/** Loads in the order in which the VMM does. */
function loadKvm(kvm: KvmMachine, { irqchips, lapics }: Image): void {
  lapics.forEach((page, i) => kvm.setLapic(page, i));
  for (const chip of irqchips) kvm.vm.transfer(KVM.SET_IRQCHIP, chip);
}

function loadSoftware(chips: TestChips, { irqchips, lapics }: Image): void {
  lapics.forEach((page, i) => chips.vcpu(i).lapic.load(page));
  for (const chip of irqchips) assert.equal(chips.chipset.loadIrqchip(chip), 0);
}

function softwareImage(chips: TestChips, vcpus: number): Image {
  const irqchips = [0, 1, 2].map((chip_id) => {
    const { bytes } = kvmIrqchip.alloc({ chip_id });
    assert.equal(chips.chipset.saveIrqchip(bytes), 0);
    return bytes;
  });
  const lapics = Array.from({ length: vcpus }, (_, index) => {
    const page = new Uint8Array(1024);
    chips.vcpu(index).lapic.save(page);
    return page;
  });
  return { irqchips, lapics };
}

/** A stream of numbers that a seed determines (Park and Miller's generator). */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** An integer from 0 to below `limit`. */
  below(limit: number): number {
    this.#state = this.#state * 48271 % 0x7fff_ffff;
    return Math.floor(this.#state / 0x7fff_ffff * limit);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }
}

const out = (port: number, value: number): Access => ({ kind: "out", port, value });
const inp = (port: number): Access => ({ kind: "in", port });
const write = (address: number, value: number): Access => ({ kind: "write", address, value });
const read = (address: number): Access => ({ kind: "read", address });

/** What firmware does to the 8259A pair. */
function initializePics(random: Random): Access[] {
  return [0x20, 0xa0].flatMap((port, chip) => [
    out(port, 0x11),
    out(port + 1, 0x20 + 8 * (chip + 2 * random.below(8))),
    out(port + 1, chip === 0 ? 4 : 2),
    out(port + 1, random.pick([1, 1, 3, 0x11])),
    out(port + 1, 0),
  ]);
}

function picAccess(random: Random): Access[] {
  const port = random.pick([0x20, 0xa0]);
  const level = random.below(8);
  switch (random.below(9)) {
    case 0:
      return random.below(4) === 0 ? initializePics(random) : [];
    case 1:
      return [out(port + 1, random.below(256))];
    case 2:
      return [out(port + 1, 0)];
    case 3:
      return [out(port, random.pick([0x20, 0x20, 0x60 | level]))];
    case 4:
      return [out(port, random.pick([0xa0, 0xe0 | level, 0xc0 | level, 0x80, 0, 0x40]))];
    case 5:
      return [out(port, random.pick([0x0a, 0x0b])), inp(port)];
    case 6:
      return [inp(random.pick([0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1]))];
    case 7:
      return random.below(3) === 0 ? [out(0x4d0 + random.below(2), random.below(256))] : [];
  }
  if (random.below(8) !== 0) return [inp(port)];
  // Whatever the command words ask for, the last is a mask: KVM looks for interrupts only then.
  const words = [random.below(256), random.below(256), random.below(256), 0];
  return [out(port, 0x10 | random.below(16)), ...words.map((value) => out(port + 1, value))];
}

function ioapicAccess(random: Random): Access[] {
  const pin = random.below(24);
  // Each pin has vectors and a trigger mode of its own, because KVM sends an edge once more when a
  // level with the same vector ends; and levels go to somebody, because KVM takes a level that nobody
  // is addressed by for accepted. Lowest priority has no logical destination, because KVM drops an
  // interrupt for which it chooses a bit that is no LAPIC's.
  const isLevel = (pin & 1) !== 0;
  const low = 0x20 + 8 * pin + random.below(8) | random.pick([0, 0x2000]) |
    (isLevel ? 0x8000 : random.pick([0, 0x100, 0x800])) |
    random.pick([0, 0, 0x1_0000]);
  const destination = random.pick(isLevel ? [0, 1, 0xff] : [0, 1, 3, 0xff]);
  switch (random.below(4)) {
    case 0:
      return [write(IOAPIC, random.below(0x44)), read(IOAPIC + 0x10), read(IOAPIC)];
    case 1:
      return [write(IOAPIC, 0x11 + 2 * pin), write(IOAPIC + 0x10, destination * 2 ** 24)];
    case 2:
      return [write(IOAPIC, random.below(3)), write(IOAPIC + 0x10, random.below(2 ** 31))];
  }
  return [write(IOAPIC, 0x10 + 2 * pin), write(IOAPIC + 0x10, low)];
}

const READABLE = [0x20, 0x30, 0x80, 0x90, 0xa0, 0xd0, 0xe0, 0xf0, 0x300, 0x310, 0x320, 0x330];
const LVTS = [0x320, 0x330, 0x340, 0x360, 0x370];

function lapicAccess(random: Random): Access[] {
  const vector = 0x10 + random.below(0xf0);
  const at = (register: number) => LAPIC + register;
  switch (random.below(13)) {
    case 12:
      // The timer, with its entry masked and its time far away.
      return [write(at(0x380), random.pick([0, 2 ** 28 + random.below(2 ** 31)])), read(at(0x380))];
    case 0:
      // Whole classes: on AMD's processors KVM loses the low half.
      return [write(at(0x80), random.pick([0, 0, 0x20, 0x40, 0x80]))];
    case 1:
    case 2:
      return [write(at(0xb0), 0), read(at(0xa0))];
    case 3:
      return [write(at(0xf0), random.pick([0x1ff, 0x1ff, 0x1ff, 0xff, 0xffff_ffff]))];
    case 4:
      return [write(at(0xd0), random.pick([1, 2, 3, 0x11]) * 2 ** 24)];
    case 5:
      return [write(at(0xe0), random.pick([0xffff_ffff, 0xffff_ffff, 0]))];
    case 6:
      return [write(at(0x350), 0x1_0000 | random.below(2 ** 31))];
    case 7:
      return [write(at(random.pick(LVTS)), 0x1_0000 | random.below(2 ** 31))];
    case 8: {
      const shorthand = random.pick([0, 0, 0x4_0000, 0x8_0000, 0xc_0000]);
      const command = shorthand | 0x4000 | random.pick([0, 0x100, 0x800]) | vector;
      return [write(at(0x310), random.pick([0, 1, 2, 0xff]) * 2 ** 24), write(at(0x300), command)];
    }
    case 9:
      return [write(at(0x3e0), random.below(16)), read(at(0x3e0))];
    case 10:
      return [read(at(random.pick([0x100, 0x180, 0x200]) + 16 * random.below(8)))];
  }
  return [read(at(random.pick(READABLE)))];
}

/** A line other than 2, which in a PC is the slave's. */
function line(random: Random): Access {
  const gsi = random.below(23);
  return { kind: "line", gsi: gsi < 2 ? gsi : gsi + 1, level: random.below(2) === 1 };
}

/** Accesses of some kinds, the last of them to a register that is only brought up to date so. */
function accesses(random: Random, kinds: readonly (() => Access[])[]): Access[] {
  const list: Access[] = [];
  while (list.length < 400) list.push(...random.pick(kinds)(), line(random));
  return [...list, read(LAPIC + 0xa0)];
}

/** The 8259A pair, whose interrupts come by LINT0. */
function picAccesses(random: Random): Access[] {
  const window: Access = { kind: "window" };
  return [
    ...initializePics(random),
    ...accesses(random, [() => picAccess(random), () => [window]]),
  ];
}

/** IOAPIC and local APIC. */
function apicAccesses(random: Random): Access[] {
  const kinds = [
    () => ioapicAccess(random),
    () => lapicAccess(random),
    (): Access[] => [{ kind: "accept" }],
  ];
  return [write(LAPIC + 0xf0, 0x1ff), ...accesses(random, kinds)];
}

/** Both have one vCPU that runs and one whose LAPIC is on. */
function pair(kvm: KvmMachine): TestChips {
  const chips = new TestChips(2, "kept", { tscDeadline: kvm.tscDeadline });
  chips.enable(1);
  const page = kvm.lapic(1);
  const registers = lapicRegisters.view(page.buffer);
  registers.svr = 0x1ff;
  kvm.setLapic(page, 1);
  return chips;
}

const SEEDS = 16;

for (const [name, generate] of [["8259A pair", picAccesses], ["APICs", apicAccesses]] as const) {
  kvmTest(`the same accesses to the ${name} give the same as KVM's and leave the same`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      using kvm = new KvmMachine(2);
      const chips = pair(kvm);
      const list = generate(new Random(seed));
      const expected = kvm.run(list);
      const actual = perform(chips, list);
      const differs = list.findIndex((_, i) => actual[i] !== expected[i]);
      const recent = JSON.stringify(list.slice(Math.max(differs - 12, 0), differs + 1));
      assert.equal(actual[differs], expected[differs], `seed ${seed}: after ${recent}`);
      assert.deepEqual(describe(softwareImage(chips, 2)), describe(kvmImage(kvm)), `seed ${seed}`);
    }
  });
}

/** KVM brings the processor priority up to date when it is next used, not when a state is loaded. */
function describeLoaded(image: Image): State {
  for (const page of image.lapics) lapicRegisters.view(page.buffer).ppr = 0;
  return describe(image);
}

kvmTest("a state that KVM has saved is loaded as by KVM, and one saved here by KVM", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    using from = new KvmMachine(2);
    pair(from);
    from.run([...picAccesses(new Random(seed)), ...apicAccesses(new Random(seed))]);
    const saved = kvmImage(from);
    using kvm = new KvmMachine(2);
    const chips = new TestChips(2);
    loadKvm(kvm, saved);
    loadSoftware(chips, saved);
    const loaded = describeLoaded(kvmImage(kvm));
    assert.deepEqual(describeLoaded(softwareImage(chips, 2)), loaded, `seed ${seed}`);
    // And on to a third one, where no request is new.
    using back = new KvmMachine(2);
    loadKvm(back, softwareImage(chips, 2));
    assert.deepEqual(describeLoaded(kvmImage(back)), loaded, `seed ${seed}`);
  }
});

function pitAccess(random: Random): Access[] {
  const port = 0x40 + random.below(3);
  switch (random.below(4)) {
    case 0:
      // Large counts, so that no channel comes round meanwhile.
      return [out(0x43, random.below(256)), out(port, 0xff), out(port, 0xff)];
    case 1:
      return [inp(port)];
    case 2:
      return [out(0x61, random.below(256))];
  }
  return [out(0x43, random.below(256))];
}

/** What of a PIT's state does not depend on the time. */
function describePit(bytes: Uint8Array<ArrayBuffer>): State {
  const view = kvmPitState2.view(bytes.buffer);
  const channels = [...view.channels].map((channel) => {
    const { count_load_time: _t, latched_count: _c, status: _s, ...rest } = named(channel);
    return rest;
  });
  return { channels, flags: view.flags };
}

kvmTest("the PIT's state is KVM's after the same accesses", () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = new Random(seed);
    const list = Array.from({ length: 100 }, () => pitAccess(random)).flat();
    using kvm = new KvmMachine();
    const chips = new TestChips();
    kvm.run(list);
    perform(chips, list);
    const [expected, actual] = [0, 0].map(() => new Uint8Array(kvmPitState2.size));
    kvm.vm.transfer(KVM.GET_PIT2, expected);
    chips.chipset.savePit(actual);
    assert.deepEqual(describePit(actual), describePit(expected), `seed ${seed}`);
  }
});

kvmTest("kvmclock's scale is that of KVM", () => {
  const gpa = 0x3000;
  using kvm = new KvmMachine();
  const [vcpu] = kvm.vcpus;
  const msrs = new Uint8Array(8 + kvmMsrEntry.size);
  new DataView(msrs.buffer).setUint32(0, 1, true);
  Object.assign(kvmMsrEntry.view(msrs.buffer, 8), {
    index: ClockMsr.SYSTEM_TIME_NEW,
    data: BigInt(gpa) | 1n,
  });
  assert.equal(vcpu.transfer(KVM.SET_MSRS, msrs), 1);
  kvm.run([]);
  const page = pvclockTimeInfo.view(kvm.read(gpa, pvclockTimeInfo.size).buffer);
  const { mul, shift } = tscScale(vcpu.tscKhz);
  assert.deepEqual([page.tsc_to_system_mul, page.tsc_shift], [mul, shift & 0xff]);
});
