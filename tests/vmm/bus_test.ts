import assert from "node:assert/strict";
import type { AddressRange, Device } from "../../devices/device.ts";
import { RangeBases } from "../../vmm/bus/bases.ts";
import { allOnes, Bus, checkOverlap, type Claim, type PlacedRange } from "../../vmm/bus/bus.ts";

/** A device that records accesses, and reads as the bytes of `base`, `base + 1`, … */
class Recorder implements Device {
  readonly calls: string[] = [];
  fails = false;

  constructor(readonly base: number) {}

  read(range: number, offset: number, size: number): number {
    if (this.fails) throw new Error("a device failed");
    this.calls.push(`read ${range}:${offset} ${size}`);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + ((this.base + offset + i) & 0xff);
    return value;
  }

  write(range: number, offset: number, size: number, value: number): void {
    if (this.fails) throw new Error("a device failed");
    this.calls.push(`write ${range}:${offset} ${size} ${value.toString(16)}`);
  }

  reset(): void {}
}

const mutexes = new Int32Array(new SharedArrayBuffer(16));
const pio = (base: number, size: number): AddressRange => ({ space: "pio", base, size, name: "p" });
const mmio = (base: number, size: number): AddressRange => ({
  space: "mmio",
  base,
  size,
  name: "m",
});

function busOf(...claims: [Device, AddressRange, number?][]): Bus {
  const all = claims.map(([device, range, number = 0], mutex): Claim => ({
    ...range,
    device,
    range: number,
    mutex,
  }));
  const words = all.length > mutexes.length
    ? new Int32Array(new SharedArrayBuffer(4 * all.length))
    : mutexes;
  return new Bus(all, words);
}

Deno.test("`allOnes()` has every bit of the access set", () => {
  assert.deepEqual([1, 2, 4].map(allOnes), [0xff, 0xffff, 0xffff_ffff]);
});

Deno.test("`readPort()` and `writePort()` give a claimed access to the device whole", () => {
  const device = new Recorder(0x10);
  const bus = busOf([device, pio(0x3f8, 8), 2]);
  assert.equal(bus.readPort(0x3f8, 1), 0x10);
  assert.equal(bus.readPort(0x3fa, 2), 0x1312);
  assert.equal(bus.readPort(0x3fc, 4), 0x17161514);
  bus.writePort(0x3ff, 1, 0xab);
  bus.writePort(0x3f8, 4, 0x89abcdef);
  assert.deepEqual(device.calls, [
    "read 2:0 1",
    "read 2:2 2",
    "read 2:4 4",
    "write 2:7 1 ab",
    "write 2:0 4 89abcdef",
  ]);
});

Deno.test("ports that nobody claims read as all ones and ignore writes", () => {
  const bus = busOf([new Recorder(0), pio(0x100, 1)]);
  for (const size of [1, 2, 4]) {
    assert.equal(bus.readPort(0x80, size), allOnes(size));
    bus.writePort(0x80, size, 0);
  }
  assert.equal(bus.readPort(0xffff, 1), 0xff);
});

Deno.test("an access over the end of a port range is cut into bytes", () => {
  const low = new Recorder(0xa0);
  const high = new Recorder(0xb0);
  const bus = busOf([low, pio(0x10, 2)], [high, pio(0x12, 1)]);
  assert.equal(bus.readPort(0x11, 4), 0xffff_b0a1);
  assert.equal(bus.readPort(0x0f, 4), 0xb0a1_a0ff);
  assert.equal(bus.readPort(0x0f, 2), 0xa0ff);
  bus.writePort(0x0e, 4, 0x44332211);
  bus.writePort(0x11, 2, 0x6655);
  assert.deepEqual(low.calls.slice(-3), ["write 0:0 1 33", "write 0:1 1 44", "write 0:1 1 55"]);
  assert.deepEqual(high.calls.at(-1), "write 0:0 1 66");
});

Deno.test("an access over the last port does not wrap around to the first", () => {
  const first = new Recorder(1);
  const last = new Recorder(0xee);
  const bus = busOf([first, pio(0, 1)], [last, pio(0xffff, 1)]);
  assert.equal(bus.readPort(0xffff, 4), 0xffff_ffee);
  bus.writePort(0xfffe, 4, 0x04030201);
  assert.deepEqual(last.calls, ["read 0:0 1", "write 0:0 1 2"]);
  assert.deepEqual(first.calls, []);
});

