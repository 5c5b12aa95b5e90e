import assert from "node:assert/strict";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { defineHmp } from "../../vmm/monitor/hmp_command.ts";
import { HmpSession } from "../../vmm/monitor/hmp.ts";
import { FakeMachine, FakeTransport, latin1 } from "./monitor_fake_machine.ts";

/** A terminal: `type` returns what a command printed, without echo and prompt. */
function connect() {
  const machine = new FakeMachine();
  const table = builtinCommands();
  const transport = new FakeTransport();
  const session = new HmpSession(machine, table, transport);
  const raw = async (text: string) => {
    await session.receive(latin1(text));
    return transport.take();
  };
  const type = async (line: string) => {
    transport.take();
    const output = await raw(`${line}\r`);
    const start = output.indexOf("\r\n");
    assert.ok(output.endsWith("(qemu) "));
    return output.slice(start + 2, -"(qemu) ".length).replaceAll("\r\n", "\n");
  };
  return { machine, table, transport, session, raw, type };
}

Deno.test("HmpSession begins with a banner and a prompt", () => {
  const { transport } = connect();
  assert.equal(
    transport.take(),
    "Denovo 0.1.0 monitor - type 'help' for more information\r\n(qemu) ",
  );
});

Deno.test("HmpSession runs commands and their aliases", async () => {
  const { machine, type } = connect();
  assert.equal(await type("stop"), "");
  assert.equal(await type("info status"), "VM status: paused\n");
  assert.equal(await type("c"), "");
  assert.equal(await type("  info  status"), "VM status: running\n");
  machine.runState = "postmigrate";
  assert.equal(await type("info status"), "VM status: paused (postmigrate)\n");
  machine.runState = "shutdown";
  assert.equal(await type("cont"), "Error: Resetting the Virtual Machine is required\n");
});

Deno.test("HmpSession says what is wrong with a line", async () => {
  const { type } = connect();
  const cases = [
    ["nosuch x", "unknown command: 'nosuch'\n"],
    ["info nosuch", "unknown command: 'info nosuch'\n"],
    [
      "quit now",
      'quit|q: extraneous characters at the end of line\nTry "help quit" for more information\n',
    ],
    [
      "c now",
      'cont|c: extraneous characters at the end of line\nTry "help c" for more information\n',
    ],
    [
      "info status x",
      "status: extraneous characters at the end of line\n" +
      'Try "help info status" for more information\n',
    ],
    [
      "info mtree -z",
      'mtree: unsupported option -z\nTry "help info mtree" for more information\n',
    ],
    ["getfd", 'getfd: string expected\nTry "help getfd" for more information\n'],
    ["object_add", 'object_add: string expected\nTry "help object_add" for more information\n'],
    ['device_del "a', 'device_del: string expected\nTry "help device_del" for more information\n'],
    ['device_del "a b"', "Error: Device 'a b' not found\n"],
    ["device_add", "Error: Parameter 'driver' is missing\n"],
    ["pmemsave 0 1", 'pmemsave: filename expected\nTry "help pmemsave" for more information\n'],
    ["cpu", 'unexpected end of expression\nTry "help cpu" for more information\n'],
    ["cpu x", "invalid char 'x' in expression\nTry \"help cpu\" for more information\n"],
    [
      "cpu 0x100000000",
      "'cpu' has failed: integer is for 32-bit values\nTry \"help cpu\" for more information\n",
    ],
    ["xp/zz 0", "invalid char in format: 'z'\nTry \"help xp\" for more information\n"],
  ];
  for (const [line, text] of cases) assert.equal(await type(line), text, line);
});

Deno.test("what HMP adds to the machine is listed by help, as on the command line, in any state", async () => {
  const { machine, type } = connect();
  machine.runState = "finish-migrate";
  const cases: [line: string, text: RegExp][] = [
    ["device_add help", /^name "isa-debug-exit", .*\nname "virtio-rng-pci", bus PCI, .*\n$/s],
    ["device_add pcie-root-port,help", /^pcie-root-port options:\n.* slot=<uint16> .*\n$/s],
    ["device_add nope,help", /^Error: 'nope' is not a valid device model name\n$/],
    ["object_add help", /^List of user creatable objects:\n.* throttle-group\n$/s],
    ["object_add throttle-group,help", /^throttle-group options:\n.* x-iops-size=<int> .*\n$/s],
    ["netdev_add help", /^Available netdev backend types:\ntap\n.*user\n$/s],
    ["chardev-add help", /^Available chardev backend types: \n.* socket\n.*\n$/s],
  ];
  for (const [line, text] of cases) assert.match(await type(line), text, line);
  assert.deepEqual(machine.calls, []);
});

