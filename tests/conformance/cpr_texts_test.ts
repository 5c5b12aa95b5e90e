/**
 * The messages that QEMU 11.1.3 gives for wrong usage of migration, word for word, each brought about
 * in the program. Requests and replies are QEMU's recorded ones, but where it died.
 */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, type Qmp, unixChannel } from "./program.ts";

/** A request, and the error it gets; `{}` stands for success. */
type Line = readonly [command: string, args: object, reply: string | Record<never, never>];

/** Sends requests; fails at the first reply that differs. */
async function replay(qmp: Qmp, lines: readonly Line[]): Promise<void> {
  for (const [command, args, reply] of lines) {
    const what = `${command} ${JSON.stringify(args)}`;
    if (typeof reply === "string") assert.equal(await qmp.refusal(command, args), reply, what);
    else assert.deepEqual(await qmp.execute(command, args), reply, what);
  }
}

const capability = (capability: string, state = true) => ({
  capabilities: [{ capability, state }],
});

kvmTest("`migrate` with wrong arguments is refused in QEMU's words", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const needEither = "need either 'uri' or 'channels' argument";
  const main = unixChannel("main", "x");
  await replay(qmp, [
    ["migrate", {}, needEither],
    ["migrate", { channels: [] }, needEither],
    ["migrate", { uri: "" }, "unknown migration protocol: "],
    ["migrate", { uri: "nope" }, "unknown migration protocol: nope"],
    ["migrate", { uri: "foo:bar" }, "unknown migration protocol: foo:bar"],
    ["migrate", { uri: "unix:" }, "invalid Unix socket address"],
    ["migrate", { uri: "file:" }, "Could not create '': No such file or directory"],
    ["migrate", { uri: "tcp:127.0.0.1" }, "error parsing address '127.0.0.1'"],
    ["migrate", { uri: "fd:99" }, "File descriptor named '99' has not been found"],
    ["migrate", { uri: "fd:abc" }, "File descriptor named 'abc' has not been found"],
    ["migrate", { channels: [main, main] }, "Channel list has more than one main entry"],
    ["migrate", { channels: [unixChannel("cpr", "x")] }, "Channel list has no main entry"],
    [
      "migrate",
      { channels: [{ ...main, "channel-type": "data" }] },
      "Parameter 'channel-type' does not accept value 'data'",
    ],
    [
      "migrate",
      { channels: [{ ...main, addr: { transport: "nope" } }] },
      "Parameter 'transport' does not accept value 'nope'",
    ],
    [
      "migrate",
      { channels: [{ ...main, addr: { transport: "socket", type: "unix" } }] },
      "Parameter 'channels[0].addr.path' is missing",
    ],
    [
      "migrate",
      { channels: [{ "channel-type": "main" }] },
      "Parameter 'channels[0].addr' is missing",
    ],
    ["migrate", { uri: 5 }, "Invalid parameter type for 'uri', expected: string"],
    ["migrate", { uri: "tcp:x:1", bogus: true }, "Parameter 'bogus' is unexpected"],
    ["migrate", { uri: "tcp:x:1", detach: true }, "Parameter 'detach' is unexpected"],
    [
      "migrate",
      { uri: "tcp:x:1", resume: true },
      "Cannot resume if there is no paused migration",
    ],
    [
      "migrate",
      { uri: "unix:x", channels: [main] },
      "'uri' and 'channels' arguments are mutually exclusive; exactly one of the two should be present",
    ],
    ["query-status", {}, { status: "running", running: true }],
  ]);
  assert.ok(!qmp.log.includes("STOP"));
});

kvmTest(
  "a main channel that cannot be reached fails after the reply, in QEMU's words",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("vmm");
    for (
      const [uri, reason] of [
        ["tcp:127.0.0.1:1", "Failed to connect to '127.0.0.1:1': Connection refused"],
        ["tcp:127.0.0.1:0", "Failed to connect to '127.0.0.1:0': Connection refused"],
        [
          "unix:/nonexistent.sock",
          "Failed to connect to '/nonexistent.sock': No such file or directory",
        ],
      ]
    ) {
      qmp.log.length = 0;
      await qmp.execute("migrate", { uri });
      await qmp.logged("MIGRATION failed");
      assert.deepEqual(
        qmp.log,
        ["MIGRATION setup", "reply", "MIGRATION failing", "MIGRATION failed"],
      );
      assert.deepEqual(await qmp.migration(), { status: "failed", "error-desc": reason });
    }
    await qmp.assertGuestRuns();
  },
);

