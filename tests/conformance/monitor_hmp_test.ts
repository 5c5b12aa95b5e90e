/**
 * HMP commands and what QEMU 11.1.3 prints for them, on a machine with the same data.
 */
import assert from "node:assert/strict";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { newSession } from "../../vmm/monitor/context.ts";
import { executeLine } from "../../vmm/monitor/hmp_line.ts";
import { FakeMachine } from "../vmm/monitor_fake_machine.ts";

const recording: [line: string, text: string][] = [
  ["info status", "VM status: running\n"],
  ["info uuid", "00000000-0000-0000-0000-000000000000\n"],
  ["info kvm", "kvm support: enabled\n"],
  ["info cpus", "* CPU #0: thread_id=3115 model=qemu64\n"],
  ["info chardev", "compat_monitor0: filename=unix:run/tr-old.qmp,server=on\n"],
  [
    "info memdev",
    "memory backend: ram0\n  size:  268435456\n  merge: true\n  dump: true\n  prealloc: false\n" +
    "  share: true\n  reserve: true\n  policy: default\n  host nodes: \n\n",
  ],
  [
    "info ramblock",
    "              Block Name    PSize              Offset               Used" +
    "              Total                HVA  RO\n" +
    "                    ram0    4 KiB  0x0000000000000000 0x0000000010000000" +
    " 0x0000000010000000 0x00007f4c0ffff000  rw\n",
  ],
  ["info memory_size_summary", "base memory: 268435456\nplugged memory: 0\n"],
  ["info nosuch", "unknown command: 'info nosuch'\n"],
  ["nosuch", "unknown command: 'nosuch'\n"],
  ["stop", ""],
  ["info status", "VM status: paused\n"],
  ["stop", ""],
  ["cont", ""],
  ["info status", "VM status: running\n"],
  ["c", ""],
  ["system_wakeup", "Error: Unable to wake up: guest is not in suspended state\n"],
  [
    "x /2gx 0x10000",
    "0000000000010000: 0x0706050403020100 0x0f0e0d0c0b0a0908\n",
  ],
  [
    "xp /4gx 0x20",
    "00000020: 0x2726252423222120 0x2f2e2d2c2b2a2928\n" +
    "00000030: 0x3736353433323130 0x3f3e3d3c3b3a3938\n",
  ],
  ["system_reset", ""],
  ["system_powerdown", ""],
  ["cpu 0", ""],
  ["cpu 5", "invalid CPU index\n"],
  ["print 1+2", "0x3\n"],
  ["info history", ""],
  ["device_add nope", "Error: 'nope' is not a valid device model name\n"],
  ["device_del nope", "Error: Device 'nope' not found\n"],
  ["object_del nope", "Error: object 'nope' not found\n"],
  ["chardev-remove nope", "Error: Chardev 'nope' not found\n"],
  ["closefd x", "Error: File descriptor named 'x' not found\n"],
  ["getfd x", "Error: No file descriptor supplied via SCM_RIGHTS\n"],
  [
    "quit now",
    'quit|q: extraneous characters at the end of line\nTry "help quit" for more information\n',
  ],
];

/** Lines of QEMU's help for commands that are the same here. */
const help = `
balloon target -- request VM to change its memory allocation (in MB)
block_resize device size -- resize a block image
block_set_io_throttle device bps bps_rd bps_wr iops iops_rd iops_wr -- change I/O throttle limits for a block drive
chardev-add args -- add chardev
chardev-remove id -- remove chardev
closefd closefd name -- close a file descriptor previously passed via SCM rights
cont|c  -- resume emulation
cpu index -- set the default CPU
device_add driver[,prop=value][,...] -- add device, like -device on the command line
device_del device -- remove device
gdbserver [device] -- start gdbserver on given device (default 'tcp::1234'), stop with 'none'
getfd getfd name -- receive a file descriptor via SCM rights and assign it a name
help|? [cmd] -- show the help
info [subcommand] -- show various information about the system state
memsave addr size file -- save to disk virtual memory dump starting at 'addr' of size 'size'
netdev_add [user|tap|stream|dgram],id=str[,prop=value][,...] -- add host network device
netdev_del id -- remove host network device
nmi  -- inject an NMI
object_add [qom-type=]type,id=str[,prop=value][,...] -- create QOM object
object_del id -- destroy QOM object
pmemsave addr size file -- save to disk physical memory dump starting at 'addr' of size 'size'
print|p /fmt expr -- print expression value (use $reg for CPU register access)
qom-get path property -- print QOM property
qom-set [-j] path property value -- set QOM property.
\t\t\t-j: the value is specified in json format.
quit|q  -- quit the emulator
sendkey keys [hold_ms] -- send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)
set_link name on|off -- change the link status of a network adapter
stop|s  -- stop emulation
sum addr size -- compute the checksum of a memory region
system_powerdown  -- send system power down event
system_reset  -- reset the system
system_wakeup  -- wakeup guest from suspend
x /fmt addr -- virtual memory dump starting at 'addr'
xp /fmt addr -- physical memory dump starting at 'addr'
`.trimStart();

Deno.test("HMP commands print what QEMU 11.1.3 prints", async () => {
  const machine = new FakeMachine();
  machine.name = undefined;
  machine.vcpus.pop();
  const context = { machine, table: builtinCommands(), session: newSession() };
  assert.equal(await executeLine(context, "info name"), "");
  for (const [line, text] of recording) assert.equal(await executeLine(context, line), text, line);
});

Deno.test("HMP's help is QEMU's for the commands that there are", async () => {
  const context = { machine: new FakeMachine(), table: builtinCommands(), session: newSession() };
  assert.equal(await executeLine(context, "help"), help);
});
