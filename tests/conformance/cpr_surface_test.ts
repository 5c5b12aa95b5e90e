/** What QEMU's users of CPR type: options, commands, parameters, capabilities, by their names. */
import assert from "node:assert/strict";
import { migrationStatuses } from "../../cpr/migration/migration.ts";
import { runStates } from "../../vmm/run_state.ts";
import { kvmTest, Laboratory } from "./program.ts";
import { Bench, run, TestFolder } from "./session.ts";

const options = [
  ...["machine", "object", "m", "incoming", "global", "S", "sandbox", "pidfile", "daemonize"],
  ...[
    "name",
    "uuid",
    "qmp",
    "monitor",
    "mon",
    "chardev",
    "serial",
    "device",
    "cpu",
    "smp",
    "kernel",
  ],
];

/** In the order of the contract, but for `query-events`, which QEMU 11.1 has no more. */
const qmpCommands = [
  ...["migrate-set-parameters", "query-migrate-parameters", "migrate-set-capabilities"],
  ...["query-migrate-capabilities", "migrate", "migrate-incoming", "migrate-continue"],
  ...["migrate_cancel", "query-migrate", "query-status", "stop", "cont", "quit", "system_reset"],
  ...["system_powerdown", "system_wakeup", "getfd", "closefd", "add-fd", "device_add"],
  ...["device_del", "object-add", "human-monitor-command", "query-version", "query-name"],
  ...["query-uuid", "query-kvm", "query-cpus-fast", "query-chardev", "query-memdev"],
  ...["query-memory-size-summary", "query-commands", "query-qmp-schema"],
];

const hmpCommands = [
  ...["migrate", "migrate_incoming", "migrate_cancel", "migrate_continue"],
  ...["migrate_set_parameter", "migrate_set_capability", "stop", "cont", "quit", "system_reset"],
  ...["system_powerdown", "system_wakeup", "device_add", "device_del", "help"],
];

const infos = [
  ...["status", "migrate", "migrate_parameters", "migrate_capabilities", "cpus", "chardev"],
  ...["version", "name", "uuid", "kvm", "qtree", "block", "network", "ramblock", "mtree"],
];