kvmTest(
  "CPR modes are refused in QEMU's words when something is missing or in the way",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("vmm");
    const channels = [unixChannel("main", lab.path("main")), unixChannel("cpr", lab.path("cpr"))];
    const [main, cpr] = channels;
    const addresses = {
      file: { transport: "file", filename: lab.path("state"), offset: 0 },
      exec: { transport: "exec", args: ["/bin/cat"] },
      inet: { transport: "socket", type: "inet", host: "127.0.0.1", port: "4444" },
      port0: { transport: "socket", type: "inet", host: "127.0.0.1", port: "0" },
    };
    const to = (addr: object) => ({ channels: [{ ...main, addr }, cpr] });
    const over = (addr: object) => ({ channels: [main, { ...cpr, addr }] });
    const noCpr = "missing 'cpr' migration channel";
    const streamable = "Migration requires streamable transport (eg unix)";
    const unix = "bad cpr channel address; must be unix";
    const features: Line[] = (["cpr-reboot", "cpr-transfer", "cpr-exec"] as const).flatMap((
      mode,
    ) => [
      ["migrate-set-parameters", { mode, "cpr-exec-command": ["x"] }, {}],
      ["migrate-set-capabilities", capability("postcopy-ram"), {}],
      ["migrate", { channels }, "Cannot use postcopy with CPR"],
      ["migrate-set-capabilities", capability("postcopy-ram", false), {}],
      ["migrate-set-capabilities", capability("background-snapshot"), {}],
      ["migrate", { channels }, "Cannot use background snapshot with CPR"],
      ["migrate-set-capabilities", capability("background-snapshot", false), {}],
      ["migrate-set-capabilities", capability("return-path"), {}],
      ["migrate-set-capabilities", capability("x-colo"), {}],
      ["migrate", { channels }, "Cannot use COLO with CPR"],
      ["migrate-set-capabilities", capability("x-colo", false), {}],
      ["migrate-set-capabilities", capability("return-path", false), {}],
    ]);
    await replay(qmp, [
      ["migrate-set-parameters", { mode: "cpr-exec" }, {}],
      ["migrate", { uri: "file:x" }, "cpr-exec mode requires setting cpr-exec-command"],
      ["migrate-set-parameters", { mode: "cpr-transfer" }, {}],
      ["migrate", { channels: [main] }, noCpr],
      ["migrate", { uri: "unix:x" }, noCpr],
      ["migrate", { channels: [cpr] }, "Channel list has no main entry"],
      ["migrate", to(addresses.file), streamable],
      ["migrate", to(addresses.exec), streamable],
      ["migrate", to(addresses.port0), streamable],
      ["query-migrate", {}, {}],
      ...features,
      ["query-migrate", {}, {}],
      ["migrate-set-parameters", { mode: "cpr-transfer" }, {}],
      ["migrate", over(addresses.file), unix],
      ["migrate", over(addresses.inet), unix],
      ["migrate", over(addresses.port0), unix],
      ["query-migrate", {}, { status: "failed", "error-desc": unix }],
      [
        "migrate",
        { channels },
        `Failed to connect to '${lab.path("cpr")}': No such file or directory`,
      ],
      ["query-status", {}, { status: "running", running: true }],
    ]);
    assert.ok(!qmp.log.includes("STOP"));
    await qmp.assertGuestRuns();
  },
);

kvmTest("commands for another moment are refused in QEMU's words", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const uri = "unix:x";
  await replay(qmp, [
    ["migrate-incoming", { uri }, "'-incoming' was not specified on the command line"],
    ["migrate-continue", { state: "pre-switchover" }, "Migration not in expected state: none"],
    ["migrate_cancel", {}, {}],
    ["migrate_set_speed", {}, "The command migrate_set_speed has not been found"],
    ["query-status", { x: 1 }, "Parameter 'x' is unexpected"],
    ["query-migrate", {}, {}],
  ]);
});

