import assert from "node:assert/strict";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import { optionsHelp, parseCommandLine } from "../../vmm/options/command_line.ts";
import { optionGroups } from "../../vmm/options/table.ts";
import { testDevices, words } from "./options_fixture.ts";

function parse(...args: string[]): MachineConfig {
  const { config } = parseCommandLine(args, testDevices);
  assert.ok(config, `no machine from ${args.join(" ")}`);
  return config;
}

const config = (line: string) => parse(...words(line));

/** What a machine without any options has besides the defaults: a serial port to nowhere. */
const NULL_SERIAL = { chardevs: [{ backend: "null", id: "serial0" }], serials: ["serial0"] };

Deno.test("parseCommandLine() gives the default machine when there are no options", () => {
  assert.deepEqual(parse(), { ...defaultConfig(), ...NULL_SERIAL });
  assert.deepEqual(config("-nodefaults"), defaultConfig());
});

Deno.test("parseCommandLine() puts each option into the configuration", () => {
  const cases: [line: string, part: Partial<MachineConfig>][] = [
    ["-m 1G", { memory: 2 ** 30 }],
    ["-m 256", { memory: 256 * 2 ** 20 }],
    ["-m size=0x80", { memory: 128 * 2 ** 20 }],
    ["-m 0", { memory: 128 * 2 ** 20 }],
    ["-m 100B", { memory: 8192 }],
    ["-m 1G -m 64M", { memory: 64 * 2 ** 20 }],
    ["-smp 2", { smp: { cpus: 2, maxcpus: 2, sockets: 1, dies: 1, cores: 2, threads: 1 } }],
    ["-cpu qemu64,-cx16", { cpu: { model: "qemu64", features: [["cx16", false]] } }],
    ["-accel kvm", { accelerators: ["kvm"] }],
    ["-accel tcg,thread=multi", { accelerators: ["tcg"] }],
    ["-accel kvm -accel tcg", { accelerators: ["kvm", "tcg"] }],
    ["-accel accel=kvm,kernel-irqchip=on", { accelerators: ["kvm"] }],
    ["-enable-kvm", { accelerators: ["kvm"] }],
    ["-machine type=microvm,accel=kvm", { accelerators: ["kvm"] }],
    ["-machine accel=tcg:kvm,kernel-irqchip=on", { accelerators: ["tcg", "kvm"] }],
    ["-kernel k -initrd i -append a,b=c", { kernel: "k", initrd: "i", append: "a,b=c" }],
    ["--kernel k", { kernel: "k" }],
    ["-kernel a -kernel b", { kernel: "b" }],
    ["-bios rom.bin", { bios: "rom.bin" }],
    ["-display none -vga none -no-user-config", {}],
    ["-S", { startPaused: true }],
    ["-name vm", { name: "vm" }],
    ["-name guest=vm,process=p,debug-threads=on", {
      name: "vm",
      processName: "p",
      debugThreads: true,
    }],
    ["-uuid 550E8400-E29B-41d4-a716-446655440000", {
      uuid: "550e8400-e29b-41d4-a716-446655440000",
    }],
    ["-pidfile p -daemonize -D log", { pidfile: "p", daemonize: true, logfile: "log" }],
    ["-d cpu_reset,guest_errors", { debugItems: ["cpu_reset", "guest_errors"] }],
    ["-incoming defer -incoming unix:x,y", { incoming: ["defer", "unix:x,y"] }],
    ["-global migration.x-ignore-shared=on", {
      globals: [["migration", "x-ignore-shared", "on"]],
    }],
    ["-global driver=migration,property=a.b,value=c", { globals: [["migration", "a.b", "c"]] }],
    ["-sandbox on", { sandbox: { enabled: true, spawn: true, resourceControl: true } }],
    ["-sandbox on,spawn=deny", {
      sandbox: { enabled: true, spawn: false, resourceControl: true },
    }],
    [
      "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      { sandbox: { enabled: true, spawn: false, resourceControl: false } },
    ],
    ["-sandbox off,elevateprivileges=children,resourcecontrol=allow", {
      sandbox: { enabled: false, spawn: true, resourceControl: true },
    }],
    ["-m 128M,slots=2,maxmem=1G", { memory: 128 * 2 ** 20 }],
    ["-m maxmem=1G", {}],
    ["-msg timestamp=on", { messages: { timestamp: true, guestName: false } }],
    ["-msg timestamp=on,guest-name=on -msg timestamp=off", {
      messages: { timestamp: false, guestName: true },
    }],
    ["-watchdog-action pause", { actions: { ...defaultConfig().actions, watchdog: "pause" } }],
    ["-overcommit mem-lock=off,cpu-pm=off -overcommit mem-lock=no", {}],
    ["-run-with async-teardown=off,exit-with-parent=off", {}],
    ["-compat deprecated-input=accept,unstable-output=accept", {}],
    ["-net none -nic none -vnc none -only-migratable", {}],
    ["-boot strict=on -rtc base=utc,driftfix=none", {}],
    ["-device loader,addr=8,data=0xffffffffffffffff,data-len=8,data-be=on", {
      loaders: [{ addr: 8, data: 2n ** 64n - 1n, dataLen: 8, dataBe: true }],
    }],
    ["-device loader,file=f,force-raw=on -device loader,addr=010,cpu-num=0", {
      loaders: [{ file: "f", forceRaw: true }, { addr: 8, cpuNum: 0 }],
    }],
    ["-mem-path d -mem-prealloc -k en-us", { memPath: "d", memPrealloc: true }],
    ["-device loader,file=f,addr=0x1000,cpu-num=0", {
      loaders: [{ file: "f", addr: 4096, cpuNum: 0 }],
    }],
    ["-device gadget,id=g,big=5 -device gadget", {
      devices: [
        { driver: "gadget", id: "g", properties: { big: 5 } },
        { driver: "gadget", properties: {} },
      ],
    }],
  ];
  for (const [line, part] of cases) {
    assert.deepEqual(config(line), { ...defaultConfig(), ...NULL_SERIAL, ...part }, line);
  }
});

