/**
 * A distribution's kernel as it is, with an initial RAM disk that prints `STOCK UP`, the interrupts
 * so far and `STOCK DONE`, and resets: `vmlinuz` and `initrd.gz` in the folder that
 * DENOVO_STOCK_LINUX names. The lab has them. A KVM that interprets kernel mode cannot run it.
 */
import assert from "node:assert/strict";
import { kvmTest, TestVm } from "./harness.ts";

const folder = Deno.env.get("DENOVO_STOCK_LINUX");
if (folder === undefined) {
  console.warn("SKIPPED: a stock kernel: DENOVO_STOCK_LINUX names none, the lab has one");
}

kvmTest(
  "a stock kernel finds no tables, takes its interrupts from the 8259, and reaches user space",
  async () => {
    await using test = await TestVm.start({
      kernel: `${folder}/vmlinuz`,
      initrd: `${folder}/initrd.gz`,
      append: "console=ttyS0",
      memory: 256 << 20,
      noReboot: true,
    });
    await test.printed("STOCK DONE");
    const interrupts = (name: string) =>
      Number(new RegExp(`^ *\\d+: +(\\d+) +XT-PIC +${name}$`, "m").exec(test.text)?.[1]);
    assert.ok(interrupts("timer") > 100, test.text);
    // What user space prints leaves by the UART's interrupt.
    assert.ok(interrupts("ttyS0") > 0, test.text);
    assert.equal(await test.ended(), 0);
    assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic/);
  },
  folder === undefined,
);
