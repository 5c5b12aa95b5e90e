/**
 * Debian's kernel as it is, on the software CPU: it finds ports of the root bus and a device behind one, and
 * its driver of the slots takes a disk and a network card that come while it runs, and gives the disk up.
 */
import assert from "node:assert/strict";
import { stockLinux } from "../guests/stock_linux.ts";
import { parseBlockdev } from "../../vmm/options/blockdev.ts";
import { addDevice, removeDevice } from "../../vmm/view/hotplug.ts";
import { TestVm, until } from "./harness.ts";

/** What a test looks at comes on the console, and the last thing is to power off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for module in $(cat /m/order); do insmod /m/$module; done
for function in /sys/bus/pci/devices/*; do
  echo "function \${function##*/} $(cat $function/vendor) $(cat $function/device)"
done
for slot in /sys/bus/pci/slots/*; do
  echo "slot \${slot##*/} $(cat $slot/address) power $(cat $slot/power)"
done
echo $(head -c 100 /dev/hwrng | wc -c) random bytes
echo STOCK UP
while [ ! -b /dev/vda ] || [ ! -e /sys/class/net/eth0 ]; do sleep 0.1; done
echo "disk $(head -c 11 /dev/vda)"
echo from the guest | dd of=/dev/vda bs=512 seek=1 conv=sync 2>/dev/null; sync
echo "card $(cat /sys/class/net/eth0/address)"
echo STOCK PLUGGED
while [ -b /dev/vda ]; do sleep 0.1; done
echo STOCK UNPLUGGED
while [ ! -b /dev/vda ]; do sleep 0.1; done
echo "again $(head -c 11 /dev/vda)"
cat /proc/interrupts
echo STOCK DONE
poweroff -f
`;
const MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng"];
const MIB = 1 << 20;

const linux = await stockLinux({ init: INIT, modules: MODULES });
if (typeof linux === "string") console.warn(`SKIPPED: Debian's kernel: ${linux}`);

Deno.test({
  name: "Debian's kernel has devices behind ports, that come and go while it runs",
  ignore: typeof linux === "string",
  fn: async () => {
    const image = await Deno.makeTempFile({ prefix: "denovo-hotplug-" });
    try {
      await Deno.writeFile(image, new TextEncoder().encode("plugged in\n".padEnd(MIB, "x")));
      const port = (id: string, slot: number) => ({
        driver: "pcie-root-port",
        id,
        properties: { slot },
      });
      await using test = await TestVm.start({
        ...linux as Exclude<typeof linux, string>,
        accelerators: ["tcg"],
        append: "console=ttyS0 quiet cryptomgr.notests",
        memory: 256 * MIB,
        debugExit: false,
        machine: { pcie: true },
        blockdevs: parseBlockdev({ driver: "file", "node-name": "disk", filename: image }),
        devices: [
          ...[port("rp0", 1), port("rp1", 2), port("rp2", 3)],
          { driver: "virtio-rng-pci", properties: { bus: "rp0" } },
        ],
      });
      await test.printed("STOCK UP\n");
      const disk = { driver: "virtio-blk-pci", id: "d", properties: { drive: "disk", bus: "rp1" } };
      addDevice(test.vm, disk);
      const mac = "52:54:00:0a:0b:0c";
      addDevice(test.vm, { driver: "virtio-net-pci", id: "n", properties: { mac, bus: "rp2" } });
      await test.printed("STOCK PLUGGED\n");
      const deleted = () => test.events.filter(({ name }) => name === "DEVICE_DELETED");
      removeDevice(test.vm, "d");
      await test.printed("STOCK UNPLUGGED\n");
      await until(() => deleted().length === 2, () => "the disk to be taken out");
      assert.deepEqual(deleted().map(({ data }) => data), [
        { path: "/machine/peripheral/d/virtio-backend" },
        { device: "d", path: "/machine/peripheral/d" },
      ]);
      addDevice(test.vm, disk);
      await test.printed("STOCK DONE\n");
      assert.equal(await test.ended(), 0);
      for (
        const line of [
          "function 0000:00:01.0 0x1b36 0x000c",
          "function 0000:00:03.0 0x1b36 0x000c",
          "function 0000:01:00.0 0x1af4 0x1044",
          "slot 1 0000:01:00 power 1",
          "slot 2 0000:02:00 power 0",
          "100 random bytes",
          "disk plugged in",
          `card ${mac}`,
          "again plugged in",
          " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +virtio0-input",
          " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +virtio\\d-req.0",
          " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +PCIe PME, pciehp",
        ]
      ) assert.match(test.text, new RegExp(`^${line}`, "m"));
      assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic|ACPI.*Error/);
      const written = (await Deno.readFile(image)).subarray(512, 1024);
      assert.equal(new TextDecoder().decode(written).replace(/\0+$/, ""), "from the guest\n");
    } finally {
      await Deno.remove(image);
    }
  },
});