Deno.test("`readMemory()` and `writeMemory()` reach a device above 4 GiB", () => {
  const low = new Recorder(1);
  const high = new Recorder(0x20);
  const bus = busOf([low, mmio(0xd000_0000, 0x1000)], [high, mmio(0x40_0000_0000, 0x200), 1]);
  assert.equal(bus.readMemory(0x40_0000_0004, 4), 0x27262524);
  bus.writeMemory(0xd000_0ffc, 4, 0xffff_ffff);
  assert.deepEqual(high.calls, ["read 1:4 4"]);
  assert.deepEqual(low.calls, ["write 0:4092 4 ffffffff"]);
});

Deno.test("memory that nobody claims, in part or whole, reads as all ones", () => {
  const device = new Recorder(1);
  const bus = busOf([device, mmio(0xd000_0000, 0x1000)]);
  for (const address of [0xcfff_fffe, 0xd000_0ffe, 0xe000_0000]) {
    assert.equal(bus.readMemory(address, 4), 0xffff_ffff);
    bus.writeMemory(address, 4, 1);
  }
  assert.deepEqual(device.calls, []);
});

Deno.test("the mutex is held during an access, and free after one that failed", () => {
  const device = new Recorder(0);
  const bus = busOf([device, pio(0, 1)], [device, mmio(0, 8)]);
  device.fails = true;
  for (let i = 0; i < 2; i++) {
    assert.throws(() => bus.readPort(0, 1), /a device failed/);
    assert.throws(() => bus.writePort(0, 1, 1), /a device failed/);
    assert.throws(() => bus.readMemory(0, 1), /a device failed/);
    assert.throws(() => bus.writeMemory(0, 1, 1), /a device failed/);
  }
  assert.deepEqual([...mutexes], [0, 0, 0, 0]);
  let held = 0;
  device.fails = false;
  device.read = () => held = mutexes[0];
  bus.readPort(0, 1);
  assert.notEqual(held, 0);
  assert.equal(mutexes[0], 0);
});

Deno.test("`checkOverlap()` names both ranges when they share an address", () => {
  const a: AddressRange = { space: "pio", base: 0x3f8, size: 8, name: "serial" };
  const b: AddressRange = { space: "pio", base: 0x3ff, size: 1, name: "debugcon" };
  const message = "Device range 'debugcon' at 0x3ff overlaps 'serial' at 0x3f8";
  assert.throws(() => checkOverlap([a, b]), { message });
  assert.throws(() => checkOverlap([b, a]), { message });
  assert.throws(() => checkOverlap([a, a]), /overlaps/);
});

Deno.test("`checkOverlap()` finds a range inside of one that began long before", () => {
  const long: AddressRange = { space: "mmio", base: 0x1000, size: 0x1000, name: "long" };
  const first: AddressRange = { space: "mmio", base: 0x1100, size: 1, name: "first" };
  const second: AddressRange = { space: "mmio", base: 0x1800, size: 1, name: "second" };
  assert.throws(() => checkOverlap([long, second]), /'second' at 0x1800 overlaps 'long'/);
  assert.throws(() => checkOverlap([first, long, second]), /'first' at 0x1100 overlaps 'long'/);
});

Deno.test("`checkOverlap()` accepts neighbours, and equal addresses in different spaces", () => {
  checkOverlap([pio(0, 8), pio(8, 8), mmio(0, 8), mmio(8, 1), pio(16, 1)]);
  checkOverlap([]);
});

Deno.test("each of many ranges is found, and what lies between two is nobody's", () => {
  const devices = Array.from({ length: 40 }, (_, i) => new Recorder(i));
  // Every third range has the next one right behind it.
  const base = (i: number) => 0xfeb0_0000 + 0x400 * i + (i % 3 === 0 ? 0x200 : 0);
  const shuffled = devices.map((_, i) => (i * 17) % devices.length);
  const bus = busOf(...shuffled.map((i): [Device, AddressRange] => [
    devices[i],
    mmio(base(i), 0x200),
  ]));
  devices.forEach((device, i) => {
    assert.equal(bus.readMemory(base(i), 1), i);
    assert.equal(bus.readMemory(base(i) + 0x1ff, 1), (i + 0x1ff) & 0xff);
    assert.deepEqual(device.calls.splice(0), ["read 0:0 1", "read 0:511 1"]);
  });
  const claimed = new Set(devices.map((_, i) => base(i)));
  for (let address = base(0) - 0x200; address < base(39) + 0x400; address += 0x200) {
    if (!claimed.has(address)) assert.equal(bus.readMemory(address, 4), 0xffff_ffff);
  }
  assert.deepEqual(devices.flatMap(({ calls }) => calls), []);
});