kvmTest("parameters and capabilities are refused in QEMU's words", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const downtime = "Option downtime-limit expects an integer in the range of 0 to (2000 * 1000) ms";
  const array = "Invalid parameter type for 'cpr-exec-command', expected: array";
  await replay(qmp, [
    ["migrate-set-parameters", { mode: "nope" }, "Parameter 'mode' does not accept value 'nope'"],
    ["migrate-set-parameters", { mode: 5 }, "Invalid parameter type for 'mode', expected: string"],
    ["migrate-set-parameters", { "cpr-exec-command": "a b" }, array],
    ["migrate-set-parameters", { "cpr-exec-command": [] }, {}],
    ["migrate-set-parameters", { "downtime-limit": -1 }, downtime],
    ["migrate-set-parameters", { "downtime-limit": 99999999 }, downtime],
    ["migrate-set-parameters", { nope: 1 }, "Parameter 'nope' is unexpected"],
    ["migrate-set-parameters", {}, {}],
    [
      "migrate-set-capabilities",
      capability("nope"),
      "Parameter 'capability' does not accept value 'nope'",
    ],
    [
      "migrate-set-capabilities",
      capability("x-colo"),
      "Capability 'x-colo' requires capability 'return-path'",
    ],
  ]);
});

kvmTest("a VM that waits for its state answers in QEMU's words", async () => {
  await using lab = await Laboratory.open();
  const vmm = lab.start("new", { options: ["-incoming", "defer"] });
  const qmp = await (await lab.monitor(vmm)).withEvents();
  const uri = `unix:${lab.path("main")}`;
  const both = [unixChannel("main", lab.path("main")), unixChannel("cpr", lab.path("cpr"))];
  await replay(qmp, [
    ["query-status", {}, { status: "inmigrate", running: false }],
    ["query-migrate", {}, {}],
    ["migrate-incoming", {}, "need either 'uri' or 'channels' argument"],
    ["migrate-incoming", { uri: "nope" }, "unknown migration protocol: nope"],
    [
      "migrate-incoming",
      { channels: both },
      "Channel list must have only one entry, for type 'main'",
    ],
    ["cont", {}, {}],
    ["stop", {}, {}],
    ["query-status", {}, { status: "inmigrate", running: false }],
    ["system_reset", {}, {}],
    ["migrate", { uri }, "Guest is waiting for an incoming migration"],
    [
      "migrate-incoming",
      { uri: "unix:/nodir/x" },
      "Failed to bind socket to /nodir/x: No such file or directory",
    ],
    [
      "migrate-incoming",
      { uri: "file:/nonexistent" },
      "Could not open '/nonexistent': No such file or directory",
    ],
    // QEMU is stuck in `setup` here; this VM can be told another address.
    ["migrate-incoming", { uri }, {}],
    ["migrate-incoming", { uri }, "The incoming migration has already been started"],
    ["query-migrate", {}, { status: "setup" }],
  ]);
});

/** QEMU's dialogue over the human monitor, as recorded; the VM's answers to wrong lines. */
const dialogue: [line: string, text: string][] = [
  ["migrate", 'migrate: string expected\nTry "help migrate" for more information\n'],
  ["migrate foo", "Error: unknown migration protocol: foo\n"],
  ["migrate -d", 'migrate: string expected\nTry "help migrate" for more information\n'],
  [
    "migrate -z tcp:x:1",
    'migrate: unsupported option -z\nTry "help migrate" for more information\n',
  ],
  ["migrate -d tcp:127.0.0.1:1", ""],
  ["info migrate", "Status: \t\tfailed (Failed to connect to '127.0.0.1:1': Connection refused)\n"],
  [
    "migrate_set_parameter",
    'migrate_set_parameter: string expected\nTry "help migrate_set_parameter" for more information\n',
  ],
  [
    "migrate_set_parameter mode",
    'migrate_set_parameter: string expected\nTry "help migrate_set_parameter" for more information\n',
  ],
  [
    "migrate_set_parameter mode nope",
    "Error: Parameter 'mode' does not accept value 'nope'\n",
  ],
  ["migrate_set_parameter nope 1", "Error: invalid parameter value: nope\n"],
  [
    "migrate_set_parameter downtime-limit -5",
    "Error: Value '-5' is out of range for parameter 'downtime-limit'\n",
  ],
  [
    "migrate_set_parameter downtime-limit abc",
    "Error: Parameter 'downtime-limit' expects a non-negative number below 2^64\n" +
    "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n" +
    "and exabytes, respectively.\n",
  ],
  ["migrate_set_parameter max-bandwidth 10M", ""],
  ["migrate_set_parameter mode cpr-exec", ""],
  ["migrate -d file:/tmp/x", "Error: cpr-exec mode requires setting cpr-exec-command\n"],
  ["migrate_set_parameter mode cpr-transfer", ""],
  ["migrate -d unix:/nonexistent", "Error: missing 'cpr' migration channel\n"],
  ["migrate_set_parameter mode cpr-reboot", ""],
  [
    "migrate_set_capability",
    'migrate_set_capability: string expected\nTry "help migrate_set_capability" for more information\n',
  ],
  ["migrate_set_capability nope on", "Error: invalid parameter value: nope\n"],
  [
    "migrate_set_capability x-ignore-shared maybe",
    "Expected 'on' or 'off'\nTry \"help migrate_set_capability\" for more information\n",
  ],
  ["migrate_set_capability x-ignore-shared off", ""],
  [
    "migrate_incoming",
    'migrate_incoming: string expected\nTry "help migrate_incoming" for more information\n',
  ],
  [
    "migrate_incoming unix:/tmp/x",
    "Error: '-incoming' was not specified on the command line\n",
  ],
  ["migrate_continue pre-switchover", "Error: Migration not in expected state: failed\n"],
  ["migrate_cancel", ""],
  ["system_wakeup", "Error: Unable to wake up: guest is not in suspended state\n"],
  ["nosuch", "unknown command: 'nosuch'\n"],
  ["info status", "VM status: running\n"],
  [
    "help migrate",
    "migrate [-d] [-r] uri -- migrate to URI (using -d to not wait for completion)\n" +
    "\t\t\t -r to resume a paused postcopy migration\n",
  ],
  [
    "help migrate_incoming",
    "migrate_incoming uri -- Continue an incoming migration from an -incoming defer\n",
  ],
  [
    "help migrate_set_parameter",
    "migrate_set_parameter parameter value -- Set the parameter for migration\n",
  ],
  [
    "help migrate_set_capability",
    "migrate_set_capability capability state -- " +
    "Enable/Disable the usage of a capability for migration\n",
  ],
  ["help migrate_cancel", "migrate_cancel  -- cancel the current VM migration\n"],
  [
    "help migrate_continue",
    "migrate_continue state -- Continue migration from the given paused state\n",
  ],
];

