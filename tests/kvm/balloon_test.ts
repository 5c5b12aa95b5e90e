/** A memory balloon with a driver in the guest. */
import assert from "node:assert/strict";
import { fileStatus } from "../../ffi/fd.ts";
import type { JsonObject } from "../../vmm/monitor/json_value.ts";
import { MachineView } from "../../vmm/view/machine_view.ts";
import { layout } from "../guests/programs.ts";
import { kvmTest, TestVm, until, type VmOptions } from "./harness.ts";

const MIB = 1 << 20;
const RAM = 64 * MIB;
/** How much of it the guest can give back. */
const POOL = 16 * MIB;
const PATH = "/machine/peripheral/b";

function balloon(append: string, properties = {}): VmOptions {
  const devices = [{ driver: "virtio-balloon-device", id: "b", properties }];
  return { program: "virtio_balloon", append, devices };
}

/** Asks the guest to have so much memory, and waits until it has `wanted`. */
async function resize(test: TestVm, bytes: number, wanted = bytes): Promise<MachineView> {
  const view = new MachineView(test.vm);
  view.setBalloon(bytes);
  await until(
    () => test.text.includes("FAIL") || view.guestMemory === wanted,
    () => `${wanted} bytes; there are ${view.guestMemory}`,
  );
  test.assertUnharmed();
  return view;
}

/** How much of the guest's RAM the host has. */
function allocated({ vm: { machine } }: TestVm): number {
  return fileStatus(machine.memory.ram.fd!.fd).allocated;
}

/** What the guest tells, once it has so many pages left. */
async function statistics(view: MachineView, left: number): Promise<Statistics> {
  const get = () => view.qomGet(PATH, "guest-stats") as JsonObject as unknown as Statistics;
  await until(
    () => get().stats["stat-free-memory"] === BigInt(left),
    () => `${left} pages; there are ${get().stats["stat-free-memory"]}`,
  );
  return get();
}

interface Statistics {
  readonly stats: Readonly<Record<string, bigint>>;
  readonly "last-update": number;
}

for (const packed of [false, true]) {
  for (const word of ["", "one-ioapic", "isa"]) {
    kvmTest(`memory goes to the host and comes back, packed: ${packed}, ${word}`, async () => {
      const machine = { acpi: word !== "isa", ioapic2: word === "" };
      await using test = await TestVm.start({ ...balloon(word, { packed }), machine });
      await test.printed("balloon at irq ");
      const before = allocated(test);
      const view = await resize(test, RAM - 10 * MIB);
      // What else the guest uses for the first time meanwhile is little.
      assert.ok(before - allocated(test) > 9 * MIB, `${before}, ${allocated(test)}`);
      await resize(test, RAM - 3 * MIB);
      // More than it can do it does not do.
      await resize(test, 1, RAM - POOL);
      assert.ok(before - allocated(test) > POOL - MIB, `${before}, ${allocated(test)}`);
      await resize(test, 2 * RAM, RAM);
      assert.ok(before - allocated(test) < MIB, `${before}, ${allocated(test)}`);
      // The I/O thread stands still with the vCPUs, and goes on with them.
      await test.assertStandsStill([layout.counter]);
      view.setBalloon(RAM - MIB);
      test.vm.cont();
      await resize(test, RAM - MIB);
      // A guest that starts anew has all of it, and is asked the same.
      test.vm.reset();
      await test.printed("balloon at irq ", 2);
      await resize(test, RAM - MIB);
    });
  }
}

kvmTest("memory that only this process has is given back", async () => {
  const machine = { auxRamShare: false };
  await using test = await TestVm.start({ ...balloon(""), machine });
  await test.printed("balloon at irq ");
  await resize(test, RAM - POOL);
  await resize(test, RAM);
});

kvmTest("what changes is told, the last of it in any case, and once", async () => {
  await using test = await TestVm.start(balloon(""));
  await test.printed("balloon at irq ");
  const told = () => test.events.filter(({ name }) => name === "BALLOON_CHANGE");
  const start = performance.now();
  await resize(test, RAM - POOL);
  await until(
    () => told().at(-1)?.data?.actual === RAM - POOL,
    () => `the event, after ${JSON.stringify(told())}`,
  );
  // There is one at first, and then one in a second at most, of 64 batches.
  const most = 2 + (performance.now() - start) / 1000;
  assert.ok(told().length <= most, `${told().length} events`);
});