/** QEMU 11.1.3's answer to `query-migrate-capabilities`, in its order. */
const capabilities = [
  ...["xbzrle", "rdma-pin-all", "auto-converge", "events", "postcopy-ram", "x-colo"],
  ...["release-ram", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps"],
  ...["postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid"],
  ...["background-snapshot", "zero-copy-send", "postcopy-preempt", "switchover-ack"],
  ...["dirty-limit", "mapped-ram"],
];

/** QEMU 11.1.3's answer to `query-migrate-parameters`; and one parameter that is ours. */
const parameters = {
  "x-cpr-exec-relay": "auto",
  "x-trace-file": "",
  "cpu-throttle-tailslow": false,
  "xbzrle-cache-size": 67108864,
  "cpu-throttle-initial": 20,
  "announce-max": 550,
  "direct-io": false,
  "avail-switchover-bandwidth": 0,
  "zero-page-detection": "multifd",
  "multifd-qatzip-level": 1,
  "x-rdma-chunk-size": 1048576,
  "multifd-channels": 2,
  "mode": "normal",
  "multifd-zstd-level": 1,
  "announce-initial": 50,
  "downtime-limit": 300,
  "tls-authz": "",
  "cpr-exec-command": [],
  "vcpu-dirty-limit": 1,
  "multifd-compression": "none",
  "announce-rounds": 5,
  "announce-step": 100,
  "tls-creds": "",
  "x-vcpu-dirty-limit-period": 1000,
  "multifd-zlib-level": 1,
  "max-cpu-throttle": 99,
  "max-postcopy-bandwidth": 0,
  "tls-hostname": "",
  "throttle-trigger-threshold": 50,
  "max-bandwidth": 134217728,
  "x-checkpoint-delay": 20000,
  "cpu-throttle-increment": 10,
};

Deno.test("every option that CPR needs is there", async () => {
  const { stdout, code } = await run("-help");
  assert.equal(code, 0);
  for (const option of options) {
    assert.match(stdout, new RegExp(`^-${option}( |$)|^-\\w+ or -${option}\\b`, "m"), option);
  }
});

Deno.test("every memory backend that CPR knows is there, with its properties", async () => {
  for (const type of ["memfd", "file", "ram", "shm"]) {
    const { stdout, code } = await run("-object", `memory-backend-${type},help`);
    assert.equal(code, 0, type);
    for (const property of ["size", "share", ...(type === "file" ? ["mem-path", "align"] : [])]) {
      assert.match(stdout, new RegExp(`^ +${property}=`, "m"), `${type} ${property}`);
    }
  }
  const { stdout } = await run("-machine", "microvm,help");
  for (const property of ["aux-ram-share", "memory-backend"]) {
    assert.match(stdout, new RegExp(`^ +${property}=`, "m"), property);
  }
});

kvmTest("every QMP command of the contract is there", async () => {
  await using bench = await Bench.open("-S");
  const commands: { name: string }[] = await bench.qmp.execute("query-commands");
  const names = new Set(commands.map(({ name }) => name));
  assert.deepEqual(qmpCommands.filter((name) => !names.has(name)), []);
});

kvmTest("every HMP command of the contract is there, with help", async () => {
  await using bench = await Bench.open("-S");
  for (const name of hmpCommands) {
    assert.match(await bench.qmp.hmp(`help ${name}`), new RegExp(`^${name}\\b.* -- `), name);
  }
  for (const name of infos) {
    assert.doesNotMatch(await bench.qmp.hmp(`info ${name}`), /unknown command|^Error/, name);
    assert.match(await bench.qmp.hmp("help info"), new RegExp(`^info ${name}\\b`, "m"), name);
  }
});

kvmTest("parameters and capabilities have QEMU's names and defaults", async () => {
  await using bench = await Bench.open("-S");
  assert.deepEqual(await bench.qmp.execute("query-migrate-parameters"), parameters);
  assert.deepEqual(
    await bench.qmp.execute("query-migrate-capabilities"),
    capabilities.map((capability) => ({ state: false, capability })),
  );
  assert.equal(
    await bench.qmp.hmp("info migrate_capabilities"),
    capabilities.map((name) => `${name}: off\n`).join(""),
  );
  assert.equal(
    await bench.qmp.hmp("info migrate_parameters"),
    `announce-initial: 50 ms
announce-max: 550 ms
announce-rounds: 5
announce-step: 100 ms
throttle-trigger-threshold: 50
cpu-throttle-initial: 20
cpu-throttle-increment: 10
cpu-throttle-tailslow: off
max-cpu-throttle: 99
tls-creds: ''
tls-hostname: ''
tls-authz: ''
max-bandwidth: 134217728 bytes/second
avail-switchover-bandwidth: 0 bytes/second
max-postcopy-bandwidth: 0 bytes/second
downtime-limit: 300 ms
x-checkpoint-delay: 20000 ms
multifd-channels: 2
multifd-compression: none
zero-page-detection: multifd
xbzrle-cache-size: 67108864 bytes
x-vcpu-dirty-limit-period: 1000 ms
vcpu-dirty-limit: 1 MB/s
mode: normal
direct-io: off
x-rdma-chunk-size: 1048576 bytes
cpr-exec-command:
x-cpr-exec-relay: auto
x-trace-file: 
`,
  );
});

const switches = [
  "events",
  "x-ignore-shared",
  "pause-before-switchover",
  "return-path",
  "validate-uuid",
];

kvmTest("every capability of the contract goes on and off, by QMP, HMP and -global", async () => {
  using folder = new TestFolder();
  const on = async (bench: Bench) => {
    const all: { capability: string; state: boolean }[] = await bench.qmp.execute(
      "query-migrate-capabilities",
    );
    return all.filter(({ state }) => state).map(({ capability }) => capability).sort();
  };
  {
    await using bench = await Bench.open("-S");
    for (const capability of switches) {
      await bench.qmp.execute("migrate-set-capabilities", {
        capabilities: [{ capability, state: true }],
      });
      assert.deepEqual(await on(bench), [capability]);
      assert.equal(await bench.qmp.hmp(`migrate_set_capability ${capability} off`), "");
      assert.deepEqual(await on(bench), []);
    }
  }
  await using bench = await Bench.open(
    ...["-S", "-D", folder.file("log")],
    ...switches.flatMap((name) => ["-global", `migration.${name}=on`]),
  );
  assert.deepEqual(await on(bench), [...switches].sort());
});

kvmTest("-global sets migration parameters too, as under QEMU", async () => {
  await using bench = await Bench.open(
    ...["-S", "-global", "migration.downtime-limit=500", "-global", "migration.mode=cpr-reboot"],
  );
  assert.deepEqual(await bench.qmp.execute("query-migrate-parameters"), {
    ...parameters,
    "downtime-limit": 500,
    mode: "cpr-reboot",
  });
});

for (
  const [global, message] of [
    ["migration.mode=pigeon", "Parameter 'mode' does not accept value 'pigeon'"],
    ["migration.x-ignore-shared=maybe", "Parameter 'x-ignore-shared' expects 'on' or 'off'"],
    [
      "migration.downtime-limit=9999999",
      "Option downtime-limit expects an integer in the range of 0 to (2000 * 1000) ms",
    ],
    ["migration.pigeon=on", "Property 'migration.pigeon' not found"],
  ]
) {
  kvmTest(`-global ${global} is refused on one line`, async () => {
    using folder = new TestFolder();
    const ended = await run("-kernel", folder.guest("hello"), "-serial", "null", "-global", global);
    assert.deepEqual(ended, {
      code: 1,
      stdout: "",
      stderr: `denovo: -global ${global}: ${message}\n`,
    });
  });
}

kvmTest("`MIGRATION` events come only while the capability `events` is on", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  const { log } = qmp;
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate-set-capabilities", {
    capabilities: [{ capability: "events", state: false }],
  });
  log.length = 0;
  await qmp.execute("migrate", { uri: `file:${lab.path("state")}` });
  await qmp.reaches("postmigrate");
  assert.deepEqual(log.filter((entry) => entry !== "reply"), ["STOP"]);
});

Deno.test("statuses and run states are those of the contract", () => {
  assert.deepEqual([...migrationStatuses], [
    ...["none", "setup", "active", "pre-switchover", "device", "completed", "failing", "failed"],
    ...["cancelling", "cancelled"],
  ]);
  const states = [
    ...["running", "paused", "finish-migrate", "postmigrate", "inmigrate", "suspended"],
    ...["prelaunch", "shutdown", "internal-error"],
  ] as const;
  for (const state of states) assert.ok(runStates.includes(state), state);
});
