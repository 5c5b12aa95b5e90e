/** Disks with a driver in the guest that verifies numbered records. */
import assert from "node:assert/strict";
import { noLimits } from "../../devices/block/throttle.ts";
import { hasIoUring } from "../../ffi/io_uring.ts";
import { MachineView } from "../../vmm/view/machine_view.ts";
import { defaultConfig } from "../../vmm/config.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { parseBlockdev } from "../../vmm/options/blockdev.ts";
import { parseObject } from "../../vmm/options/object.ts";
import { layout } from "../guests/programs.ts";
import { parkAll } from "../../vmm/threads/machine_thread.ts";
import { kvmTest, sleep, TestVm, until } from "./harness.ts";

/** An image that is removed at the end of a scope. */
function makeImage(size = 1 << 20): { path: string } & Disposable {
  const path = Deno.makeTempFileSync();
  Deno.truncateSync(path, size);
  return { path, [Symbol.dispose]: () => Deno.removeSync(path) };
}

/** A disk on an image, with more parameters of its node, and more of its device. */
function diskOn(
  path: string,
  node: Record<string, unknown> = {},
  properties: MachineConfig["devices"][number]["properties"] = {},
): Pick<MachineConfig, "blockdevs" | "devices"> {
  const options = { driver: "file", "node-name": "disk", filename: path, ...node };
  return {
    blockdevs: parseBlockdev(options),
    devices: [{
      driver: "virtio-blk-device",
      id: "vd0",
      properties: { drive: "disk", ...properties },
    }],
  };
}

for (const packed of [false, true]) {
  for (const direct of [false, true]) {
    // By cache.direct, what is made at once and what goes by way of a buffer are side by side.
    const aio = direct && hasIoUring() ? "io_uring" : "threads";
    const name = `${packed ? "packed" : "split"} ring, cache.direct: ${direct}, aio: ${aio}`;
    kvmTest(`a guest keeps its records on a disk, ${name}`, async () => {
      using image = makeImage();
      const disk = diskOn(image.path, { cache: { direct }, aio }, { packed });
      await using test = await TestVm.start({ program: "virtio_blk", ...disk });
      await test.printed("2048 sectors\n");
      await test.grown(layout.counter, 300);
      for (let stop = 0; stop < 3; stop++) {
        await test.assertStandsStill([layout.counter]);
        test.vm.cont();
        await test.grown(layout.counter);
      }
      const [{ statistics: { counts }, qdev }] = new MachineView(test.vm).blockDevices;
      assert.equal(qdev, "vd0");
      for (const kind of ["rd", "wr", "flush"] as const) {
        assert.ok(counts[kind].operations > 10, kind);
        assert.deepEqual([counts[kind].failed, counts[kind].invalid], [0, 0]);
      }
      test.assertUnharmed();
    });
  }
}

kvmTest(
  "a machine without ACPI has its disk as well, and a reset begins anew with it",
  async () => {
    using image = makeImage();
    await using test = await TestVm.start({
      program: "virtio_blk",
      append: "isa",
      machine: { ...defaultConfig().machine, acpi: false },
      ...diskOn(image.path),
    });
    await test.printed("blk at irq 12, 2048 sectors\n");
    await test.grown(layout.counter);
    test.vm.reset();
    await test.printed("blk at irq 12", 2);
    await test.grown(layout.counter);
    test.assertUnharmed();
  },
);

kvmTest("a disk is served by the thread that it names, and by no other", async () => {
  using image = makeImage();
  const iothreads = ["a", "b"].map((id) => {
    const config = parseObject(`iothread,id=${id}`);
    assert.ok(config.qomType === "iothread");
    return config;
  });
  const disk = diskOn(image.path, {}, { iothread: "a" });
  await using test = await TestVm.start({ program: "virtio_blk", iothreads, ...disk });
  await test.grown(layout.counter);
  const { ioThreads } = test.vm.machine;
  assert.deepEqual(ioThreads.map(({ id }) => id), ["a", "b"]);
  const view = new MachineView(test.vm);
  const told = (await view.iothreads()).map(({ threadId }) => threadId);
  assert.deepEqual(told, ioThreads.map(({ threadId }) => threadId));
  assert.ok(!told.includes(0));
  const [a, b] = ioThreads;
  parkAll([b]);
  await test.grown(layout.counter);
  parkAll([a]);
  b.resume();
  const done = () => {
    const [{ statistics: { counts } }] = view.blockDevices;
    return ["rd", "wr", "flush"].map((kind) => counts[kind as "rd"].operations);
  };
  const before = done();
  await sleep(50);
  assert.deepEqual(done(), before);
  a.resume();
  await test.grown(layout.counter);
  test.assertUnharmed();
});

