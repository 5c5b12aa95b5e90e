/** Who else works on a device's queues is stopped before the driver has one of them back. */
import assert from "node:assert/strict";
import type { Virtio } from "../../../devices/virtio/virtio.ts";
import { defineVirtioDevice } from "../../../devices/virtio/virtio_device.ts";
import { Feature, Status } from "../../../devices/virtio/virtio_state.ts";
import { struct, u32 } from "../../../ffi/struct.ts";
import { DESC } from "./drivers.ts";
import { PciRig } from "./pci_rig.ts";
import { bit, VirtioRig } from "./rig.ts";

/** What was called, and what the driver's status and first queue were then. */
const calls: string[] = [];

const note = (what: string, { parts: { state, queues } }: Virtio) =>
  calls.push(`${what}: status ${state.status}, queue ${queues[0].ready}`);

const device = defineVirtioDevice({
  name: "virtio-test-device",
  help: "Writes down what is called",
  deviceId: 4,
  version: 1,
  state: struct("test", { unused: u32 }),
  properties: {},
  features: () => 0n,
  queueSizes: () => [8],
  create: (_state, virtio) => ({
    handleQueue: () => virtio.queues[0].serve(() => 0),
    halt: () => note("halt", virtio),
    rest: () => note("rest", virtio),
  }),
});

const READY = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK;

function started(rig: VirtioRig): VirtioRig {
  rig.negotiate(bit(Feature.RING_RESET));
  rig.setUp(0);
  rig.start();
  calls.length = 0;
  return rig;
}

Deno.test("a device is halted before its driver's reset, and with its queues as they were", () => {
  const rig = started(new VirtioRig(device));
  rig.set(0x70, 0);
  assert.deepEqual(calls, [`halt: status ${READY}, queue 1`]);
});

Deno.test("a device is halted before a queue of it is switched off or reset", () => {
  for (const [register, value] of [[0x44, 0], [0xc0, 1]]) {
    const rig = started(new VirtioRig(device));
    rig.set(0x30, 0);
    rig.set(register, value);
    assert.deepEqual(calls, [`halt: status ${READY}, queue 1`]);
    assert.equal(rig.get(0x44), 0);
  }
});

Deno.test("a device is halted when its driver breaks a rule", () => {
  const rig = started(new VirtioRig(device));
  // The driver says that it has made more available than there are entries.
  rig.ram.data.setUint16(DESC - rig.ram.base + 0x3000 + 2, 100, true);
  rig.notify(0);
  assert.deepEqual(calls, [`halt: status ${READY}, queue 1`]);
  assert.equal(rig.get(0x70), READY | Status.NEEDS_RESET);
});

Deno.test("a function that is no master any more is halted", () => {
  const rig = new PciRig(device);
  started(rig);
  rig.configure(4, 2, 2);
  assert.deepEqual(calls, [`halt: status ${READY}, queue 1`]);
  rig.configure(4, 2, 2);
  assert.equal(calls.length, 1);
});

Deno.test("a device hears that the thread that works for it stands still", () => {
  const rig = started(new VirtioRig(device));
  rig.device.rest!();
  assert.deepEqual(calls, [`rest: status ${READY}, queue 1`]);
});
