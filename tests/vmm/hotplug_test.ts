/** What cannot be plugged in or out, in QEMU's words; and what can without asking the guest. */
import assert from "node:assert/strict";
import { defaultConfig, type DeviceConfig } from "../../vmm/config.ts";
import { parseBlockdev } from "../../vmm/options/blockdev.ts";
import { addDevice, removeDevice } from "../../vmm/view/hotplug.ts";
import { VirtualMachine } from "../../vmm/virtual_machine.ts";

const device = (driver: string, id: string, properties: DeviceConfig["properties"] = {}) => ({
  ...{ driver, id, properties },
});
const entropy = (id: string, bus?: string) =>
  device("virtio-rng-pci", id, bus === undefined ? {} : { bus });

/** A VM with three ports, whose guest has not been started. */
async function makeVm(filename: string): Promise<VirtualMachine> {
  const { machine } = defaultConfig();
  return await VirtualMachine.create({
    accelerators: ["tcg"],
    memory: 16 << 20,
    machine: { ...machine, pcie: true },
    blockdevs: parseBlockdev({ driver: "file", "node-name": "disk", filename }),
    devices: [
      device("pcie-root-port", "p", { slot: 1 }),
      device("pcie-root-port", "q", { slot: 2 }),
      device("pcie-root-port", "fixed", { slot: 3, hotplug: false }),
      entropy("there", "fixed"),
      device("virtio-balloon-pci", "balloon", { bus: "q" }),
    ],
    startPaused: true,
  }, { incoming: true });
}

Deno.test("what cannot be plugged in or out is refused, and leaves nothing behind", async () => {
  const file = await Deno.makeTempFile({ prefix: "denovo-hotplug-" });
  try {
    await Deno.truncate(file, 1 << 20);
    await using vm = await makeVm(file);
    const ids = () => vm.machine.devices.devices.map(({ id }) => id).join();
    const before = ids();
    const disk = (properties: DeviceConfig["properties"]) =>
      device("virtio-blk-pci", "d", { bus: "p", ...properties });
    const refused: [DeviceConfig, string][] = [
      [entropy("p", "p"), "Duplicate device ID 'p'"],
      [entropy("r", "nowhere"), "Bus 'nowhere' not found"],
      [
        entropy("r", "q"),
        "PCI: no slot/function available for virtio-rng-pci, all in use or reserved",
      ],
      [
        device("virtio-rng-pci", "r", { bus: "p", addr: "2" }),
        "PCI: slot 2 is not valid for virtio-rng-pci, parent device only allows plugging into slot 0.",
      ],
      [
        device("virtio-serial-pci", "r", { bus: "p" }),
        "Device 'virtio-serial-pci' does not support hotplugging",
      ],
      [device("isa-debugcon", "r"), "Bus 'isa.0' does not support hotplugging"],
      [
        device("virtio-rng-device", "r"),
        "Bus 'virtio-mmio-bus.23' does not support hotplugging",
      ],
      [disk({}), "drive property not set"],
      [disk({ drive: "none" }), "Property 'virtio-blk-pci.drive' can't find value 'none'"],
      [
        device("virtio-net-pci", "n", { bus: "p", netdev: "none" }),
        "Property 'virtio-net-pci.netdev' can't find value 'none'",
      ],
      [device("virtio-rng-pci", "r", { bus: "p", rng: "none" }), "Device 'none' not found"],
    ];
    for (const [one, message] of refused) {
      assert.throws(() => addDevice(vm, one), { message });
      assert.equal(ids(), before, message);
    }
    addDevice(vm, disk({ drive: "disk" }));
    const [again, other] = ["d2", "d3"].map((id) =>
      device("virtio-blk-pci", id, { drive: "disk", ...id === "d2" && { bus: "p" } })
    );
    assert.throws(() => addDevice(vm, again), { message: refused[2][1].replace("rng", "blk") });
    assert.throws(() => addDevice(vm, other), {
      message: "Drive 'disk' is already in use by another device",
    });
    const kept: [string, string][] = [
      ["nothing", "Device 'nothing' not found"],
      ["there", "Hot-unplug failed: unsupported by the port device 'fixed'"],
      ["balloon", "Device 'virtio-balloon-pci' does not support hotplugging"],
      ["p", "Bus 'pcie.0' does not support hotplugging"],
    ];
    for (const [id, message] of kept) assert.throws(() => removeDevice(vm, id), { message });
    assert.equal(ids(), `${before},d`);
    // The guest has not come: nobody has to be asked, and the disk is another device's then.
    removeDevice(vm, "d");
    assert.equal(ids(), before);
    addDevice(vm, disk({ drive: "disk" }));
    assert.deepEqual(vm.hotplug.changes, {
      plugged: [{ driver: "virtio-blk-pci", id: "d", bus: "p", drive: "disk" }],
      unplugged: [],
    });
    vm.hotplug.isFrozen = () => true;
    assert.throws(() => removeDevice(vm, "d"), {
      message: "device_del not allowed while migrating",
    });
    assert.throws(() => addDevice(vm, entropy("r")), {
      message: "device_add not allowed while migrating",
    });
  } finally {
    await Deno.remove(file);
  }
});
