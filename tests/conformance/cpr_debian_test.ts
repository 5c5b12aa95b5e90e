/**
 * Debian's stock kernel with a file system on a disk, through live updates on the software CPU. Its
 * package is fetched into the folder that DENOVO_DEBIAN names, unless it is there; without the variable
 * the test is skipped, as it takes minutes.
 */
import assert from "node:assert/strict";
import { patience } from "../patience.ts";
import { makeDebian, missingTools, run } from "./debian.ts";
import { kvmTest, Laboratory, until } from "./program.ts";
import { Chain, FifoConsole, modes } from "./updates.ts";

const folder = Deno.env.get("DENOVO_DEBIAN");
const missing = folder === undefined ? [] : await missingTools();
if (folder === undefined) {
  console.warn("SKIPPED: Debian is not updated: DENOVO_DEBIAN names no folder for its kernel");
} else if (missing.length > 0) {
  console.warn(`SKIPPED: Debian is not updated: there is no ${missing.join(", ")}`);
}

/** Half a minute where nothing else runs. */
const BOOT_PATIENCE_MS = patience(400_000);
const ROUNDS = 3;

kvmTest(
  "Debian's kernel writes to ext4 through updates of each mode, and no line is lost or there twice",
  async () => {
    await using lab = await Laboratory.open();
    const { kernel, initrd } = await makeDebian(folder!, lab.path("debian"));
    const image = lab.path("disk.img");
    await Deno.writeFile(image, new Uint8Array());
    await Deno.truncate(image, 64 << 20);
    await run("mkfs.ext4", ["-q", image]);
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
    await run("e2fsck", ["-f", "-n", image]);
    const numbers = Array.from({ length: wrote }, (_, i) => `${i + 1}\n`).join("");
    assert.equal(await run("debugfs", ["-R", "cat /log", image]), numbers);
  },
  folder === undefined || missing.length > 0,
);