kvmTest("the human monitor's migration commands answer as QEMU's", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  for (const [line, text] of dialogue) {
    if (line === "info migrate") await qmp.logged("MIGRATION failed");
    assert.equal((await qmp.hmp(line)).replaceAll("\r", ""), text, line);
  }
});

kvmTest("`info migrate` and `query-migrate` show a finished cpr-reboot as QEMU does", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  assert.equal(await qmp.hmp("info migrate"), "");
  assert.equal(await qmp.hmp("migrate_set_parameter mode cpr-reboot"), "");
  // Without -d the line is answered when the migration has ended.
  assert.equal(await qmp.hmp(`migrate file:${lab.path("state")}`), "");
  assert.equal(await qmp.hmp("info status"), "VM status: paused (postmigrate)\r\n");
  const size = String.raw`\d+(\.\d+)? [KM]?i?B`;
  assert.match(
    (await qmp.hmp("info migrate")).replaceAll("\r", ""),
    new RegExp(
      String.raw`^Status: \t\tcompleted
Time \(ms\): \t\ttotal=\d+, setup=\d+, down=\d+
RAM info:
  Throughput \(Mbps\): \t\d+\.\d\d
  Sizes: \t\tpagesize=4 KiB, total=64 MiB
  Transfers: \t\ttransferred=${size}, remain=0 B
    Channels: \t\tprecopy=0 B, multifd=0 B, postcopy=0 B
    Page Types: \tnormal=\d+, zero=\d+
  Page Rates \(pps\): \ttransfer=\d+
  Others: \t\tdirty_syncs=2, downtime_bytes=\d+
$`,
    ),
  );
  const info = await qmp.execute<Record<string, unknown>>("query-migrate");
  // What begins with `x-` is ours.
  const members = Object.keys(info).filter((name) => !name.startsWith("x-"));
  assert.deepEqual(members, ["status", "setup-time", "downtime", "total-time", "ram"]);
  assert.deepEqual(Object.keys(info.ram as object), [
    ...["total", "postcopy-requests", "dirty-sync-count", "multifd-bytes", "pages-per-second"],
    ...["downtime-bytes", "page-size", "remaining", "postcopy-bytes", "mbps", "transferred"],
    ...["dirty-sync-missed-zero-copy", "precopy-bytes", "duplicate", "dirty-pages-rate"],
    ...["normal-bytes", "normal"],
  ]);
  const { ram } = info as { ram: Record<string, number> };
  const pages = ram.normal + ram.duplicate;
  assert.equal(pages * ram["page-size"], ram.total);
  assert.equal(ram["normal-bytes"], ram.normal * ram["page-size"]);
  assert.equal(ram.transferred, Deno.statSync(lab.path("state")).size);
});