Deno.test("HmpSession shows the lines typed so far", async () => {
  const { type } = connect();
  await type("stop");
  await type("cont");
  await type("stop");
  assert.equal(await type("info history"), "0: 'cont'\n1: 'stop'\n2: 'info history'\n");
});

Deno.test("HmpSession reads parameters of every type", async () => {
  const { table, type } = connect();
  table.addHmp(defineHmp({
    name: "try",
    parameters: [
      { name: "d", type: "flag", letter: "d" },
      { name: "r", type: "flag", letter: "r" },
      { name: "on", type: "boolean" },
      { name: "word", type: "string" },
      { name: "all", type: "rest", optional: true },
    ],
    help: "",
    run: (_context, args) => `${JSON.stringify(args)}\n`,
  }));
  assert.equal(await type("try on x"), '{"d":false,"r":false,"on":true,"word":"x"}\n');
  assert.equal(
    await type('try -d-r off "a \\"b\\"" c  d'),
    '{"d":true,"r":true,"on":false,"word":"a \\"b\\"","all":"c  d"}\n',
  );
  assert.equal(await type("try -r on x"), '{"d":false,"r":true,"on":true,"word":"x"}\n');
  assert.equal(
    await type("try maybe x"),
    "Expected 'on' or 'off'\nTry \"help try\" for more information\n",
  );
});

Deno.test("HmpSession computes and prints", async () => {
  const { type } = connect();
  const cases = [
    ["print 1+2*3", "0x7\n"],
    ["p -(1+2)", "0xfffffffffffffffd\n"],
    ["p 4+1&1", "0x5\n"],
    ["p 2*3&1", "0x0\n"],
    ["p 7-2-1", "0x4\n"],
    ["p ~0", "0xffffffffffffffff\n"],
    ["p 010", "0x8\n"],
    ["p 'a'", "0x61\n"],
    ["p $rip+1", "0xfff1\n"],
    ["p/d -1", "-1\n"],
    ["p/u -1", "18446744073709551615\n"],
    ["p/o 65", "0101\n"],
    ["p/c 65", "'A'\n"],
    ["p 39", "'\\''\n"],
    ["p 5", "'\\x05'\n"],
    ["p/x 1 2", null, "print|p: extraneous characters at the end of line"],
    ["p 08", null, "print|p: extraneous characters at the end of line"],
    ["p 1+", null, "unexpected end of expression"],
    ["p (1", null, "')' expected"],
    ["p 1/0", null, "division by zero"],
    ["p $nosuch", null, "unknown register"],
    ["p 'a", null, "missing terminating ' character"],
    ["p 18446744073709551616", null, "number too large"],
    ["p " + "(".repeat(1000), null, "expression too deep"],
  ] as const;
  for (const [line, text, error] of cases) {
    const expected = text ?? `${error}\nTry "help p" for more information\n`;
    assert.equal(await type(line), expected, line);
  }
});

Deno.test("HmpSession dumps physical memory in every format", async () => {
  const { machine, type } = connect();
  machine.ram.set([0xe9, 0x8d, 0xff, 0x66, 0x90, 0x66, 0x90, 0x66, 0x55, 0x27], 0);
  const cases = [
    ["xp/10xb 0", "00000000: 0xe9 0x8d 0xff 0x66 0x90 0x66 0x90 0x66\n00000008: 0x55 0x27\n"],
    ["xp/2xh 0", "00000000: 0x8de9 0x66ff\n"],
    ["xp 0", "00000000: 0x8de9\n"],
    ["xp /2ub 0", "00000000: 233 141\n"],
    ["xp/2db 0", "00000000: 233 141\n"],
    ["xp/2dw 0xfc", "000000fc: 4294901244   50462976\n"],
    ["xp/1dg 0xf8", "000000f8:     -283686952306184\n"],
    ["xp/1oh 0", "00000000: 0106751\n"],
    ["xp/1ob 0x20", "00000020: 040\n"],
    ["xp/1gx 0", "00000000: 0x6690669066ff8de9\n"],
    ["xp/4c 7", "00000007: 'f' 'U' '\\'' '\\n'\n"],
    ["xp/xb 0xfffffffff0", "fffffffff0: Cannot access memory\n"],
    ["xp/16xb 0xff8", /^00000ff8:( 0x\w\w){8}\n00001000: Cannot access memory\n$/],
    ["xp/0x 0", ""],
    ["xp/99999999999xb 0", /^invalid count in format: 99999999999 /],
  ] as const;
  for (const [line, text] of cases) {
    const output = await type(line);
    if (typeof text === "string") assert.equal(output, text, line);
    else assert.match(output, text, line);
  }
});

