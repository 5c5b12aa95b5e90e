import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { planBoot } from "../../vmm/boot/boot.ts";
import type { ImageFile } from "../../vmm/boot/image.ts";
import { imageFile, MIB } from "./boot_images.ts";

/** The folder with the Linux test kernels; it is not a part of the project. */
const guests = Deno.env.get("DENOVO_LINUX") ??
  new URL("../../../shared/guests", import.meta.url).pathname;
const ignore = !existsSync(`${guests}/vmlinux-up.gz`);
if (ignore) {
  console.warn(`SKIPPED: no Linux kernels in ${guests}; name their folder by DENOVO_LINUX`);
}

function guest(name: string): ImageFile {
  const bytes = readFileSync(`${guests}/${name}`);
  return imageFile(name, name.endsWith(".gz") ? gunzipSync(bytes) : bytes);
}

Deno.test({
  name: "planBoot() plans Linux 6.12 by PVH with its initrd at the top of RAM",
  ignore,
  fn: () => {
    const { segments, starts } = planBoot({
      ramSize: 64 * MIB,
      apicIds: [0],
      kernel: guest("vmlinux-up.gz"),
      initrd: guest("initrd-tiny.cpio"),
      append: "console=ttyS0",
    });
    const start = starts.get(0)!;
    assert.equal(start.mode, "protected32");
    assert.equal(start.regs.rip, 0x20_0000n);
    const initrd = segments.at(-1)!;
    assert.equal(initrd.name, "initrd-tiny.cpio");
    assert.ok(initrd.gpa > 63 * MIB);
    assert.equal(segments.filter((s) => s.name.includes("ELF program header")).length, 3);
  },
});

Deno.test({
  name: "planBoot() plans Linux 6.12 for SMP by the 64-bit protocol at e_entry",
  ignore,
  fn: () => {
    const { segments, starts } = planBoot({
      ramSize: 256 * MIB,
      apicIds: [0, 1],
      kernel: guest("vmlinux-smp.gz"),
      boot: "linux64",
    });
    const start = starts.get(0)!;
    assert.equal(start.mode, "long64");
    assert.equal(start.regs.rip, 0x20_0123n);
    // Code, data, per-CPU data (whose virtual address is 0), and init with BSS.
    assert.deepEqual(
      segments.filter((s) => s.name.includes("ELF program header")).map((s) => s.gpa),
      [0x20_0000, 0xa0_0000, 0xab_7000, 0xad_a000],
    );
  },
});

Deno.test({
  name: "planBoot() refuses Linux 6.12 in a machine with too little RAM",
  ignore,
  fn: () => {
    assert.throws(
      () => planBoot({ ramSize: 8 * MIB, apicIds: [0], kernel: guest("vmlinux-up.gz") }),
      /vmlinux-up\.gz ELF program header segment 0 .* does not fit into RAM/,
    );
  },
});
