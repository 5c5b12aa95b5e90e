import assert from "node:assert/strict";
import type { DeviceRequest } from "../../vmm/bus/device_set.ts";
import { plugPorts } from "../../vmm/machine/virtio_serial.ts";

const bus = (id: string, properties = {}): DeviceRequest => ({
  type: "virtio-serial-device",
  id,
  properties,
});
const console = (properties = {}): DeviceRequest => ({ type: "virtconsole", id: "c", properties });
const port = (properties = {}): DeviceRequest => ({ type: "virtserialport", id: "p", properties });

function plugged(...requests: DeviceRequest[]): (string | undefined)[] {
  return plugPorts(requests).filter(({ parent }) => parent !== undefined)
    .map(({ parent, properties }) => `${parent}:${properties.nr}`);
}

Deno.test("`plugPorts()` numbers ports as QEMU does: 0 is for a console", () => {
  assert.deepEqual(
    plugged(bus("a"), port(), console(), console(), port({ nr: 5 }), port(), port()),
    ["a:1", "a:0", "a:2", "a:5", "a:3", "a:4"],
  );
});

Deno.test("`plugPorts()` takes the bus that a port names, or the first one", () => {
  assert.deepEqual(
    plugged(bus("a"), bus("b"), port({ bus: "b.0" }), port(), console({ bus: "b.0" })),
    ["b:1", "a:1", "b:0"],
  );
});

const refused: Record<string, DeviceRequest[]> = {
  "No 'virtio-serial-bus' bus found for device 'virtconsole'": [console(), bus("a")],
  "Bus 'x.0' not found": [bus("a"), port({ bus: "x.0" })],
  "virtio-serial-bus: A port already exists at id 3": [bus("a"), port({ nr: 3 }), port({ nr: 3 })],
  "virtio-serial-bus: A port already exists by name n": [
    bus("a"),
    port({ name: "n" }),
    port({ name: "n" }),
  ],
  "virtio-serial-bus: Out-of-range port id specified, max. allowed: 30": [
    bus("a"),
    port({ nr: 31 }),
  ],
  "virtio-serial-bus: Maximum port limit for this device reached": [
    bus("a", { max_ports: 2 }),
    port(),
    port(),
  ],
  "maximum ports supported: 31, not 32": [bus("a", { max_ports: 32 })],
};

for (const [message, requests] of Object.entries(refused)) {
  Deno.test(`\`plugPorts()\` refuses: ${message}`, () => {
    assert.throws(() => plugPorts(requests), { message });
  });
}