Deno.test("HmpSession translates the addresses of x by the current vCPU's page tables", async () => {
  const { type } = connect();
  assert.equal(await type("x/2xb 0x10010"), "0000000000010010: 0x10 0x11\n");
  assert.equal(await type("x/2xb 0x10"), "0000000000000010: Cannot access memory\n");
});

Deno.test("HmpSession sums memory as sum(1) does", async () => {
  const { machine, type } = connect();
  machine.ram.set(new TextEncoder().encode("hello world\n"));
  // $ printf 'hello world\n' | sum -r
  assert.equal(await type("sum 0 12"), "03762\n");
});

Deno.test("HmpSession sets a balloon in MB, and tells its size", async () => {
  const { type } = connect();
  assert.equal(await type("info balloon"), "balloon: actual=256\n");
  assert.equal(await type("balloon 100"), "");
  assert.equal(await type("info balloon"), "balloon: actual=100\n");
  for (const target of ["0", "-1", "0x80000000000"]) {
    assert.equal(await type(`balloon ${target}`), "Error: Parameter 'target' expects a size\n");
  }
});

Deno.test("HmpSession gets and sets properties, as text or as JSON", async () => {
  const { machine, type } = connect();
  const path = "/machine/peripheral/balloon0";
  assert.equal(
    await type(`qom-get ${path} guest-stats`),
    '{\n    "stats": {\n        "stat-swap-in": 18446744073709551615\n    }\n}\n',
  );
  assert.equal(await type("qom-get nothing x"), "Error: Device 'nothing' not found\n");
  assert.equal(await type(`qom-set ${path} interval 5`), "");
  assert.equal(await type(`qom-set -j ${path} limits {"iops-total": 5}`), "");
  assert.equal(await type(`qom-set -j ${path} limits {`), "Error: JSON parse error in '{'\n");
  assert.deepEqual(machine.calls, [
    ["qomSetText", path, "interval", "5"],
    ["qomSet", path, "limits", { "iops-total": 5 }],
  ]);
});

Deno.test("HmpSession shows the functions on the PCI bus as QEMU does", async () => {
  assert.equal(
    await connect().type("info pci"),
    `  Bus  0, device   0, function 0:
    Host bridge: PCI device 1b36:0008
      PCI subsystem 1af4:1100
      id ""
  Bus  0, device  17, function 0:
    Class 0255: PCI device 1af4:1044
      PCI subsystem 1af4:1100
      IRQ 11, pin A
      BAR1: 32 bit memory at 0xc0001000 [0xc0001fff].
      BAR4: 64 bit prefetchable memory at 0xffffffffffffffff [0x00003ffe].
      id "r0"
`,
  );
});

Deno.test("HmpSession takes on and off for a cable", async () => {
  const { machine, type } = connect();
  assert.equal(await type("set_link n0 off"), "");
  assert.equal(await type("set_link vn0 on"), "");
  assert.equal(await type("set_link n0 maybe"), "Expected 'on' or 'off'\n");
  assert.deepEqual(machine.calls, [["setLink", "n0", false], ["setLink", "vn0", true]]);
});

Deno.test("HmpSession presses keys as QEMU does", async () => {
  const { machine, type } = connect();
  const cases: [line: string, keys: string[], holdMs: number][] = [
    ["sendkey ctrl-alt-f1", ["ctrl", "alt", "f1"], 100],
    ["sendkey 0x1e-0xd3 1000", ["a", "delete"], 1000],
    ["sendkey <", ["less"], 100],
    ["sendkey a 0", ["a"], 100],
    ["sendkey 0xfff", ["unmapped"], 100],
  ];
  for (const [line] of cases) assert.equal(await type(line), "", line);
  assert.deepEqual(machine.calls, cases.map(([_, keys, holdMs]) => ["sendKeys", keys, holdMs]));
  assert.equal(await type("sendkey ctrl-nope-a"), "invalid parameter: nope\n");
  assert.equal(await type("sendkey a-"), "invalid parameter: \n");
  assert.equal(await type("sendkey -"), "invalid parameter: \n");
  assert.match(await type("sendkey"), /^sendkey: string expected\n/);
  assert.equal(machine.calls.length, cases.length);
});

