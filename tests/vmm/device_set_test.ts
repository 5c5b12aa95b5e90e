/** What the machine gives a device: interrupts, timers, ranges that move, state by its properties. */
import assert from "node:assert/strict";
import { DeviceState } from "../../cpr/state/device_state.ts";
import {
  defineDevice,
  type Device,
  type DeviceContext,
  type DeviceType,
  type Properties,
} from "../../devices/device.ts";
import { deviceTypes } from "../../devices/registry.ts";
import { array, struct, u32, u64, u8 } from "../../ffi/struct.ts";
import { Reactor } from "../../ffi/reactor.ts";
import type { AcceleratorVm } from "../../vmm/accel/accelerator.ts";
import { type DeviceRequest, DeviceSet } from "../../vmm/bus/device_set.ts";
import { IOAPIC2_ID } from "../../vmm/machine/microvm.ts";
import { type DeviceNews, ThreadDevices } from "../../vmm/bus/thread_devices.ts";
import { controlBlockSize, ThreadControl } from "../../vmm/threads/control_block.ts";
import { patience } from "../patience.ts";

const tail = struct("tail", { value: u32 });

/** As many words as its property says, before a subsection. */
function layout({ words }: Properties) {
  const state = struct("gadget", { place: u64, words: array(u32, Number(words)), tail });
  return {
    version: 2,
    state,
    older: [{
      state: struct("gadget", { words: array(u8, Number(words)) }),
      upgrade: (older: object, newer: object) => {
        const to = (newer as ReturnType<typeof state.view>).words;
        [...(older as { words: Iterable<number> }).words].forEach((word, i) => to.put(i, word));
      },
      downgrade: () => false,
    }],
    subsections: [{
      field: "tail",
      version: 1,
      state: tail,
      needed: (view: object) => (view as ReturnType<typeof state.view>).tail.value !== 0,
    }],
  };
}

/** Contexts of the gadgets, in the order in which they were made. */
const contexts: DeviceContext[] = [];
/** What the gadgets were told. */
const calls: string[] = [];

/** A device without a character part: two interrupts, two timers, a range that it moves itself. */
const gadget: DeviceType = defineDevice({
  name: "gadget",
  help: "gadget",
  user: false,
  properties: {
    irq: { type: "uint8", default: 16, help: "first interrupt" },
    words: { type: "uint8", default: 2, help: "words of state" },
    base: { type: "uint32", default: 0xfeb0_0000, help: "address of the range that does not move" },
  },
  ...layout({ words: 2 }),
  layout,
  ranges: ({ base }) => [
    { space: "mmio", base: Number(base), size: 0x100, name: "gadget" },
    { space: "mmio", size: 0x100, name: "gadget-bar" },
  ],
  irqs: ({ irq }) => [Number(irq), 17],
  timers: 2,
  create(state, context): Device {
    contexts.push(context);
    return {
      read: (range, offset) => range === 0 ? state.words.at(offset) : 0xba,
      write: (_range, offset, _size, value) => {
        state.words.put(offset, value);
        state.place = BigInt(value);
        context.moveRange(1, value);
      },
      reset: () => {},
      timer: (index) => void calls.push(`timer ${index}`),
      restored: () => context.moveRange(1, Number(state.place)),
    };
  },
});
(deviceTypes as DeviceType[]).push(gadget);

