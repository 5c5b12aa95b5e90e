/**
 * Debian's stock kernel with a file system on a disk, through live updates on the software CPU. Unless
 * DENOVO_DEBIAN is set the test is skipped, as it takes minutes.
 */
import assert from "node:assert/strict";
import { type StockLinux, stockLinux } from "../guests/stock_linux.ts";
import { run } from "../lab/host.ts";
import { patience } from "../patience.ts";
import { kvmTest, Laboratory, until } from "./program.ts";
import { Chain, FifoConsole, modes } from "./updates.ts";

/** Process 1: writes until somebody types a line, and powers off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for module in $(cat /m/order); do insmod /m/$module; done
tries=0; while [ ! -b /dev/vda ] && [ $tries -lt 600 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 /dev/vda /mnt && echo DISK UP
(read line < /dev/console; touch /stop) &
n=0
while [ ! -e /stop ]; do n=$((n+1)); echo $n >> /mnt/log; sync; echo "<$n>"; done
umount /mnt && echo "WROTE $n"
poweroff -f
`;

const linux = Deno.env.get("DENOVO_DEBIAN") === undefined
  ? "DENOVO_DEBIAN is not set"
  : await stockLinux({ init: INIT, modules: ["virtio_mmio", "virtio_blk", "ext4"] });
if (typeof linux === "string") console.warn(`SKIPPED: Debian is not updated: ${linux}`);

/** Half a minute where nothing else runs. */
const BOOT_PATIENCE_MS = patience(400_000);
const ROUNDS = 3;

kvmTest(
  "Debian's kernel writes to ext4 through updates of each mode, and no line is lost or there twice",
  async () => {
    await using lab = await Laboratory.open();
    const { kernel, initrd } = linux as StockLinux;
    const image = lab.path("disk.img");
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, 64 << 20);
    await run(["mkfs.ext4", "-q", image]);
    using console = await FifoConsole.open(lab.path("console"));
    const options = [
      ...["-kernel", kernel, "-initrd", initrd, "-m", "256"],
      ...["-append", "console=ttyS0 loglevel=4"],
      ...["-drive", `file=${image},format=raw,if=virtio,cache=none`],
    ];
    const special = { options, serial: console.serial, accel: "tcg" } as const;
    const chain = await Chain.start(lab, special);
    const lines = () => console.text.match(/^<\d+>$/gm)?.length ?? 0;
    const writes = () => {
      assert.equal(chain.vmm.child.poll(), undefined, console.text);
      return lines() > 2;
    };
    await until(writes, () => `lines in ${console.text}`, BOOT_PATIENCE_MS);
    assert.match(console.text, /^DISK UP$/m);
    for (let round = 0; round < ROUNDS; round++) {
      for (const mode of modes) {
        const before = lines();
        await chain.update(mode);
        await until(() => lines() > before + 2, () => `lines after ${chain.updates} updates`);
      }
    }
    await console.type("stop\n");
    await chain.vmm.ended();
    const wrote = Number(/^WROTE (\d+)$/m.exec(console.text)?.[1]);
    assert.equal(lines(), wrote);
    await run(["e2fsck", "-fn", image]);
    const numbers = Array.from({ length: wrote }, (_, i) => `${i + 1}\n`).join("");
    assert.equal(await run(["debugfs", "-R", "cat /log", image]), numbers);
  },
  typeof linux === "string",
);
