/** Virtio devices with a driver in the guest: rings of both kinds, and every way to malform them. */
import assert from "node:assert/strict";
import { O, openFile, readFd, writeFd } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { deviceTree } from "../../vmm/view/machine_tree.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest, TestVm, until } from "./harness.ts";

const rng = (properties = {}) => [{ driver: "virtio-rng-device", properties }];

/** By the guest's word for it. */
const interrupts = {
  "": { irq: 47, machine: {} },
  "one-ioapic": { irq: 23, machine: { ioapic2: false } },
  isa: { irq: 12, machine: { acpi: false } },
};

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  // How many there are in tests/guests/c/virtio_rng.c.
  const ways = packed ? 10 : 14;

  kvmTest(`a guest that malforms a ${name} ring in ${ways} ways resets and goes on`, async () => {
    const devices = rng({ packed });
    await using test = await TestVm.start({ program: "virtio_rng", append: "broken", devices });
    assert.equal(await test.ended(), 1);
    assert.equal(test.text, `rng at irq 47\nbroken ok ${ways}\n`);
  });

  for (const eventIndex of [false, true]) {
    for (const [word, { irq, machine }] of Object.entries(interrupts)) {
      const how = `event index: ${eventIndex}, interrupt ${irq}`;
      kvmTest(`the entropy device works by a ${name} ring, ${how}`, async () => {
        await using test = await TestVm.start({
          program: "virtio_rng",
          append: word,
          devices: rng({ packed, event_idx: eventIndex }),
          machine,
        });
        await test.printed(`rng at irq ${irq}\n`);
        await test.grown(layout.counter, 100);
        // The I/O thread stands still with the vCPUs, and goes on with them.
        for (let stop = 0; stop < 3; stop++) {
          await test.assertStandsStill([layout.counter]);
          test.vm.cont();
          await test.grown(layout.counter);
        }
        test.vm.reset();
        await test.printed("rng at irq", 2);
        await test.grown(layout.counter);
        test.assertUnharmed();
      });
    }
  }
}

kvmTest("devices have the last transports, the first one the very last", async () => {
  const devices = [...rng(), ...rng()];
  await using test = await TestVm.create({ program: "virtio_rng", devices });
  const { devices: set } = test.vm.machine;
  const bases = set.devices.flatMap(({ id, type }) =>
    type.bus === "virtio-bus" ? set.ranges().get(id)!.map(({ base }) => base) : []
  );
  assert.deepEqual(bases, [0xfeb0_2e00, 0xfeb0_2c00]);
});

kvmTest(
  "`info qtree` shows all transports, with devices and ports behind their buses",
  async () => {
    await using test = await TestVm.create({
      program: "virtio_rng",
      devices: [
        ...rng(),
        { driver: "virtio-serial-device", id: "vs", properties: {} },
        { driver: "virtserialport", id: "agent", properties: { name: "a" } },
      ],
    });
    const { devices: all } = deviceTree(test.vm.machine);
    const transports = all.filter(({ driver }) => driver === "virtio-mmio");
    assert.equal(transports.length, 24);
    const buses = transports.map(({ buses }) => buses![0]);
    assert.deepEqual(buses.slice(0, 3).map(({ name, devices }) => [name, devices.length]), [
      ["virtio-mmio-bus.23", 1],
      ["virtio-mmio-bus.22", 1],
      ["virtio-mmio-bus.21", 0],
    ]);
    const [[entropy], [serial]] = buses.map(({ devices }) => devices);
    assert.deepEqual(entropy.properties.map(([name]) => name), [
      "indirect_desc",
      "event_idx",
      "packed",
      "queue_reset",
      "period",
    ]);
    const [bus] = serial.buses!;
    assert.deepEqual([bus.name, bus.devices.map(({ id }) => id)], ["vs.0", ["agent"]]);
  },
);

