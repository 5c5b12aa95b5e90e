/**
 * The program as its users start it: options, messages, exit statuses, files.
 */
import assert from "node:assert/strict";
import {
  connect,
  isAlive,
  type Json,
  kvmTest,
  listens,
  onlyKvmTest,
  Program,
  Qmp,
  run,
  TestFolder,
  TextConnection,
  until,
} from "./session.ts";

const DEBUG_EXIT = ["-device", "isa-debug-exit,iobase=0x501,iosize=2"];

/** Fails if a file is there. */
function assertGone(path: string): void {
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
}

kvmTest("the exit status is the guest's debug-exit value, twice plus one", async () => {
  using folder = new TestFolder();
  const hello = folder.guest("hello");
  assert.deepEqual(await run("-kernel", hello, "-serial", "stdio", ...DEBUG_EXIT), {
    code: 2 * 0x10 + 1,
    stdout: "hello from denovo\n",
    stderr: "",
  });
});

const requests: [options: string[], firstLine: RegExp, anyLine: RegExp][] = [
  [["-version"], /^Denovo virtual machine monitor version \d+\.\d+\.\d+$/, /version/],
  [["--version"], /^Denovo virtual machine monitor version /, /version/],
  [["-help"], /^usage: denovo \[options\]$/, /^-kernel /m],
  [["-h"], /^usage: denovo \[options\]$/, /^-qmp /m],
  [["-help"], /^usage: denovo \[options\]$/, /^ +denovo img COMMAND /m],
  [["-machine", "help"], /^Supported machines are:$/, /^microvm\s.*\(default\)$/m],
  [["-M", "help"], /^Supported machines are:$/, /^microvm/m],
  [["-cpu", "help"], /^Available CPUs:$/, /^ {2}host /m],
  [["-device", "help"], /^name "isa-debug-exit"/, /^name "isa-serial"/m],
  [["-device", "isa-serial,help"], /^isa-serial options:$/, /^ {2}chardev=<str>/m],
  [["-d", "help"], /^Log items \(comma separated\):$/, /^cpu_reset/m],
  // Everything else on the line is of no interest then.
  [["-machine", "help", "-kernel", "/nonexistent"], /^Supported machines are:$/, /^microvm/m],
];

for (const [options, firstLine, anyLine] of requests) {
  Deno.test(`${options.join(" ")} prints to stdout and exits with 0`, async () => {
    const { code, stdout, stderr } = await run(...options);
    assert.equal(stderr, "");
    assert.equal(code, 0);
    assert.match(stdout.split("\n")[0], firstLine);
    assert.match(stdout, anyLine);
    assert.ok(stdout.endsWith("\n") && !stdout.endsWith("\n\n"));
  });
}

const K = ["-kernel", "KERNEL"];
const mistakes: [options: string[], message: string][] = [
  [["-bogus"], "-bogus: invalid option"],
  [
    ["updat"],
    "updat: unexpected argument, options begin with '-'; only the first word may be update, state or img",
  ],
  [["-kernel"], "-kernel: requires an argument"],
  [["-kernel", "/nonexistent"], "could not open kernel '/nonexistent': No such file or directory"],
  [
    [...K, "-initrd", "/nonexistent"],
    "could not open initrd '/nonexistent': No such file or directory",
  ],
  [["-kernel", "/dev"], "could not load kernel '/dev': it is a directory, not a file"],
  [["-append", "x"], "-append only allowed with -kernel option"],
  [[...K, "-m", "5Q"], "-m 5Q: Parameter 'size' expects a non-negative number below 2^64"],
  [
    [...K, ...DEBUG_EXIT, "-device", "isa-debug-exit,iobase=0x502"],
    "Device range 'isa-debug-exit' at 0x502 overlaps 'isa-debug-exit' at 0x501",
  ],
  [[...K, "-device", "nope"], "-device nope: 'nope' is not a valid device model name"],
  [[...K, "-M", "pc"], '-M pc: unsupported machine type: "pc", the one there is is microvm'],
  [[...K, "-cpu", "nope"], "unable to find CPU model 'nope'"],
  [
    [...K, "-serial", "mon:stdio", "-monitor", "stdio"],
    "-serial mon:stdio: cannot use stdio by multiple character devices",
  ],
  [
    [...K, "-serial", "stdio", "-serial", "stdio"],
    "-serial stdio: cannot use stdio by multiple character devices",
  ],
  [
    [...K, "-chardev", "stdio,id=a", "-serial", "chardev:a", "-monitor", "chardev:a"],
    "-serial chardev:a: Device 'a' is in use",
  ],
  [["-nographic", "-daemonize", ...K], "-nographic cannot be used with -daemonize"],
  [
    [...K, "-pidfile", "/nonexistent/pid"],
    "cannot create PID file: Cannot open pid file '/nonexistent/pid': No such file or directory",
  ],
  [[], "there is nothing to boot: give -kernel, -bios or -device loader,file=...,cpu-num=0"],
];