Deno.test("parseCommandLine() resolves -machine's properties as QEMU's microvm does", () => {
  const defaults = defaultConfig().machine;
  const cases: [line: string, part: Partial<MachineConfig["machine"]>][] = [
    ["-M microvm", {}],
    ["-M microvm,pit=auto,pic=auto,rtc=auto,acpi=auto,pcie=auto,usb=off", {}],
    ["-M acpi=off", { acpi: false }],
    ["-M microvm,pit=off,pic=off,rtc=on", { pit: false, pic: false, rtc: true }],
    ["-M rtc=on -M pit=off", { pit: false, rtc: true }],
    ["-M rtc=on -M rtc=off", {}],
    ["-M isa-serial=off,auto-kernel-cmdline=no", { isaSerial: false, autoKernelCmdline: false }],
    ["-M aux-ram-share=on", { auxRamShare: true }],
    ["-M aux-ram-share=off", { auxRamShare: false }],
    ["-M x-pause-clock=on,x-boot=pvh", { xPauseClock: true, xBoot: "pvh" }],
  ];
  for (const [line, part] of cases) {
    assert.deepEqual(config(line).machine, { ...defaults, ...part }, line);
  }
});

Deno.test("parseCommandLine() keeps actions and their short options in step", () => {
  const cases: [line: string, reboot: string, shutdown: string, noReboot: boolean, no: boolean][] =
    [
      ["", "reset", "poweroff", false, false],
      ["-no-reboot", "shutdown", "poweroff", true, false],
      ["-no-shutdown", "reset", "pause", false, true],
      ["-action reboot=shutdown,shutdown=pause", "shutdown", "pause", true, true],
      ["-no-reboot -action reboot=reset", "reset", "poweroff", false, false],
    ];
  for (const [line, reboot, shutdown, noReboot, noShutdown] of cases) {
    const { actions, ...rest } = config(line);
    assert.equal(actions.reboot, reboot, line);
    assert.equal(actions.shutdown, shutdown, line);
    assert.equal(rest.noReboot, noReboot, line);
    assert.equal(rest.noShutdown, noShutdown, line);
  }
  assert.equal(config("-action panic=none,watchdog=pause").actions.panic, "none");
});