/** Waits until the gadgets were told as often. */
async function called(times: number): Promise<void> {
  const end = performance.now() + patience(60_000);
  while (calls.length < times && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** A set of devices on chips that record what is driven. */
class Stage implements Disposable {
  readonly lines: string[] = [];
  readonly set: DeviceSet;
  readonly #reactor = new Reactor();
  readonly #control = new ThreadControl(new SharedArrayBuffer(controlBlockSize(1)), 1);

  constructor(...requests: Partial<DeviceRequest>[]) {
    contexts.length = calls.length = 0;
    const interrupts = {
      setLine: (gsi: number, level: boolean) => void this.lines.push(`${gsi} ${level}`),
      sendMsi: (address: number, data: number) => {
        this.lines.push(`0x${address.toString(16)} 0x${data.toString(16)}`);
      },
    };
    const vm = { interrupts, interruptsDescription: { accelerator: "kvm", vmFd: -1 } };
    this.set = new DeviceSet(
      requests.map((one, i) => ({ type: "gadget", id: `g${i}`, properties: {}, ...one })),
      vm as unknown as AcceleratorVm,
      [],
      -1,
      this.#control,
      this.#reactor,
      [20, 21],
    );
  }

  /** The devices as another thread has them. */
  thread(): ThreadDevices {
    const lines = {
      setLine: (gsi: number) => void this.lines.push(`other ${gsi}`),
      sendMsi: (address: number, data: number) => {
        this.lines.push(`other 0x${address.toString(16)} 0x${data.toString(16)}`);
      },
      ramWritten: () => {},
      connectDoorbell: () => {},
      disconnectDoorbell: () => {},
    };
    return new ThreadDevices(this.set.description, this.#control, lines);
  }

  [Symbol.dispose](): void {
    this.set.close();
    void this.#reactor.close();
  }
}

Deno.test("a device drives the interrupts that it declares, on the thread on which it is", () => {
  using stage = new Stage({});
  stage.thread();
  const [own, other] = contexts;
  own.interrupts[0].set(true);
  own.interrupts[1].set(true);
  own.interrupts[0].set(false);
  other.interrupts[1].set(false);
  assert.deepEqual(stage.lines, ["16 true", "17 true", "16 false", "other 17"]);
  assert.equal(own.interrupts.length, 2);
});

Deno.test("interrupts from 24 on go to the second I/O APIC, which sends messages on any thread", () => {
  using stage = new Stage(
    { properties: { irq: 30 } },
    { type: "ioapic", id: IOAPIC2_ID, properties: {} },
  );
  const thread = stage.thread();
  const [own, other] = contexts;
  own.interrupts[0].set(true);
  assert.deepEqual(stage.lines, []);
  const entry = 0x10 + 2 * (30 - 24);
  thread.bus.writeMemory(0xfec1_0000, 4, entry);
  thread.bus.writeMemory(0xfec1_0010, 4, 0x55);
  own.interrupts[0].set(true);
  other.interrupts[0].set(false);
  own.interrupts[1].set(true);
  assert.deepEqual(stage.lines, ["other 0xfee00000 0x55", "0xfee00000 0x55", "17 true"]);
});

Deno.test("a device that comes is on every thread, and is nowhere when it has gone", () => {
  using stage = new Stage();
  const place = { "config-base": 0xe000_8000, "ecam-base": 0xe000_0000, irq: 20 };
  const threads = [stage.thread()];
  const tell = (news: DeviceNews) => threads.forEach((thread) => thread.learn(news));
  const vendors = (address: number) => threads.map(({ bus }) => bus.readMemory(address, 2));
  tell(stage.set.plug({ type: "pcie-root-port", id: "p", properties: place }));
  threads.push(stage.thread());
  assert.deepEqual(vendors(0xe000_8000), [0x1b36, 0x1b36]);
  const { devices, bases } = stage.set.description;
  for (let round = 0; round < 100; round++) {
    const behind = { parent: "p", properties: { irq: 20 } };
    tell(stage.set.plug({ type: "virtio-rng-pci", id: `r${round}`, ...behind }));
    stage.set.with("p", (port) => port.reset());
    threads[0].bus.writeMemory(0xe000_8018, 4, 0x0003_0300);
    assert.deepEqual(vendors(0xe030_0000), [0x1af4, 0x1af4]);
    tell(stage.set.unplug(`r${round}`));
    assert.deepEqual(vendors(0xe030_0000), [0xffff, 0xffff]);
    threads[1].bus.writeMemory(0xe000_8018, 4, 0x0004_0400);
    assert.deepEqual(vendors(0xe040_0000), [0xffff, 0xffff]);
  }
  assert.deepEqual(stage.set.devices.map(({ id }) => id), ["p"]);
  assert.deepEqual(stage.set.description.devices, devices);
  assert.equal(stage.set.description.bases, bases);
  assert.deepEqual(stage.set.description.sharedLines.lines.get(20)!.ids, ["p", ""]);
});

Deno.test("devices for which there is no room leave nothing behind", () => {
  using stage = new Stage();
  const place = { "config-base": 0xe000_8000, "ecam-base": 0xe000_0000, irq: 20 };
  const port = (number: number) => ({
    ...{ type: "pcie-root-port", id: `p${number}` },
    properties: { ...place, "config-base": 0xe000_0000 + 0x8000 * (1 + number), irq: 20 + number },
  });
  for (const number of [0, 1]) stage.set.plug(port(number));
  const rng = (number: number) => ({
    ...{ type: "virtio-rng-pci", id: `r${number}`, parent: `p${number % 2}` },
    properties: { irq: 20 + number % 2 },
  });
  let fit = 0;
  const fill = () => {
    for (; fit < 1000; fit++) stage.set.plug(rng(fit));
  };
  const refusal = {
    message: /^The machine has no .* left for a device$|^An interrupt line cannot/,
  };
  assert.throws(fill, refusal);
  const countFiles = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const before = countFiles();
  for (let i = 0; i < 100; i++) assert.throws(() => stage.set.plug(rng(fit)), refusal);
  // Others may open and close some meanwhile; each of these has several.
  assert.ok(countFiles() < before + 50);
  assert.equal(stage.set.devices.length, 2 + fit);
  assert.equal(stage.set.description.devices.length, 2 + fit);
  // For one that goes there comes another.
  stage.set.unplug("r0");
  stage.set.plug({ ...rng(0), id: "another" });
  assert.throws(() => stage.set.plug(rng(fit)), refusal);
});

Deno.test("a device that comes shares its line with those that are there", () => {
  using stage = new Stage();
  const port = (slot: number) => ({ "config-base": 0xe000_0000 + slot * 0x8000, "ecam-base": 0 });
  const plug = (slot: number) =>
    stage.set.plug({
      type: "pcie-root-port",
      id: `p${slot}`,
      properties: { ...port(slot), irq: 20 },
    });
  for (const slot of [1, 2]) plug(slot);
  const { bus } = stage.thread();
  // A command of the slot's is completed, which interrupts.
  const press = (slot: number) => bus.writeMemory(0xe000_006c + slot * 0x8000, 2, 0x30);
  press(1);
  assert.deepEqual(stage.lines.splice(0), ["other 20"]);
  press(2);
  stage.set.unplug("p1");
  assert.deepEqual(stage.lines.splice(0), [], "the other one holds it");
  plug(3);
  stage.set.unplug("p2");
  assert.deepEqual(stage.lines, ["20 false"]);
});

Deno.test("a device without a chardev is given none", () => {
  using _stage = new Stage({});
  assert.equal(contexts[0].chardev, undefined);
});

Deno.test("each timer of a device comes by its number, whoever armed it", async () => {
  using stage = new Stage({});
  stage.thread();
  const [own, other] = contexts;
  assert.equal(own.timers.length, 2);
  other.timers[1].arm(own.monotonicNs());
  await called(1);
  own.timers[0].arm(own.monotonicNs() + 3_600_000_000_000n);
  other.timers[0].arm(1n);
  await called(2);
  assert.deepEqual(calls, ["timer 1", "timer 0"]);
});

Deno.test("the size of a device's state follows from its properties, that of its neighbour too", () => {
  using stage = new Stage({ properties: { words: 100 } }, { properties: { words: 1, base: 0 } });
  const sizes = stage.set.devices.map(({ state }) => state.length);
  assert.deepEqual(sizes, [8 + 400 + 8, 8 + 4 + 4]);
  const other = stage.thread();
  stage.set.with("g0", (device) => device.write(0, 99, 4, 0x1234));
  assert.equal(other.with("g0", (device) => device.read(0, 99, 4)), 0x1234);
  assert.equal(stage.set.with("g1", (device) => device.read(0, 0, 4)), 0);
});

Deno.test("state of older versions and subsections are read in the layout of the properties", () => {
  using stage = new Stage({ properties: { words: 5 } });
  const [device] = stage.set.devices;
  const state = new DeviceState(device);
  const section = (data: number[], version: number, name = "gadget") => ({
    name,
    id: "g0",
    version,
    data: Uint8Array.from(data),
  });
  state.fill(section([1, 2, 3, 4, 5], 1), undefined);
  stage.set.restore(device, state.bytes);
  assert.equal(stage.set.with("g0", (gadget) => gadget.read(0, 4, 4)), 5);
  assert.throws(() => state.fill(section([1, 2], 1), undefined), {
    message: "Section 'gadget' g0 has 2 bytes, expected 5",
  });
  assert.deepEqual(state.subsections(), []);
  device.state[8 + 5 * 4] = 7;
  state.save();
  assert.deepEqual(state.subsections().map(({ section }) => [section.name, ...section.data]), [
    ["gadget/tail", 7, 0, 0, 0],
  ]);
});

Deno.test("a range that a device moves is found by the other threads, and listed", () => {
  using stage = new Stage({}, {
    type: "pci-config",
    id: "ports",
  });
  const other = stage.thread();
  const listed = () => stage.set.ranges().get("g0")?.map(({ name, base }) => [name, base]);
  assert.deepEqual(listed(), [["gadget", 0xfeb0_0000]]);
  assert.equal(other.bus.readMemory(0xc000_0000, 1), 0xff);
  stage.set.with("g0", (device) => device.write(0, 0, 4, 0xc000_0000));
  assert.equal(other.bus.readMemory(0xc000_0000, 1), 0xba);
  assert.deepEqual(listed(), [["gadget", 0xfeb0_0000], ["gadget-bar", 0xc000_0000]]);
  assert.equal(stage.set.ranges().get("ports")?.length, 2);
  assert.throws(() => contexts[0].moveRange(0, 0), {
    message: "Range 'gadget' of 'g0' cannot move",
  });
});

Deno.test("a device's range is where it was after its state was loaded", () => {
  using before = new Stage({});
  before.set.with("g0", (device) => device.write(0, 1, 4, 0xc100_0000));
  const saved = before.set.devices[0].state.slice();
  using after = new Stage({});
  const bus = after.thread().bus;
  after.set.restore(after.set.devices[0], saved);
  after.set.restored();
  assert.equal(bus.readMemory(0xc100_0000, 1), 0xba);
});

Deno.test("two devices that claim one address are refused, but not for ranges that move", () => {
  using _apart = new Stage({}, { properties: { base: 0 } });
  assert.throws(
    () => new Stage({}, {}),
    /Device range 'gadget' at 0xfeb00000 overlaps 'gadget' at 0xfeb00000/,
  );
});
