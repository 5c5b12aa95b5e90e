/**
 * The human monitor on a UNIX socket: QEMU 11.1.3's dialogue, typed as a person does.
 */
import assert from "node:assert/strict";
import { testAccelerator } from "../needs_kvm.ts";
import { kvmTest, Program, TestFolder, TextConnection } from "./session.ts";

const dialogue: [line: string, text: string | RegExp][] = [
  ["info status", "VM status: paused (prelaunch)\n"],
  ["cont", ""],
  ["info status", "VM status: running\n"],
  ["info name", "vm\n"],
  ["info uuid", "00000000-0000-0000-0000-000000000000\n"],
  ["info kvm", `kvm support: ${testAccelerator === "kvm" ? "enabled" : "disabled"}\n`],
  ["info cpus", /^\* CPU #0: thread_id=\d+ model=\S+\n$/],
  ["info memory_size_summary", "base memory: 67108864\nplugged memory: 0\n"],
  ["info migrate", ""],
  ["info nosuch", "unknown command: 'info nosuch'\n"],
  ["nosuch", "unknown command: 'nosuch'\n"],
  ["stop", ""],
  ["info status", "VM status: paused\n"],
  ["stop", ""],
  ["cont", ""],
  ["cont", ""],
  ["system_wakeup", "Error: Unable to wake up: guest is not in suspended state\n"],
  ["system_reset", ""],
  ["system_powerdown", ""],
  ["cpu 0", ""],
  ["cpu 5", "invalid CPU index\n"],
  ["print 1+2", "0x3\n"],
  ["sum 0 16", /^\d{5}\n$/],
  ["device_add nope", "Error: 'nope' is not a valid device model name\n"],
  ["chardev-remove nope", "Error: Chardev 'nope' not found\n"],
  ["getfd x", "Error: No file descriptor supplied via SCM_RIGHTS\n"],
  [
    "quit now",
    'quit|q: extraneous characters at the end of line\nTry "help quit" for more information\n',
  ],
];

kvmTest("the human monitor answers on a UNIX socket as QEMU's does", async () => {
  using folder = new TestFolder();
  const path = folder.file("hmp");
  await using vmm = new Program(
    ...["-kernel", folder.guest("demo"), "-m", "64", "-serial", "null", "-S", "-name", "vm"],
    ...["-chardev", `socket,id=m,path=${path},server=on,wait=off`],
    ...["-mon", "chardev=m,mode=readline"],
  );
  using monitor = await TextConnection.to(path);
  assert.match(
    await monitor.take("(qemu) "),
    /^Denovo \d+\.\d+\.\d+ monitor - type 'help' for more information\r\n\(qemu\) $/,
  );
  for (const [line, expected] of dialogue) {
    await monitor.send(`${line}\n`);
    // The echo redraws the line for each key; after it comes the answer, then the next prompt.
    const raw = await monitor.take("\r\n(qemu) ");
    const answer = raw.slice(raw.indexOf("\r\n") + 2, -"(qemu) ".length).replaceAll("\r", "");
    if (typeof expected === "string") assert.equal(answer, expected, line);
    else assert.match(answer, expected, line);
  }
  await monitor.send("quit\n");
  await monitor.end();
  assert.equal(await vmm.ended(), 0);
});
