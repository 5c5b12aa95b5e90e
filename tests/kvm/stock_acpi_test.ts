/**
 * Debian's kernel as it is, on the software CPU: it finds the machine by ACPI alone, virtio-mmio with an
 * interrupt of the second I/O APIC too, sleeps in S3, hears the power button, and powers off.
 */
import assert from "node:assert/strict";
import { stockLinux } from "../guests/stock_linux.ts";
import { TestVm } from "./harness.ts";

const linux = await stockLinux();
if (typeof linux === "string") console.warn(`SKIPPED: Debian's kernel: ${linux}`);

Deno.test({
  name: "Debian's kernel finds the machine by ACPI, sleeps, wakes, and powers off at the button",
  ignore: typeof linux === "string",
  fn: async () => {
    await using test = await TestVm.start({
      ...linux as Exclude<typeof linux, string>,
      accelerators: ["tcg"],
      // Its self-tests of ciphers take most of a minute here.
      append: "console=ttyS0 quiet cryptomgr.notests",
      memory: 256 << 20,
      debugExit: false,
      devices: [{ driver: "virtio-rng-device", properties: {} }],
    });
    await test.printed("STOCK UP\n");
    await test.reaches("suspended");
    for (const line of ["9-edge +ACPI:Ged", "4-edge +ttyS0", "1-edge +i8042", "23-edge +virtio0"]) {
      assert.match(test.text, new RegExp(`^ *\\d+: +\\d+ +IO-APIC +${line}$`, "m"));
    }
    test.vm.wakeup();
    await test.printed("STOCK AWAKE\n");
    await test.printed("100 random bytes\n");
    await test.printed("STOCK WAITS\n");
    test.vm.powerdown();
    // struct input_event: 16 bytes of time, EV_KEY, KEY_POWER (116), 1 for pressed.
    await test.printed("pressed ");
    assert.equal(await test.ended(), 0);
    assert.match(test.text, /pressed [\da-f]{32}0100740001000000\n/);
    assert.deepEqual(
      test.eventNames,
      ["RESUME", "SUSPEND", "WAKEUP", "POWERDOWN", "SHUTDOWN"],
    );
    assert.doesNotMatch(test.text, /BUG: (?!soft lockup)|Oops|Kernel panic|ACPI.*Error/);
  },
});