/** Makes a file system of so many bytes, or another size of one that is there. */
async function mountTmpfs(path: string, size: number, ...more: string[]): Promise<boolean> {
  const args = ["-t", "tmpfs", "-o", [`size=${size}`, ...more].join(), "denovo", path];
  try {
    return (await new Deno.Command("mount", { args, stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

async function unmount(path: string): Promise<void> {
  await new Deno.Command("umount", { args: ["-l", path] }).output();
}

/** Whether this user may mount a file system here. */
async function canMount(): Promise<boolean> {
  const path = Deno.makeTempDirSync();
  const can = await mountTmpfs(path, 4096);
  if (can) await unmount(path);
  Deno.removeSync(path);
  return can;
}

kvmTest(
  "a guest whose image has no room left is stopped, and goes on without a loss when there is room",
  async () => {
    const folder = Deno.makeTempDirSync();
    try {
      assert.ok(await mountTmpfs(folder, 8192));
      const path = `${folder}/disk.img`;
      Deno.writeFileSync(path, new Uint8Array());
      Deno.truncateSync(path, 1 << 20);
      await using test = await TestVm.start({ program: "virtio_blk", ...diskOn(path) });
      await test.reaches("io-error");
      const told = test.events.filter(({ name }) => name === "BLOCK_IO_ERROR");
      assert.deepEqual(told.map(({ data }) => data), [{
        ...{ "qom-path": "/machine/peripheral/vd0", device: "", "node-name": "disk" },
        ...{ operation: "write", action: "stop", nospace: true },
        reason: "No space left on device",
      }]);
      const view = new MachineView(test.vm);
      assert.equal(view.blockDevices[0].ioStatus, "nospace");
      // Still no room: it stops again.
      test.vm.cont();
      await until(
        () => test.events.filter(({ name }) => name === "STOP").length === 2,
        () => "the second stop",
      );
      await test.reaches("io-error");
      assert.ok(await mountTmpfs(folder, 1 << 20, "remount"));
      test.vm.cont();
      await test.grown(layout.counter, 200);
      assert.equal(view.blockDevices[0].ioStatus, "ok");
      test.assertUnharmed();
    } finally {
      await unmount(folder);
      Deno.removeSync(folder);
    }
  },
  !await canMount(),
);

/** How many reads and writes of the first disk have been made. */
function operationsOf(view: MachineView): number {
  const { rd, wr } = view.blockDevices[0].statistics.counts;
  return rd.operations + wr.operations;
}

kvmTest("a disk with limits waits, and goes on at once when they are lifted", async () => {
  using image = makeImage();
  await using test = await TestVm.start({ program: "virtio_blk", ...diskOn(image.path) });
  await test.grown(layout.counter);
  const view = new MachineView(test.vm);
  // A byte in a second: whoever has made a request waits for longer than anybody looks.
  const limit = { average: 1, max: 0, burstLength: 1 };
  view.blockSetIoThrottle({ id: "vd0" }, { ...noLimits, "bps-total": limit });
  const [{ throttle }] = view.blockDevices;
  assert.deepEqual(throttle, { group: "disk", limits: { ...noLimits, "bps-total": limit } });
  const operations = () => operationsOf(view);
  // One may be made, and one may have been on its way.
  const before = operations();
  await test.assertStandsStill([layout.counter]);
  test.vm.cont();
  const then = operations();
  assert.ok(then <= before + 2, `${then} after ${before}`);
  view.blockSetIoThrottle({ id: "vd0" }, noLimits);
  assert.equal(view.blockDevices[0].throttle, undefined);
  await test.grown(layout.counter, 100);
  test.assertUnharmed();
});

kvmTest("limits of a throttle group are read and set by qom-get and qom-set", async () => {
  using image = makeImage();
  const { devices, blockdevs } = diskOn(image.path, {}, { drive: "t" });
  const node = { driver: "throttle", "node-name": "t", "throttle-group": "tg", file: "disk" };
  await using test = await TestVm.start({
    program: "virtio_blk",
    throttleGroups: [{ qomType: "throttle-group", id: "tg", limits: noLimits }],
    blockdevs: [...blockdevs, ...parseBlockdev(node)],
    devices,
  });
  await test.grown(layout.counter);
  const view = new MachineView(test.vm);
  view.qomSet("/objects/tg", "limits", { "bps-total": 1 });
  assert.equal(view.qomGet("tg", "x-bps-total"), 1);
  const limits = view.qomGet("/objects/tg", "limits") as Record<string, number>;
  assert.deepEqual([limits["bps-total"], limits["bps-total-max-length"]], [1, 1]);
  // One request may be made, and one may have been on its way: then it waits.
  const operations = () => operationsOf(view);
  const before = operations();
  await test.assertStandsStill([layout.counter]);
  test.vm.cont();
  assert.ok(operations() <= before + 2, `${operations()} after ${before}`);
  // What is not said stays.
  view.qomSet("tg", "limits", { "bps-total": 0, "iops-size": 0 });
  await test.grown(layout.counter, 100);
  test.assertUnharmed();
  const failures: [() => unknown, string][] = [
    [() => view.qomSet("tg", "x-bps-total", 1), "Property cannot be set after initialization"],
    [() => view.qomSet("tg", "limits", 1), "Invalid parameter type for 'limits', expected: object"],
    [() => view.qomSet("tg", "limits", { bps: 1 }), "Parameter 'bps' is unexpected"],
    [
      () => view.qomSet("tg", "limits", { "bps-total": "1" }),
      "Invalid parameter type for 'bps-total', expected: integer",
    ],
    [
      () => view.qomSet("tg", "limits", { "bps-total": 1, "bps-read": 1 }),
      "bps/iops/max total values and read/write values cannot be used at the same time",
    ],
    [() => view.objectDel("tg"), "object 'tg' is in use, can not be deleted"],
    [
      () => view.objectAddOptions("throttle-group,id=tg"),
      "attempt to add duplicate property 'tg' to object (type 'container')",
    ],
  ];
  for (const [action, message] of failures) assert.throws(action, { message });
  assert.equal((view.qomGet("tg", "limits") as Record<string, number>)["bps-total"], 0);
  view.objectAddOptions("throttle-group,id=more,x-iops-total=3");
  view.blockdevAdd({
    ...{ driver: "throttle", "node-name": "u", "throttle-group": "more" },
    file: { driver: "null-co" },
  });
  assert.equal(view.qomGet("more", "x-iops-total"), 3);
  assert.throws(() => view.objectDel("more"), { message: /is in use/ });
  view.blockdevDel("u");
  view.objectDel("more");
  assert.throws(() => view.qomGet("more", "limits"), { message: "Device 'more' not found" });
});

kvmTest("a VM whose drive is in use, or cannot be opened, is not created", async () => {
  using image = makeImage();
  const disk = diskOn(image.path);
  await using test = await TestVm.start({ program: "virtio_blk", ...disk });
  await test.grown(layout.counter);
  await assert.rejects(() => TestVm.create({ program: "virtio_blk", ...disk }), {
    message: `Failed to get "write" lock\nIs another process using the image [${image.path}]?`,
  });
  await assert.rejects(() => TestVm.create({ program: "virtio_blk", ...diskOn("/nonexistent") }), {
    message: "Could not open '/nonexistent': No such file or directory",
  });
  const { devices } = diskOn("", {}, { "num-queues": 0 });
  const blockdevs = parseBlockdev({ driver: "null-co", "node-name": "disk" });
  await assert.rejects(() => TestVm.create({ program: "virtio_blk", devices, blockdevs }), {
    message: "num-queues property must be larger than 0",
  });
  await test.grown(layout.counter);
  test.assertUnharmed();
});