Deno.test("HmpSession saves memory to files", async () => {
  const { machine, type } = connect();
  const path = await Deno.makeTempFile();
  assert.equal(await type(`pmemsave 16 4 "${path}"`), "");
  assert.deepEqual(await Deno.readFile(path), Uint8Array.of(16, 17, 18, 19));
  assert.equal(await type(`memsave 0x10020 2 "${path}"`), "");
  assert.deepEqual(await Deno.readFile(path), Uint8Array.of(32, 33));
  assert.equal(
    await type(`memsave 0 16 "${path}"`),
    "Error: Invalid addr 0x0000000000000000/size 16 specified\n",
  );
  assert.equal(
    await type('pmemsave 0 16 "/nonexistent/x"'),
    "Error: Could not open '/nonexistent/x': No such file or directory\n",
  );
  assert.equal(machine.calls.length, 0);
  await Deno.remove(path);
});

Deno.test("HmpSession waits for gdb where it is told to", async () => {
  const { machine, type } = connect();
  assert.equal(
    await type("gdbserver"),
    "Waiting for gdb connection on device 'tcp::1234'\n",
  );
  assert.equal(
    await type("gdbserver unix:/run/gdb"),
    "Waiting for gdb connection on device 'unix:/run/gdb'\n",
  );
  assert.equal(await type("gdbserver none"), "Disabled gdbserver\n");
  const calls = ["tcp::1234", "unix:/run/gdb", "none"].map((device) => ["gdbserver", device]);
  assert.deepEqual(machine.calls, calls);
});

Deno.test("HmpSession remembers the vCPU that cpu has set", async () => {
  const { type } = connect();
  assert.equal(await type("cpu 5"), "invalid CPU index\n");
  assert.equal(await type("cpu 1"), "");
  assert.equal(
    await type("info cpus"),
    "  CPU #0: thread_id=3115 model=qemu64\n* CPU #1: thread_id=3116 model=qemu64\n",
  );
  assert.equal(await type("info registers"), "\nCPU#1\nRAX=0000000000000001\n");
  assert.equal(
    await type("info registers -a"),
    "\nCPU#0\nRAX=0000000000000000\n\nCPU#1\nRAX=0000000000000001\n",
  );
  assert.equal(await type("info registers 7"), "CPU#7 not available\n");
  assert.equal(await type("info lapic 7"), "No CPU available\n");
});

Deno.test("HmpSession shows threads that devices name as QEMU does", async () => {
  const { type } = connect();
  assert.equal(
    await type("info iothreads"),
    "io0:\n  thread_id=4712\n  poll-max-ns=32768\n  poll-grow=0\n  poll-shrink=0\n" +
      "  poll-weight=0\n  aio-max-batch=0\n",
  );
});

Deno.test("HmpSession shows help for one command, for info's, and for all", async () => {
  const { table, type } = connect();
  assert.equal(await type("help stop"), "stop|s  -- stop emulation\n");
  assert.equal(await type("? c"), "cont|c  -- resume emulation\n");
  assert.equal(
    await type("help info status"),
    "info status  -- show the current VM status (running|paused)\n",
  );
  assert.equal(await type("help nosuch"), "unknown command: 'nosuch'\n");
  assert.equal(await type("help info nosuch"), "unknown command: 'info nosuch'\n");
  assert.equal(await type("help info"), await type("info"));
  // What begins with a tab belongs to the line before it.
  const all = (await type("help")).trimEnd().split(/\n(?!\t)/);
  assert.deepEqual(all, [...all].sort());
  assert.equal(all.length, table.hmpCommands.length);
  assert.ok(all.includes("info [subcommand] -- show various information about the system state"));
});

Deno.test("HmpSession keeps what is typed while a command runs for later", async () => {
  const { table, transport, session } = connect();
  const slow = Promise.withResolvers<string>();
  table.addHmp(defineHmp({ name: "slow", help: "", run: () => slow.promise }));
  transport.take();
  const first = session.receive(latin1("slow\r"));
  const second = session.receive(latin1("info name\r"));
  await new Promise((resolve) => setTimeout(resolve));
  assert.ok(transport.take().endsWith("slow\x1b[K\r\n"));
  slow.resolve("done\n");
  await Promise.all([first, second]);
  const output = transport.take();
  assert.ok(output.startsWith("done\r\n(qemu) "));
  assert.ok(output.endsWith("\r\nvm1\r\n(qemu) "));
});