Deno.test("more than 255 ranges of ports are told apart", () => {
  const devices = Array.from({ length: 300 }, (_, i) => new Recorder(i & 0xff));
  const bus = busOf(...devices.map((device, i): [Device, AddressRange] => [device, pio(2 * i, 1)]));
  devices.forEach((device, i) => {
    bus.writePort(2 * i, 1, 1);
    assert.deepEqual(device.calls, ["write 0:0 1 1"]);
  });
});

/** Devices with ranges, some of which move, and the buses of two threads over them. */
function movingBuses(...ranges: PlacedRange[]) {
  const devices = ranges.map((_, i) => new Recorder(0x10 * (i + 1)));
  const bases = RangeBases.allocate(ranges.length);
  const claims = ranges.map((range, mutex): Claim => ({
    ...range,
    device: devices[mutex],
    range: 0,
    mutex,
  }));
  const thread = () => new Bus(claims, mutexes, new RangeBases(bases));
  return { mover: new RangeBases(bases), buses: [thread(), thread()] };
}

const moving = (space: "pio" | "mmio", size: number, slot: number): PlacedRange => ({
  space,
  size,
  slot,
  name: `moving ${slot}`,
});

Deno.test("a range that moves is found by all threads where it is, and nowhere else", () => {
  const { mover, buses } = movingBuses(moving("mmio", 0x1000, 0), moving("pio", 8, 1));
  const memory = (address: number) => buses.map((bus) => bus.readMemory(address, 1));
  const ports = (port: number) => buses.map((bus) => bus.readPort(port, 1));
  assert.deepEqual([memory(0xc000_0000), ports(0xc000)], [[0xff, 0xff], [0xff, 0xff]]);
  mover.move(0, 0xc000_0000);
  mover.move(1, 0xc000);
  assert.deepEqual([memory(0xc000_0000), ports(0xc000)], [[0x10, 0x10], [0x20, 0x20]]);
  mover.move(0, 0x80_0000_0000);
  mover.move(1, 0);
  assert.deepEqual([memory(0xc000_0000), ports(0xc000)], [[0xff, 0xff], [0xff, 0xff]]);
  assert.deepEqual([memory(0x80_0000_0001), ports(7)], [[0x11, 0x11], [0x27, 0x27]]);
  mover.move(0, undefined);
  mover.move(1, undefined);
  assert.deepEqual([memory(0x80_0000_0001), ports(7)], [[0xff, 0xff], [0xff, 0xff]]);
});

Deno.test("a range that moves onto another is off until it is clear of it", () => {
  const { mover, buses: [bus] } = movingBuses(
    moving("mmio", 0x1000, 0),
    moving("mmio", 0x1000, 1),
    mmio(0xd000_0000, 0x100),
  );
  const at = (address: number) => bus.readMemory(address, 1);
  mover.move(1, 0xd000_0080);
  assert.deepEqual([at(0xd000_0000), at(0xd000_0080), at(0xd000_0100)], [0x30, 0xb0, 0xff]);
  mover.move(1, 0xc000_0800);
  assert.equal(at(0xc000_0800), 0x20);
  // The order of the devices decides, not that of the moves: a successor sees the same.
  mover.move(0, 0xc000_0000);
  assert.deepEqual([at(0xc000_0000), at(0xc000_0800), at(0xc000_1000)], [0x10, 0x10, 0xff]);
  mover.move(0, 0xc000_0800 - 0x1000);
  assert.deepEqual([at(0xbfff_f800), at(0xc000_0800)], [0x10, 0x20]);
});

Deno.test("a range that moves to where it does not fit is off", () => {
  const { mover, buses: [bus] } = movingBuses(moving("pio", 8, 0), moving("mmio", 0x1000, 1));
  for (const [slot, base] of [[0, 0xfff9], [0, 0x1_0000], [0, -1], [0, 2 ** 62], [1, 2 ** 53]]) {
    mover.move(slot, base);
    assert.equal(bus.readPort(0xfffb, 4), 0xffff_ffff);
    assert.equal(bus.readMemory(2 ** 53, 1), 0xff);
  }
  mover.move(0, 0xfff8);
  assert.equal(bus.readPort(0xfff8, 1), 0x10);
});
