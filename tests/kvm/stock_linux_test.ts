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
  "without ACPI a stock kernel takes its interrupts from the 8259, and reaches user space",
  async () => {
    await using test = await start(false);
    await test.printed("STOCK DONE");
    assert.ok(interrupts(test, "XT-PIC +timer") > 100, test.text);
    // What user space prints leaves by the UART's interrupt.
    assert.ok(interrupts(test, "XT-PIC +ttyS0") > 0, test.text);
    await endsWell(test);
  },
  folder === undefined,
);

kvmTest("a stock kernel finds the machine by ACPI, and reaches user space", async () => {
  await using test = await start(true);
  await test.printed("STOCK DONE");
  assert.equal(interrupts(test, "IO-APIC +9-edge +ACPI:Ged"), 0, test.text);
  assert.ok(interrupts(test, "IO-APIC +4-edge +ttyS0") > 0, test.text);
  await endsWell(test);
}, folder === undefined);

/**
 * Starts it with or without ACPI; its reset ends the VM.
 *
 * Without ACPI it leaves the local APIC alone. It would disable it for a moment, which masks LVT0 (SDM 3A,
 * "Local APIC State After It Has Been Software Disabled"), and KVM forgets an interrupt that comes from the
 * 8259 meanwhile: it looks for one when the 8259's output rises, and not when LVT0 is unmasked. On a slow
 * processor the timer's always does.
 */
function start(acpi: boolean): Promise<TestVm> {
  return TestVm.start({
    kernel: `${folder}/vmlinuz`,
    initrd: `${folder}/initrd.gz`,
    append: `console=ttyS0 quiet cryptomgr.notests${acpi ? "" : " nolapic"}`,
    memory: 256 << 20,
    noReboot: true,
    machine: { acpi },
  });
}

/** How often an interrupt has come, by the rest of its line in /proc/interrupts. */
function interrupts({ text }: TestVm, line: string): number {
  return Number(new RegExp(`^ *\\d+: +(\\d+) +${line}$`, "m").exec(text)?.[1]);
}

async function endsWell(test: TestVm): Promise<void> {
  assert.equal(await test.ended(), 0);
  assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic/);
}