Deno.test("info block shows a disk's limits, as QEMU prints them", async () => {
  const { machine, type } = connect();
  const none = { average: 0, max: 0, burstLength: 1 };
  const limits = {
    ...{ "bps-total": none, "bps-read": { ...none, average: 1000 }, "bps-write": none },
    ...{ "iops-total": { ...none, average: 100, max: 500 }, "iops-read": none },
    ...{ "iops-write": none, iopsSize: 4096 },
  };
  const blockDevices = [{ ...machine.blockDevices[0], throttle: { group: "g", limits } }];
  Object.assign(machine, { blockDevices });
  const line = "    I/O throttling:   bps=0 bps_rd=1000 bps_wr=0 bps_max=0 bps_rd_max=0" +
    " bps_wr_max=0 iops=100 iops_rd=0 iops_wr=0 iops_max=500 iops_rd_max=0 iops_wr_max=0" +
    " iops_size=4096 group=g\n";
  assert.equal(await type("info block"), D0 + line);
  assert.ok((await type("info block -v d0")).startsWith(`${D0}${line}\nImages:\n`));
});

const D0 = "d0 (#d0): disk.img (raw)\n    Attached to:      vb0\n" +
  "    I/O status:       nospace\n    Cache mode:       writethrough\n";
const CD = "cd: [not inserted]\n    Removable device: not locked, tray closed\n";
const N1 = 'n1: json:{"driver": "null-co", "size": 0} (null-co, read-only)\n' +
  "    Attached to:      vb1\n    Cache mode:       writeback, direct, ignore flushes\n" +
  "    Detect zeroes:    on\n";
const NO_STATISTICS = "rd_bytes=0 wr_bytes=0 rd_operations=0 wr_operations=0" +
  " flush_operations=0 wr_total_time_ns=0 rd_total_time_ns=0 flush_total_time_ns=0" +
  " rd_merged=0 wr_merged=0 idle_time_ns=0\n";

Deno.test("HmpSession shows the machine", async () => {
  const { type } = connect();
  const cases = [
    ["info block", `${D0}\n${CD}\n${N1}`],
    ["info block d0", D0],
    ["info block cd", `\n${CD}`],
    [
      "info block -v d0",
      `${D0}\nImages:\nimage: disk.img\nfile format: raw\n` +
      "virtual size: 1 MiB (1048576 bytes)\ndisk size: 8 KiB\n",
    ],
    [
      "info block -n",
      "#d0: disk.img (raw)\n    Cache mode:       writeback\n\n" +
      "#d0.file: disk.img (file)\n    Cache mode:       writeback\n\n" +
      N1.replace("    Attached to:      vb1\n", ""),
    ],
    ["info block #d0.file", "\n#d0.file: disk.img (file)\n    Cache mode:       writeback\n"],
    ["info block zz", ""],
    [
      "info blockstats",
      "d0: rd_bytes=1 wr_bytes=11 rd_operations=2 wr_operations=12 flush_operations=22" +
      " wr_total_time_ns=13 rd_total_time_ns=3 flush_total_time_ns=23 rd_merged=0 wr_merged=0" +
      ` idle_time_ns=99\ncd: ${NO_STATISTICS}: ${NO_STATISTICS}`,
    ],
    ["block_resize d0 x", "Error: invalid size\n"],
    [
      "info network",
      "vn0: index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56\n" +
      " \\ n0: index=0,type=tap,ifname=tap0\n",
    ],
    [
      "info qtree",
      'bus: main-system-bus\n  type System\n  dev: virtio-mmio, id ""\n    ioeventfd = true\n' +
      "    mmio 00000000feb00000/0000000000000200\n    bus: virtio-mmio-bus.0\n" +
      '      type virtio-mmio-bus\n      dev: virtio-blk-device, id "vb0"\n',
    ],
    ["info roms", 'addr=00000000ffff0000 size=0x010000 mem=rom name="rom1.bin"\n'],
    [
      "info mtree",
      "address-space: memory\naddress-space: cpu-memory-0\n" +
      "  0000000000000000-ffffffffffffffff (prio 0, container): system\n" +
      "    0000000000000000-0000000000000fff (prio 0, ram): alias ram-below-4g @ram0 " +
      "0000000000000000-0000000000000fff\n" +
      "    0000000000000800-00000000000008ff (prio 1, rom): isa-bios\n\n",
    ],
    [
      "info mtree -f",
      'FlatView #0\n AS "memory", root: system\n AS "cpu-memory-0", root: system\n' +
      " Root memory region: system\n" +
      "  0000000000000000-00000000000007ff (prio 0, ram): ram0 KVM\n" +
      "  0000000000000800-00000000000008ff (prio 1, rom): isa-bios KVM\n" +
      "  0000000000000900-0000000000000fff (prio 0, ram): ram0 @0000000000000900 KVM\n\n",
    ],
  ];
  for (const [line, text] of cases) assert.equal(await type(line), text, line);
  const brief = await type("info qtree -b");
  assert.ok(!brief.includes("ioeventfd") && brief.includes("virtio-blk-device"));
});
