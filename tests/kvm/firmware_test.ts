/**
 * Firmware and a memory test of Debian's packages, as they are, on the software CPU: seabios,
 * u-boot-qemu and memtest86+, installed, or unpacked into the folder that DENOVO_PACKAGES names.
 */
import assert from "node:assert/strict";
import { TestVm, until, type VmOptions } from "./harness.ts";

const root = Deno.env.get("DENOVO_PACKAGES") ?? "";
const MIB = 2 ** 20;

/** Registers a test of a file; where it is not there the test is skipped, which is said. */
function fileTest(name: string, path: string, run: (file: string) => Promise<void>): void {
  const file = `${root}${path}`;
  let ignore = false;
  try {
    Deno.statSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    ignore = true;
    console.warn(`SKIPPED: ${name}: ${file} is not there`);
  }
  Deno.test({ name, ignore, fn: () => run(file) });
}

const start = (options: VmOptions) =>
  TestVm.start({
    accelerators: ["tcg"],
    cpu: { model: "denovo64", features: [] },
    noReboot: true,
    ...options,
  });

for (
  const [file, last] of [
    ["bios-256k.bin", "Unable to unlock ram - bridge not found"],
    ["bios-microvm.bin", "enter handle_19:"],
  ]
) {
  fileTest(
    `SeaBIOS, ${file}, comes as far as it can`,
    `/usr/share/seabios/${file}`,
    async (bios) => {
      const log = await Deno.makeTempFile({ prefix: "denovo-seabios-" });
      try {
        await using test = await start({
          bios,
          chardevs: [{ backend: "file", id: "log", path: log, append: false }],
          devices: [{ driver: "isa-debugcon", properties: { iobase: "0x402", chardev: "log" } }],
        });
        const text = () => Deno.readTextFileSync(log);
        await until(() => text().includes(last), () => `'${last}' in: ${text()}`);
        assert.match(text(), /^SeaBIOS \(version [^\n]+\)\n/);
        assert.equal(test.vm.runState, "running");
      } finally {
        await Deno.remove(log);
      }
    },
  );
}

fileTest(
  "u-boot comes to where it waits for a key",
  "/usr/lib/u-boot/qemu-x86/u-boot.rom",
  async (bios) => {
    await using test = await start({ bios, memory: 128 * MIB, machine: { rtc: true } });
    await test.printed("Hit any key to stop autoboot");
    assert.match(test.text, /^U-Boot \d+/m);
    assert.match(test.text, /^DRAM: {2}128 MiB$/m);
  },
);

fileTest("memtest86+ finds no error", "/boot/memtest86+x64.bin", async (kernel) => {
  const append = "console=ttyS0,115200";
  await using test = await start({ kernel, append, memory: 16 * MIB });
  // The first tests write and read addresses, and patterns in each way; they go round and round.
  await test.printed("#4  [");
  const errors = [...test.text.matchAll(/Errors: (\d+)/g)].map(([, count]) => count);
  assert.ok(errors.length > 0, "it shows its table");
  assert.deepEqual([...new Set(errors)], ["0"]);
});
