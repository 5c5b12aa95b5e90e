/**
 * Debian's kernel as it is, on the software CPU: it finds a disk, a network card and entropy by PCI, puts
 * their memories above 4 GiB, and has them interrupt by messages.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { stockLinux } from "../guests/stock_linux.ts";
import { parseBlockdev } from "../../vmm/options/blockdev.ts";
import { TestVm } from "./harness.ts";

/** What a test looks at comes on the console, and the last thing is to power off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for module in $(cat /m/order); do insmod /m/$module; done
tries=0; while [ ! -b /dev/vda ] && [ $tries -lt 600 ]; do sleep 0.1; tries=$((tries+1)); done
dmesg | grep -E 'ECAM|MMCONFIG|PCI host bridge'
for function in /sys/bus/pci/devices/*; do
  echo "function \${function##*/} $(cat $function/vendor) $(cat $function/device)"
done
cat /proc/iomem | grep -E 'PCI Bus|0000:00'
echo "disk $(head -c 1048576 /dev/vda | md5sum | cut -d ' ' -f 1)"
echo from the guest | dd of=/dev/vda bs=512 seek=2048 conv=sync 2>/dev/null; sync
echo "card $(cat /sys/class/net/eth0/address)"
echo $(head -c 100 /dev/hwrng | wc -c) random bytes
cat /proc/interrupts
echo STOCK DONE
poweroff -f
`;
const MODULES = ["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng"];
const MIB = 1 << 20;

/** The sum of a file's beginning, as md5sum prints it. */
async function md5(path: string, length: number): Promise<string> {
  const bytes = (await Deno.readFile(path)).subarray(0, length);
  return createHash("md5").update(bytes).digest("hex");
}

const linux = await stockLinux({ init: INIT, modules: MODULES });
if (typeof linux === "string") console.warn(`SKIPPED: Debian's kernel: ${linux}`);

Deno.test({
  name: "Debian's kernel has a disk, a card and entropy by PCI, with interrupts by messages",
  ignore: typeof linux === "string",
  fn: async () => {
    const image = await Deno.makeTempFile({ prefix: "denovo-pci-" });
    try {
      const content = crypto.getRandomValues(new Uint8Array(65536));
      for (let i = 0; i < 2 * MIB / content.length; i++) {
        await Deno.writeFile(image, content, { append: true });
      }
      await using test = await TestVm.start({
        ...linux as Exclude<typeof linux, string>,
        accelerators: ["tcg"],
        append: "console=ttyS0 quiet cryptomgr.notests",
        memory: 256 * MIB,
        debugExit: false,
        machine: { pcie: true },
        blockdevs: parseBlockdev({ driver: "file", "node-name": "disk", filename: image }),
        devices: [
          { driver: "virtio-blk-pci", properties: { drive: "disk" } },
          { driver: "virtio-net-pci", properties: { mac: "52:54:00:0a:0b:0c" } },
          { driver: "virtio-rng-pci", properties: { addr: "1f" } },
        ],
      });
      await test.printed("STOCK DONE\n");
      assert.equal(await test.ended(), 0);
      for (
        const line of [
          "(MMCONFIG at|ECAM) \\[mem 0xe0000000-0xefffffff\\] reserved (in|as) ACPI motherboard resources?",
          "function 0000:00:00.0 0x1b36 0x0008",
          "function 0000:00:01.0 0x1af4 0x1042",
          "function 0000:00:02.0 0x1af4 0x1041",
          "function 0000:00:1f.0 0x1af4 0x1044",
          "c0000000-dfffffff : PCI Bus 0000:00",
          " +[cd][0-9a-f]{7}-[cd][0-9a-f]{7} : 0000:00:01.0",
          "c000000000-ffffffffff : PCI Bus 0000:00",
          " +[c-f][0-9a-f]{9}-[c-f][0-9a-f]{9} : 0000:00:01.0",
          `disk ${await md5(image, MIB)}`,
          "card 52:54:00:0a:0b:0c",
          "100 random bytes",
          " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +virtio0-req.0",
          " *\\d+: +[1-9]\\d* +PCI-MSI[^ ]* +\\d+-edge +virtio2-input",
          " *\\d+: +\\d+ +PCI-MSI[^ ]* +\\d+-edge +virtio1-output.0",
        ]
      ) assert.match(test.text, new RegExp(`^(\\[.*\\] PCI: )?${line}$`, "m"));
      assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic|ACPI.*Error/);
      const written = (await Deno.readFile(image)).subarray(MIB, MIB + 512);
      assert.equal(new TextDecoder().decode(written).replace(/\0+$/, ""), "from the guest\n");
    } finally {
      await Deno.remove(image);
    }
  },
});