Deno.test("parseCommandLine() connects consoles as QEMU does", () => {
  const stdio = (id: string) => ({ backend: "stdio", id, signal: true });
  const muxed = (id: string) => ({ backend: "stdio", id, mux: true, signal: false });
  const nowhere = (id: string) => ({ backend: "null", id });
  const hmp = (chardev: string) => ({ mode: "readline", chardev, pretty: false });
  const qmp = (chardev: string) => ({ mode: "control", chardev, pretty: false });
  const waiting = (endpoint: object) => ({
    backend: "socket",
    id: "gdb",
    ...endpoint,
    server: true,
    wait: false,
  });
  const cases: [line: string, part: unknown][] = [
    ["-nographic", {
      chardevs: [muxed("serial0")],
      serials: ["serial0"],
      monitors: [hmp("serial0")],
    }],
    ["-nographic -monitor none", {
      chardevs: [stdio("serial0")],
      serials: ["serial0"],
      monitors: [],
    }],
    ["-nographic -serial null", {
      chardevs: [stdio("compat_monitor0"), nowhere("serial0")],
      serials: ["serial0"],
      monitors: [hmp("compat_monitor0")],
    }],
    ["-nographic -nodefaults", { chardevs: [], serials: [], monitors: [] }],
    ["-nographic -device isa-serial", {
      chardevs: [stdio("compat_monitor0")],
      serials: [],
      monitors: [hmp("compat_monitor0")],
    }],
    ["-serial none -serial stdio", {
      chardevs: [stdio("serial1")],
      serials: ["none", "serial1"],
      monitors: [],
    }],
    ["-serial mon:stdio -nodefaults", {
      chardevs: [muxed("serial0")],
      serials: ["serial0"],
      monitors: [hmp("serial0")],
    }],
    ["-nodefaults -serial null -monitor stdio -qmp null -qmp-pretty null", {
      chardevs: [
        stdio("compat_monitor0"),
        nowhere("compat_monitor1"),
        nowhere("compat_monitor2"),
        nowhere("serial0"),
      ],
      serials: ["serial0"],
      monitors: [
        hmp("compat_monitor0"),
        qmp("compat_monitor1"),
        { ...qmp("compat_monitor2"), pretty: true },
      ],
    }],
    ["-nodefaults -s", {
      chardevs: [waiting({ family: "tcp", host: "", port: 1234 })],
      serials: [],
      monitors: [{ ...hmp("gdb"), mode: "gdb" }],
    }],
    ["-nodefaults -gdb unix:/run/gdb", {
      chardevs: [waiting({ family: "unix", path: "/run/gdb" })],
      serials: [],
      monitors: [{ ...hmp("gdb"), mode: "gdb" }],
    }],
    ["-nodefaults -gdb unix:/run/gdb,server=on", {
      chardevs: [{ ...waiting({ family: "unix", path: "/run/gdb" }), wait: true }],
      serials: [],
      monitors: [{ ...hmp("gdb"), mode: "gdb" }],
    }],
    ["-nodefaults -gdb none", { chardevs: [], serials: [], monitors: [] }],
    ["-nodefaults -mon m,mode=control,pretty=on -chardev stdio,id=m", {
      chardevs: [stdio("m")],
      serials: [],
      monitors: [{ ...qmp("m"), pretty: true }],
    }],
    ["-nodefaults -chardev null,id=c,mux=on -serial chardev:c -monitor chardev:c", {
      chardevs: [{ ...nowhere("c"), mux: true }],
      serials: ["c"],
      monitors: [hmp("c")],
    }],
    ["-nodefaults -debugcon mon:stdio", {
      chardevs: [muxed("debugcon")],
      serials: [],
      monitors: [hmp("debugcon")],
    }],
  ];
  for (const [line, part] of cases) {
    const { chardevs, serials, monitors } = config(line);
    assert.deepEqual({ chardevs, serials, monitors }, part, line);
  }
  assert.equal(config("-debugcon null").debugcon, "debugcon");
  assert.equal(config("-chardev null,id=d -debugcon chardev:d").debugcon, "d");
});