for (const [options, message] of mistakes) {
  // Options and files are looked at before KVM is: this needs none.
  Deno.test(`'${options.join(" ")}' is refused on one line with exit status 1`, async () => {
    using folder = new TestFolder();
    const kernel = folder.guest("hello");
    const { code, stdout, stderr } = await run(
      ...options.map((word) => word === "KERNEL" ? kernel : word),
    );
    assert.deepEqual({ code, stdout, stderr: stderr.replaceAll(kernel, "KERNEL") }, {
      code: 1,
      stdout: "",
      stderr: `denovo: ${message}\n`,
    });
  });
}

kvmTest(
  "-S waits for cont; -name and -uuid are told; -pidfile is there until the end",
  async () => {
    using folder = new TestFolder();
    const [qmpPath, pidfile] = [folder.file("qmp"), folder.file("pid")];
    const uuid = "12345678-9abc-def0-1234-56789abcdef0";
    await using vmm = new Program(
      ...["-kernel", folder.guest("hello"), "-serial", "stdio", "-S", ...DEBUG_EXIT],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`, "-pidfile", pidfile],
      ...["-name", "guest=web-1,debug-threads=on", "-uuid", uuid],
    );
    using qmp = await Qmp.to(qmpPath);
    assert.deepEqual(await qmp.execute("query-status"), { status: "prelaunch", running: false });
    assert.equal(await qmp.hmp("info status"), "VM status: paused (prelaunch)\n");
    assert.deepEqual(await qmp.execute("query-name"), { name: "web-1" });
    assert.deepEqual(await qmp.execute("query-uuid"), { UUID: uuid });
    assert.equal(await qmp.hmp("info uuid"), `${uuid}\n`);
    assert.equal(Deno.readTextFileSync(pidfile), `${vmm.pid}\n`);
    assert.equal(vmm.stdout, "");
    // The guest may end before the reply is sent.
    await qmp.connection.send('{"execute": "cont"}\n');
    assert.equal(await vmm.ended(), 33);
    assert.equal(vmm.stdout, "hello from denovo\n");
    assertGone(pidfile);
  },
);

kvmTest("-daemonize returns 0 once the VM is up and its monitor can be reached", async () => {
  using folder = new TestFolder();
  const [qmpPath, pidfile] = [folder.file("qmp"), folder.file("pid")];
  const ended = await run(
    ...["-kernel", folder.guest("demo"), "-daemonize", "-pidfile", pidfile],
    ...["-serial", `file:${folder.file("serial")}`],
    ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
  );
  assert.deepEqual(ended, { code: 0, stdout: "", stderr: "" });
  const pid = Number(Deno.readTextFileSync(pidfile));
  try {
    // No waiting: it listens now.
    using qmp = new Qmp(
      new TextConnection(await Deno.connect({ transport: "unix", path: qmpPath })),
    );
    await qmp.negotiate();
    assert.equal((await qmp.execute("query-status")).status, "running");
    for (const fd of [0, 1, 2]) {
      assert.equal(Deno.readLinkSync(`/proc/${pid}/fd/${fd}`), "/dev/null");
    }
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
    assert.equal(Number(stat[3]), pid, "it has a session of its own");
    await qmp.execute("quit");
    await until(() => !isAlive(pid), () => `the end of process ${pid}`);
    assertGone(pidfile);
  } finally {
    if (isAlive(pid)) Deno.kill(pid, "SIGKILL");
  }
});

kvmTest("-daemonize returns 1 with the message when the VM does not come up", async () => {
  using folder = new TestFolder();
  const pidfile = folder.file("pid");
  assert.deepEqual(await run("-kernel", "/nonexistent", "-daemonize", "-pidfile", pidfile), {
    code: 1,
    stdout: "",
    stderr: "denovo: could not open kernel '/nonexistent': No such file or directory\n",
  });
  assertGone(pidfile);
});

onlyKvmTest("-D takes the VM's messages instead of stderr", async () => {
  using folder = new TestFolder();
  const [log, qmpPath] = [folder.file("log"), folder.file("qmp")];
  await using vmm = new Program(
    ...["-kernel", folder.guest("badop"), "-D", log, ...DEBUG_EXIT, "-serial", "stdio"],
    ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
  );
  await vmm.printed("badop");
  // Where KVM emulates INT3 the guest exits with a value of its own; elsewhere this is a message.
  await until(
    () => !vmm.running || /^Code=.*\n/m.test(Deno.readTextFileSync(log)),
    () => "an exit or a whole message",
  );
  if (!vmm.running) {
    console.warn("SKIPPED: the message in the log: this KVM emulates INT3 in kernel mode");
    return;
  }
  assert.match(Deno.readTextFileSync(log), /^KVM internal error\. Suberror: 1\n/);
  assert.match(Deno.readTextFileSync(log), /^RIP=|^RAX=/m);
  using qmp = await Qmp.to(qmpPath);
  assert.equal((await qmp.execute("query-status")).status, "internal-error");
  assert.equal(await qmp.hmp("info status"), "VM status: paused (internal-error)\n");
  assert.equal(
    (await qmp.call("cont")).error.desc,
    "Resetting the Virtual Machine is required",
  );
  await qmp.execute("quit");
  assert.equal(await vmm.ended(), 0);
  assert.equal(vmm.stderr, "");
});

for (const options of [["-no-reboot"], ["-action", "reboot=shutdown"]]) {
  kvmTest(`${options.join(" ")} ends the VM with 0 when the guest resets`, async () => {
    using folder = new TestFolder();
    const qmpPath = folder.file("qmp");
    await using vmm = new Program(
      ...["-kernel", folder.guest("reset"), "-serial", "stdio", ...options, "-S"],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
    );
    using qmp = await Qmp.to(qmpPath);
    await qmp.connection.send('{"execute": "cont"}\n');
    const { data } = await qmp.event("SHUTDOWN");
    assert.deepEqual(data, { guest: true, reason: "guest-reset" });
    assert.equal(await vmm.ended(), 0);
    assert.equal(vmm.stdout, "boot 1\n");
  });
}

for (const options of [["-no-shutdown"], ["-action", "shutdown=pause"]]) {
  kvmTest(`${options.join(" ")} leaves a VM that was shut down to look at`, async () => {
    using folder = new TestFolder();
    const qmpPath = folder.file("qmp");
    await using vmm = new Program(
      ...["-kernel", folder.guest("reset"), "-serial", "stdio", "-no-reboot", ...options, "-S"],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
    );
    using qmp = await Qmp.to(qmpPath);
    await qmp.connection.send('{"execute": "cont"}\n');
    const { data } = await qmp.event("SHUTDOWN");
    assert.deepEqual(data, { guest: true, reason: "guest-reset" });
    await qmp.reply();
    assert.deepEqual(await qmp.execute("query-status"), { status: "shutdown", running: false });
    assert.equal(await qmp.hmp("info status"), "VM status: paused (shutdown)\n");
    const refused = await qmp.call("cont");
    assert.equal(refused.error.desc, "Resetting the Virtual Machine is required");
    await qmp.execute("system_reset");
    assert.deepEqual(await qmp.execute("query-status"), { status: "paused", running: false });
    await qmp.execute("quit");
    assert.equal(await vmm.ended(), 0);
  });
}

kvmTest("a guest that resets boots again, until it ends by itself", async () => {
  using folder = new TestFolder();
  const { code, stdout, stderr } = await run(
    ...["-kernel", folder.guest("reset"), "-serial", "stdio", ...DEBUG_EXIT],
  );
  assert.deepEqual({ code, stdout, stderr }, {
    code: 1,
    stdout: "boot 1\nboot 2\nboot 3\n",
    stderr: "",
  });
});

for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
  kvmTest(`${signal} ends the VM with 0 and an event`, async () => {
    using folder = new TestFolder();
    const qmpPath = folder.file("qmp");
    await using vmm = new Program(
      ...["-kernel", folder.guest("demo"), "-serial", "stdio"],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
    );
    using qmp = await Qmp.to(qmpPath);
    vmm.kill(signal);
    const { data } = await qmp.event("SHUTDOWN");
    assert.deepEqual(data, { guest: false, reason: "host-signal" });
    assert.equal(await vmm.ended(), 0);
    assert.equal(vmm.stderr, `denovo: terminating on signal ${signal}\n`);
    assertGone(qmpPath);
  });
}

kvmTest("-serial pty says where the terminal is", async () => {
  using folder = new TestFolder();
  const qmpPath = folder.file("qmp");
  await using vmm = new Program(
    ...["-kernel", folder.guest("demo"), "-serial", "pty", "-S"],
    ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
  );
  using qmp = await Qmp.to(qmpPath);
  const said = () => vmm.stdout + vmm.stderr;
  await until(() => said().includes("\n"), () => "where the terminal is");
  const match = /^char device redirected to (\/dev\/pts\/\d+) \(label serial0\)\n$/.exec(said());
  assert.ok(match, said());
  const chardevs = await qmp.execute("query-chardev");
  assert.equal(chardevs.find(({ label }: Json) => label === "serial0").filename, `pty:${match[1]}`);
  await qmp.execute("quit");
  assert.equal(await vmm.ended(), 0);
});

kvmTest("-serial unix:…,wait=on starts the guest when a client is there", async () => {
  using folder = new TestFolder();
  const path = folder.file("serial");
  await using vmm = new Program(
    ...["-kernel", folder.guest("hello"), "-serial", `unix:${path},server=on,wait=on`],
    ...DEBUG_EXIT,
  );
  await vmm.complained(`info: QEMU waiting for connection on: disconnected:unix:${path},server=on`);
  await listens(path);
  assert.ok(vmm.running);
  using serial = await connect(path);
  const text = await new Response(serial.readable).text();
  assert.equal(text.replaceAll("\r", ""), "hello from denovo\n");
  assert.equal(await vmm.ended(), 33);
});

kvmTest("two serial ports and a debug console are told apart", async () => {
  using folder = new TestFolder();
  const qmpPath = folder.file("qmp");
  const file = (name: string) => `file:${folder.file(name)}`;
  await using vmm = new Program(
    ...["-kernel", folder.guest("hello"), "-S", ...DEBUG_EXIT],
    ...["-serial", file("com1"), "-serial", file("com2"), "-debugcon", file("debug")],
    ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
  );
  using qmp = await Qmp.to(qmpPath);
  const ports = await qmp.hmp("info mtree");
  assert.match(ports, /00000000000003f8-00000000000003ff .*serial/);
  assert.match(ports, /00000000000002f8-00000000000002ff .*serial/);
  assert.match(ports, /00000000000000e9-00000000000000e9 .*debugcon/);
  await qmp.connection.send('{"execute": "cont"}\n');
  assert.equal(await vmm.ended(), 33);
  const said = (name: string) => Deno.readTextFileSync(folder.file(name)).replaceAll("\r", "");
  assert.equal(said("com1"), "hello from denovo\n");
  assert.equal(said("com2"), "");
});

kvmTest("-chardev and -mon make monitors of both kinds", async () => {
  using folder = new TestFolder();
  const [hmpPath, qmpPath] = [folder.file("hmp"), folder.file("qmp")];
  await using vmm = new Program(
    ...["-kernel", folder.guest("demo"), "-S"],
    ...["-chardev", `socket,id=h,path=${hmpPath},server=on,wait=off`, "-mon", "h"],
    ...["-chardev", `socket,id=q,path=${qmpPath},server=on,wait=off`],
    ...["-mon", "chardev=q,mode=control,pretty=on"],
  );
  using hmp = await TextConnection.to(hmpPath);
  await hmp.take("(qemu) ");
  using pretty = await TextConnection.to(qmpPath);
  const greeting = await pretty.take("\n}\r\n");
  assert.match(greeting, /^\{\r?\n {4}"QMP": \{/);
  await hmp.send("quit\n");
  assert.equal(await vmm.ended(), 0);
});

kvmTest("QMP clients come one after another to one socket", async () => {
  using folder = new TestFolder();
  const qmpPath = folder.file("qmp");
  await using vmm = new Program(
    ...["-kernel", folder.guest("demo"), "-S"],
    ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
  );
  for (let i = 0; i < 5; i++) {
    using qmp = await Qmp.to(qmpPath);
    assert.equal((await qmp.execute("query-status")).status, "prelaunch");
  }
  // The second waits until the first has gone.
  const first = await Qmp.to(qmpPath);
  const second = Qmp.to(qmpPath);
  assert.equal((await first.execute("query-status")).status, "prelaunch");
  first[Symbol.dispose]();
  using qmp = await second;
  await qmp.execute("quit");
  assert.equal(await vmm.ended(), 0);
});

const socat = await new Deno.Command("sh", { args: ["-c", "command -v socat"] }).output();
if (!socat.success) console.warn("SKIPPED: socat as a QMP client: socat is not installed");

kvmTest(
  "socat is a QMP client",
  async () => {
    using folder = new TestFolder();
    const qmpPath = folder.file("qmp");
    await using vmm = new Program(
      ...["-kernel", folder.guest("demo"), "-S"],
      ...["-qmp", `unix:${qmpPath},server=on,wait=off`],
    );
    await listens(qmpPath);
    const client = new Deno.Command("socat", {
      args: ["-t", "60", "-", `UNIX-CONNECT:${qmpPath}`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const writer = client.stdin.getWriter();
    await writer.write(new TextEncoder().encode(
      '{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n{"execute": "quit"}\n',
    ));
    await writer.close();
    const { stdout } = await client.output();
    const lines = new TextDecoder().decode(stdout).trimEnd().split("\r\n").map((line) =>
      JSON.parse(line)
    );
    assert.deepEqual(lines.slice(1).map(({ timestamp: _, ...line }) => line), [
      { return: {} },
      { return: { status: "prelaunch", running: false } },
      { data: { guest: false, reason: "host-qmp-quit" }, event: "SHUTDOWN" },
      { return: {} },
    ]);
    assert.equal(await vmm.ended(), 0);
  },
  !socat.success,
);
