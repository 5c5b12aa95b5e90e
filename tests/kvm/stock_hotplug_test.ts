/** Debian's kernel as it is, on the software CPU: it finds ports of the root bus and devices behind them. */
import assert from "node:assert/strict";
import { stockLinux } from "../guests/stock_linux.ts";
import { TestVm } from "./harness.ts";

/** What a test looks at comes on the console, and the last thing is to power off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for module in $(cat /m/order); do insmod /m/$module; done
dmesg | grep -E '_OSC|pciehp|pci_bus|pci 0000:0|pcieport'
for function in /sys/bus/pci/devices/*; do
  echo "function \${function##*/} $(cat $function/vendor) $(cat $function/device)"
done
for slot in /sys/bus/pci/slots/*; do
  echo "slot \${slot##*/} $(cat $slot/address) power $(cat $slot/power)"
done
echo $(head -c 100 /dev/hwrng | wc -c) random bytes
cat /proc/interrupts
echo STOCK DONE
poweroff -f
`;
const MODULES = ["virtio_pci", "virtio_blk", "virtio_rng"];
const MIB = 1 << 20;

const linux = await stockLinux({ init: INIT, modules: MODULES });
if (typeof linux === "string") console.warn(`SKIPPED: Debian's kernel: ${linux}`);

Deno.test({
  name: "Debian's kernel has entropy behind a port, and its driver takes the ports' slots",
  ignore: typeof linux === "string",
  fn: async () => {
    await using test = await TestVm.start({
      ...linux as Exclude<typeof linux, string>,
      accelerators: ["tcg"],
      append: "console=ttyS0 quiet cryptomgr.notests",
      memory: 256 * MIB,
      debugExit: false,
      machine: { pcie: true },
      devices: [
        { driver: "pcie-root-port", id: "rp0", properties: { slot: 1, chassis: 1 } },
        { driver: "pcie-root-port", id: "rp1", properties: { slot: 2 } },
        { driver: "virtio-rng-pci", properties: { bus: "rp0" } },
      ],
    });
    await test.printed("STOCK DONE\n");
    assert.equal(await test.ended(), 0);
    for (
      const line of [
        "function 0000:00:01.0 0x1b36 0x000c",
        "function 0000:00:02.0 0x1b36 0x000c",
        "function 0000:01:00.0 0x1af4 0x1044",
        "slot 1 0000:01:00 power 1",
        "slot 2 0000:02:00 power 0",
        "100 random bytes",
        " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +virtio0-input",
        " *\\d+: +\\d+ +PCI-MSI[^ ]* +\\d+-edge +PCIe PME, pciehp",
      ]
    ) assert.match(test.text, new RegExp(`^${line}`, "m"));
    assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic|ACPI.*Error/);
  },
});
