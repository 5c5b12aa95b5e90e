/**
 * Boots Linux, if there is one: kernels and initial RAM disks that are no part of the project, in
 * the folder that DENOVO_LINUX names, or in `shared/guests` beside the project.
 */
import assert from "node:assert/strict";
import { kvmTest, sleep, TestVm, type VmOptions } from "./harness.ts";

const guests = Deno.env.get("DENOVO_LINUX") ??
  new URL("../../../shared/guests", import.meta.url).pathname;

/** Says why Linux cannot be booted, or undefined when it can. */
function whyNoLinux(): string | undefined {
  const files = ["vmlinux-up.gz", "vmlinux-smp.gz", "initrd-tiny.cpio", "initrd-klibc.cpio"];
  for (const file of files) {
    try {
      Deno.statSync(`${guests}/${file}`);
    } catch (error) {
      return `${guests}/${file}: ${(error as Error).message}`;
    }
  }
}

const noLinux = whyNoLinux();
if (noLinux !== undefined) console.warn(`SKIPPED: Linux is not booted: ${noLinux}`);

/** Boots a kernel, unpacked into a folder of its own, for the length of a test. */
async function withLinux(
  kernel: string,
  options: VmOptions,
  run: (test: TestVm) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denovo-linux-" });
  try {
    const packed = await Deno.open(`${guests}/${kernel}.gz`);
    const unpacked = packed.readable.pipeThrough(new DecompressionStream("gzip"));
    await Deno.writeFile(`${folder}/${kernel}`, unpacked);
    await using test = await TestVm.start({
      kernel: `${folder}/${kernel}`,
      append: "console=ttyS0 reboot=k panic=-1",
      memory: 128 << 20,
      // Where KVM interprets kernel mode it does not know CMPXCHG16B.
      cpu: { model: "host", features: [["cx16", false]] },
      noReboot: true,
      ...options,
    });
    await run(test);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function linuxTest(name: string, run: () => Promise<void>): void {
  kvmTest(name, run, noLinux !== undefined);
}

const boots: { kernel: string; cpus: number; xBoot: "pvh" | "linux64" }[] = [
  { kernel: "vmlinux-up", cpus: 1, xBoot: "pvh" },
  { kernel: "vmlinux-up", cpus: 1, xBoot: "linux64" },
  { kernel: "vmlinux-smp", cpus: 2, xBoot: "pvh" },
  { kernel: "vmlinux-smp", cpus: 2, xBoot: "linux64" },
];

for (const { kernel, cpus, xBoot } of boots) {
  linuxTest(`${kernel} boots by ${xBoot} with ${cpus} vCPUs, runs and resets`, async () => {
    const initrd = `${guests}/initrd-tiny.cpio`;
    await withLinux(kernel, { cpus, initrd, machine: { xBoot } }, async (test) => {
      await test.printed("TINY-INIT up");
      if (cpus > 1) assert.match(test.text, new RegExp(`Brought up 1 node, ${cpus} CPUs`));
      await test.printed("tick 1");
      test.vm.stop();
      await sleep(100);
      const before = test.text;
      await sleep(100);
      assert.equal(test.text, before);
      test.vm.cont();
      assert.equal(await test.ended(), 0);
      assert.match(test.text, /TICK-READY\n[^]*tick 4[^]*DONE/);
      assert.doesNotMatch(test.text, /BUG|Oops|Call Trace|soft lockup/);
      assert.deepEqual(test.events.at(-1)?.data, { guest: true, reason: "guest-reset" });
      assert.deepEqual(test.eventNames, ["RESUME", "STOP", "RESUME", "SHUTDOWN"]);
    });
  });
}

linuxTest("a shell on Linux takes what is typed and answers", async () => {
  await withLinux("vmlinux-up", { initrd: `${guests}/initrd-klibc.cpio` }, async (test) => {
    await test.printed("SHELL-READY\n# ");
    test.type("echo $((6*7))\n");
    await test.printed("\n42\n# ");
    // More than the UART's FIFO holds, so that it takes several interrupts.
    const long = "0123456789".repeat(20);
    test.type(`echo ${long}\n`);
    await test.printed(`\n${long}\n# `);
  });
});