Deno.test("parseCommandLine() takes the size of RAM from the backend when -m is missing", () => {
  const object = "-object memory-backend-memfd,id=ram0,size=64M";
  const built = config(`-machine microvm,memory-backend=ram0 ${object}`);
  assert.equal(built.memory, 64 * 2 ** 20);
  assert.equal(built.machine.memoryBackend, "ram0");
  assert.equal(built.objects.length, 1);
  assert.equal(config(`-machine memory-backend=ram0 ${object} -m 64`).memory, 64 * 2 ** 20);
  assert.equal(config(`${object} -m 1G`).memory, 2 ** 30);
});

Deno.test("parseCommandLine() applies -global to devices that do not set the property", () => {
  const { devices } = config(
    "-global gadget.small=7 -device gadget -device gadget,small=9 -global gadget.small=8",
  );
  assert.deepEqual(devices.map(({ properties }) => properties), [{ small: 8 }, { small: 9 }]);
});

Deno.test("parseCommandLine() takes the same chardev options that QMP clients of QEMU use", () => {
  const { chardevs } = config("-qmp unix:run/tr-old.qmp,server=on,wait=off -nodefaults");
  assert.deepEqual(chardevs, [{
    backend: "socket",
    id: "compat_monitor0",
    family: "unix",
    path: "run/tr-old.qmp",
    server: true,
    wait: false,
  }]);
});

Deno.test("parseCommandLine() asks for help instead of a machine", () => {
  const cases: [line: string, kind: string][] = [
    ["-h", "help"],
    ["-help", "help"],
    ["--help", "help"],
    ["-version", "version"],
    ["-cpu help", "cpu-help"],
    ["-cpu ?", "cpu-help"],
    ["-machine help", "machine-help"],
    ["-M microvm,help", "machine-help"],
    ["-accel help", "accel-help"],
    ["-device help", "device-help"],
    ["-device gadget,help", "device-help"],
    ["-device loader,help", "device-help"],
    ["-object help", "object-help"],
    ["-object memory-backend-file,help", "object-help"],
    ["-chardev help", "chardev-help"],
    ["-blockdev help", "blockdev-help"],
    ["-blockdev qcow2,help", "blockdev-help"],
    ["-d help", "log-help"],
  ];
  for (const [line, kind] of cases) {
    assert.equal(parseCommandLine(words(line), testDevices).request?.kind, kind, line);
  }
});

function helpText(line: string): string {
  const { request } = parseCommandLine(words(line), testDevices);
  assert.ok(request && "text" in request);
  return request.text;
}

Deno.test("parseCommandLine() lists devices and their properties when asked for help", () => {
  assert.equal(
    helpText("-device help"),
    [
      'name "isa-serial", desc "isa-serial for tests"',
      'name "gadget", desc "gadget for tests"',
      'name "loader", desc "Generic Loader"',
    ].join("\n"),
  );
  assert.equal(
    helpText("-device gadget,help"),
    [
      "gadget options:",
      "  big=<uint32>           - four bytes",
      "  flag=<bool>            - a switch",
      "  middle=<uint16>        - two bytes",
      "  small=<uint8>          - a byte (default: 3)",
      "  text=<str>             - a text",
    ].join("\n"),
  );
  assert.match(helpText("-object memory-backend-memfd,help"), /^ {2}seal=<bool> {11} - \S/m);
  assert.match(helpText("-M microvm,help"), /^ {2}pit=<OnOffAuto> {7} - Enable i8254 PIT$/m);
});

Deno.test("optionsHelp() has every option", () => {
  const help = optionsHelp();
  for (const { names } of optionGroups.flatMap(({ options }) => options)) {
    assert.match(help, new RegExp(`^-${names[0]}\\b`, "m"));
  }
  assert.match(help, /^-m \[size=\]megs\[,slots=n,maxmem=size\]\n {16}configure guest RAM/m);
  assert.ok(help.split("\n").every((line) => line.length <= 100), "lines fit a terminal");
});
