/**
 * Debian's kernel as it is, on the software CPU: it finds the machine by ACPI alone, virtio-mmio with an
 * interrupt of the second I/O APIC too, entropy, a console and a port; it sleeps in S3, hears the power button, and powers off.
 */
import assert from "node:assert/strict";
import { type OwnedFd, readFd, writeFd } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import { stockLinux } from "../guests/stock_linux.ts";
import { TestVm } from "./harness.ts";

const AGENT = "org.qemu.guest_agent.0";

/** A character device's host end. */
class Peer implements Disposable {
  readonly inside: OwnedFd;
  readonly outside: OwnedFd;

  constructor() {
    [this.inside, this.outside] = socketPair("stream", { nonblocking: true });
  }

  /** What has come. */
  get text(): string {
    const buffer = new Uint8Array(4096);
    const n = readFd(this.outside.fd, buffer);
    return new TextDecoder().decode(buffer.subarray(0, Math.max(0, n)));
  }

  [Symbol.dispose](): void {
    this.outside.close();
  }
}

const linux = await stockLinux();
if (typeof linux === "string") console.warn(`SKIPPED: Debian's kernel: ${linux}`);

Deno.test({
  name: "Debian's kernel finds the machine by ACPI, sleeps, wakes, and powers off at the button",
  ignore: typeof linux === "string",
  fn: async () => {
    using port = new Peer();
    using console = new Peer();
    await using test = await TestVm.start({
      ...linux as Exclude<typeof linux, string>,
      accelerators: ["tcg"],
      // Its self-tests of ciphers take most of a minute here.
      append: "console=ttyS0 quiet cryptomgr.notests",
      memory: 256 << 20,
      debugExit: false,
      chardevs: [
        { backend: "fd", id: "port", fd: port.inside.fd },
        { backend: "fd", id: "hvc", fd: console.inside.fd },
      ],
      devices: [
        { driver: "virtio-rng-device", properties: {} },
        { driver: "virtio-serial-device", properties: {} },
        { driver: "virtconsole", properties: { chardev: "hvc" } },
        { driver: "virtserialport", properties: { chardev: "port", name: AGENT } },
      ],
    });
    for (const { inside } of [port, console]) inside.release();
    await test.printed("STOCK UP\n");
    await test.reaches("suspended");
    const lines = ["9-edge +ACPI:Ged", "4-edge +ttyS0", "1-edge +i8042"];
    for (const line of [...lines, "22-edge +virtio0", "23-edge +virtio1"]) {
      assert.match(test.text, new RegExp(`^ *\\d+: +\\d+ +IO-APIC +${line}$`, "m"));
    }
    test.vm.wakeup();
    await test.printed("STOCK AWAKE\n");
    await test.printed("100 random bytes\n");
    await test.printed(`port ${AGENT}\n`);
    writeFd(port.outside.fd, new TextEncoder().encode("to the agent\n"));
    await test.printed("STOCK WAITS\n");
    assert.equal(port.text, "TO THE AGENT\n");
    assert.equal(console.text.replaceAll("\r", ""), "console up\n");
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