kvmTest("the entropy device reads the file that it is given, when there is something", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-rng-" });
  try {
    const filename = `${folder}/fifo`;
    await new Deno.Command("mkfifo", { args: [filename] }).output();
    using fifo = openFile(filename, O.RDWR | O.NONBLOCK);
    await using test = await TestVm.start({
      program: "virtio_rng",
      rngs: [{ qomType: "rng-random", id: "r", filename }],
      devices: rng({ rng: "r" }),
    });
    await test.printed("rng at irq 47\n");
    assert.equal(test.word(layout.counter), 0, "nothing can have come yet");
    assert.equal(writeFd(fifo.fd, new Uint8Array(40_000)), 40_000);
    await test.grown(layout.counter, 0);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

kvmTest("a file of random numbers that is not there is named", async () => {
  const rngs = [{ qomType: "rng-random", id: "r", filename: "/nowhere/random" }] as const;
  await assert.rejects(TestVm.create({ program: "virtio_rng", rngs, devices: rng({ rng: "r" }) }), {
    message: "Could not open '/nowhere/random': No such file or directory",
  });
});

kvmTest("a ninth virtio device finds no transport where there are eight", async () => {
  const devices = Array.from({ length: 9 }, () => rng()).flat();
  const machine = { acpi: false };
  await assert.rejects(TestVm.create({ program: "virtio_rng", devices, machine }), {
    message: "No 'virtio-bus' bus found for device 'virtio-rng-device'",
  });
});

kvmTest("a machine without such devices has no I/O thread", async () => {
  await using test = await TestVm.start({ program: "hello" });
  assert.equal(test.vm.machine.threads.length, 1);
  await using other = await TestVm.start({ program: "hello", devices: rng() });
  await until(() => other.vm.machine.threads[1].threadId !== 0, () => "the I/O thread");
  assert.equal(await other.ended(), 0x21);
});

kvmTest("a port that a guest opens, and has open no more, is told of by its id", async () => {
  await using test = await TestVm.start({
    program: "virtio_serial",
    chardevs: [{ backend: "null", id: "first" }, { backend: "null", id: "port" }],
    devices: [
      { driver: "virtio-serial-device", properties: {} },
      { driver: "virtconsole", properties: { chardev: "first" } },
      {
        ...{ driver: "virtserialport", id: "agent" },
        properties: { chardev: "port", name: "org.qemu.guest_agent.0" },
      },
    ],
  });
  const told = () => test.events.filter(({ name }) => name === "VSERPORT_CHANGE");
  const data = (count: number) => told().slice(0, count).map((event) => event.data);
  await until(() => told().length > 0, () => "the port to be opened");
  assert.deepEqual(data(1), [{ id: "agent", open: true }]);
  test.vm.reset("guest-reset");
  await until(() => told().length > 2, () => "the port to be opened again");
  assert.deepEqual(data(3), [true, false, true].map((open) => ({ id: "agent", open })));
  test.assertUnharmed();
});

for (const packed of [false, true]) {
  kvmTest(`a console works without control messages, packed: ${packed}`, async () => {
    const [inside, outside] = socketPair("stream", { nonblocking: true });
    using _ = outside;
    await using test = await TestVm.start({
      program: "virtio_serial",
      append: "single",
      chardevs: [{ backend: "fd", id: "port", fd: inside.fd }],
      devices: [
        { driver: "virtio-serial-device", properties: { packed } },
        { driver: "virtconsole", properties: { chardev: "port" } },
      ],
    });
    inside.release();
    await test.printed("serial\n");
    const text = "to and fro ".repeat(100);
    let rest = new TextEncoder().encode(text);
    let back = "";
    const buffer = new Uint8Array(4096);
    await until(() => {
      rest = rest.subarray(Math.max(0, writeFd(outside.fd, rest)));
      const n = readFd(outside.fd, buffer);
      if (n > 0) back += new TextDecoder().decode(buffer.subarray(0, n));
      return back.length >= text.length;
    }, () => `the echo, of which there is ${JSON.stringify(back)}`);
    assert.equal(back, text);
    test.assertUnharmed();
  });
}