kvmTest("statistics are those that the guest tells, when it is asked", async () => {
  await using test = await TestVm.start(balloon(""));
  await test.printed("balloon at irq ");
  const view = new MachineView(test.vm);
  const first = await statistics(view, POOL / 4096);
  assert.equal(first.stats["stat-swap-in"], 0n);
  assert.equal(first.stats["stat-total-memory"], 2n ** 64n - 1n);
  assert.ok(first["last-update"] > 1.7e9);
  await resize(test, RAM - MIB);
  assert.equal(view.qomGet(PATH, "guest-stats-polling-interval"), 0);
  view.qomSetText("b", "guest-stats-polling-interval", "1");
  assert.equal(view.qomGet("b", "guest-stats-polling-interval"), 1);
  const next = await statistics(view, (POOL - MIB) / 4096);
  assert.ok(next.stats["stat-swap-in"] > 0n, "the guest was asked");
  await resize(test, RAM);
  await statistics(view, POOL / 4096);
  test.assertUnharmed();
});

kvmTest("objects and properties that there are not, or cannot be set, are named", async () => {
  await using test = await TestVm.create(balloon("", { "deflate-on-oom": true }));
  const view = new MachineView(test.vm);
  assert.equal(view.qomGet(PATH, "type"), "virtio-balloon-device");
  assert.equal(view.qomGet(PATH, "deflate-on-oom"), true);
  const interval = "guest-stats-polling-interval";
  const failures: [() => unknown, string][] = [
    [
      () => view.qomGet("/machine/peripheral/c", "type"),
      "Device '/machine/peripheral/c' not found",
    ],
    [() => view.qomGet("c", "type"), "Device 'c' not found"],
    [() => view.qomGet("b", "x"), "Property 'virtio-balloon-device.x' not found"],
    [() => view.qomGet("b", "irq"), "Property 'virtio-balloon-device.irq' not found"],
    [() => view.qomSet("b", "x", 1), "Property 'virtio-balloon-device.x' not found"],
    [
      () => view.qomSet("b", "guest-stats", 1),
      "Property 'virtio-balloon-device.guest-stats' is not writable",
    ],
    [
      () => view.qomSet("b", "packed", true),
      "Attempt to set property 'packed' on device 'b' (type 'virtio-balloon-device') after it was realized",
    ],
    [() => view.qomSet("b", interval, -1), "timer value must be greater than zero"],
    [() => view.qomSet("b", interval, 2 ** 32), "timer value is too big"],
    [
      () => view.qomSet("b", interval, "1"),
      `Invalid parameter type for '${interval}', expected: integer`,
    ],
    [() => view.qomSetText("b", interval, "x"), `Parameter '${interval}' expects integer`],
  ];
  for (const [action, message] of failures) assert.throws(action, { message });
});

kvmTest("a device without an id has a path by its number", async () => {
  const devices = [{ driver: "virtio-balloon-device", properties: {} }];
  await using test = await TestVm.create({ ...balloon(""), devices, debugExit: false });
  const view = new MachineView(test.vm);
  assert.equal(view.qomGet("/machine/peripheral-anon/device[0]", "type"), "virtio-balloon-device");
  assert.throws(() => view.qomGet("/machine/peripheral-anon/device[1]", "type"), {
    message: "Device '/machine/peripheral-anon/device[1]' not found",
  });
});

kvmTest("without a balloon, and with two, it is said so", async () => {
  await using test = await TestVm.create({ program: "hello" });
  const view = new MachineView(test.vm);
  const none = { message: "No balloon device has been activated", errorClass: "DeviceNotActive" };
  assert.throws(() => view.guestMemory, none);
  assert.throws(() => view.setBalloon(1), none);
  const { devices } = balloon("");
  const two = [...devices!, { driver: "virtio-balloon-device", properties: {} }];
  await assert.rejects(TestVm.create({ ...balloon(""), devices: two }), {
    message: "Only one balloon device is supported",
  });
});

kvmTest("pages that the guest reports as free are empty when it uses them again", async () => {
  await using test = await TestVm.start(balloon("report", { "free-page-reporting": true }));
  await test.printed("balloon at irq ");
  await test.grown(layout.counter, 2000);
  await resize(test, RAM - MIB);
  test.assertUnharmed();
});

kvmTest("code that was given back is not executed any more", async () => {
  await using test = await TestVm.start(balloon("code"));
  assert.equal(await test.ended(), 1);
  assert.equal(test.text, "executed what was given back 0 times\n");
});
