/**
 * Every QMP command against a real VM, with replies of the shapes that QEMU 11.1.3 gives.
 */
import assert from "node:assert/strict";
import { testAccelerator } from "../needs_kvm.ts";
import { layout } from "../guests/programs.ts";
import { Bench, type Json, kvmTest } from "./session.ts";

/** Replaces what differs from run to run by its type's name. */
function shape(value: Json, volatile: readonly string[]): Json {
  if (Array.isArray(value)) return value.map((item) => shape(item, volatile));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [
      name,
      volatile.includes(name) ? typeof member : shape(member, volatile),
    ]),
  );
}

const RAM = 64 << 20;
const memdev = {
  id: "ram0",
  size: RAM,
  merge: true,
  dump: true,
  prealloc: false,
  share: true,
  reserve: true,
  policy: "default",
  "host-nodes": [],
};

/** Queries without arguments: what QEMU answers, here for two vCPUs and a named memory backend. */
const queries: [command: string, result: Json, ...volatile: string[]][] = [
  ["query-status", { status: "running", running: true }],
  [
    "query-version",
    { qemu: { micro: 3, minor: 1, major: 11 }, package: "string" },
    "package",
  ],
  ["query-name", { name: "vm" }],
  ["query-uuid", { UUID: "00000000-0000-0000-0000-000000000000" }],
  ["query-kvm", { enabled: testAccelerator === "kvm", present: true }],
  ["query-target", { arch: "x86_64" }],
  [
    "query-cpus-fast",
    [0, 1].map((index) => ({
      "thread-id": "number",
      props: { "core-id": index, "thread-id": "number", "socket-id": 0 },
      "qom-type": "host-x86_64-cpu",
      "qom-path": "string",
      "cpu-index": index,
      target: "x86_64",
    })),
    "thread-id",
    "qom-path",
  ],
  [
    "query-chardev",
    [
      { "frontend-open": true, filename: "null", label: "serial0" },
      { "frontend-open": true, filename: "unix:QMP,server=on", label: "compat_monitor0" },
    ],
  ],
  ["query-memdev", [memdev]],
  ["query-memory-size-summary", { "base-memory": RAM, "plugged-memory": 0 }],
  ["query-block", []],
  ["query-fdsets", []],
];

kvmTest("queries answer as QEMU does", async () => {
  await using bench = await Bench.open(
    ...["-smp", "2,sockets=1,cores=2", "-name", "vm", "-cpu", "host"],
    ...["-object", `memory-backend-memfd,id=ram0,size=64M,share=on`],
    ...["-machine", "microvm,memory-backend=ram0"],
  );
  const listed: Json[] = await bench.qmp.execute("query-commands");
  const names = listed.map(({ name }) => name);
  for (const [command, result, ...volatile] of queries) {
    if (!names.includes(command)) assert.fail(`${command} is not listed`);
    const answer = shape(await bench.qmp.execute(command), volatile);
    const text = JSON.stringify(answer).replaceAll(bench.qmpPath, "QMP");
    const sorted = (value: Json) =>
      command === "query-chardev"
        ? value.toSorted((a: Json, b: Json) => a.label < b.label ? -1 : 1)
        : value;
    assert.deepEqual(sorted(JSON.parse(text)), sorted(result), command);
  }
});

kvmTest("query-commands and query-qmp-schema list exactly what is there", async () => {
  await using bench = await Bench.open("-S");
  const { qmp } = bench;
  const commands: string[] = (await qmp.execute("query-commands")).map(({ name }: Json) => name);
  const schema: Json[] = await qmp.execute("query-qmp-schema");
  const entries = new Map(schema.map((entry) => [entry.name, entry]));
  assert.equal(entries.size, schema.length, "a name is there twice");
  const described = schema.filter((entry) => entry["meta-type"] === "command");
  assert.deepEqual(described.map(({ name }) => name).sort(), commands.toSorted());
  // Every type that is named is described.
  for (const entry of schema) {
    const types = [
      ...["arg-type", "ret-type", "element-type"].map((key) => entry[key]),
      ...[...entry.members ?? [], ...entry.variants ?? []].map(({ type }: Json) => type),
    ];
    for (const type of types) assert.ok(type === undefined || entries.has(type), `type ${type}`);
  }
  const migrate = entries.get(entries.get("migrate")["arg-type"]);
  assert.deepEqual(
    migrate.members.filter(({ name }: Json) => ["uri", "channels"].includes(name))
      .map(({ name }: Json) => name).toSorted(),
    ["channels", "uri"],
  );
  for (const name of ["STOP", "RESUME", "RESET", "SHUTDOWN", "POWERDOWN", "MIGRATION"]) {
    assert.equal(entries.get(name)?.["meta-type"], "event", name);
  }
  // What lacks an argument that the schema demands is refused for that; all else is executed.
  for (const name of commands.filter((name) => !["quit", "qmp_capabilities"].includes(name))) {
    const required = entries.get(entries.get(name)["arg-type"]).members
      .filter((member: Json) => !("default" in member)).map((member: Json) => member.name);
    const { error } = await qmp.call(name);
    assert.notEqual(error?.class, "CommandNotFound", name);
    if (required.length > 0) {
      const missing = required.map((member: string) => `Parameter '${member}' is missing`);
      assert.ok(missing.includes(error?.desc), `${name}: ${error?.desc}`);
    }
    const refused = (await qmp.call(name, { "no-such-argument": 1 })).error;
    // device_add takes any property of any device.
    if (name !== "device_add") assert.ok(refused, name);
  }
  const unknown = await qmp.call("no-such");
  assert.deepEqual(unknown.error, {
    class: "CommandNotFound",
    desc: "The command no-such has not been found",
  });
});

kvmTest("stop, cont and reset send their events, with increasing timestamps", async () => {
  const start = Date.now();
  await using bench = await Bench.open();
  const { qmp } = bench;
  const steps: [command: string, events: [name: string, data?: Json][], state: string][] = [
    ["stop", [["STOP"]], "paused"],
    ["stop", [], "paused"],
    ["cont", [["RESUME"]], "running"],
    ["cont", [], "running"],
    [
      "system_reset",
      [["RESET", { guest: false, reason: "host-qmp-system-reset" }]],
      "running",
    ],
    ["system_powerdown", [["POWERDOWN"]], "running"],
  ];
  let last = 0;
  for (const [command, events, state] of steps) {
    assert.deepEqual(await qmp.execute(command), {}, command);
    assert.equal((await qmp.execute("query-status")).status, state);
    // Some come before the reply, some after: all before the next one.
    const got = qmp.events.splice(0);
    assert.deepEqual(
      got.map(({ event, data }) => data ? [event, data] : [event]),
      events,
      command,
    );
    for (const { timestamp: { seconds, microseconds } } of got) {
      assert.ok(Number.isInteger(microseconds) && microseconds >= 0 && microseconds < 1e6);
      const time = seconds * 1e6 + microseconds;
      assert.ok(time >= last && time >= start * 1000 - 1e6 && time <= Date.now() * 1000 + 1e6);
      last = time;
    }
  }
  assert.deepEqual((await qmp.call("system_wakeup")).error, {
    class: "GenericError",
    desc: "Unable to wake up: guest is not in suspended state",
  });
});

kvmTest("quit sends SHUTDOWN, replies, and hangs up", async () => {
  await using bench = await Bench.open();
  await bench.qmp.connection.send('{"execute": "quit", "id": 1}\n');
  const lines = (await bench.qmp.connection.end()).trimEnd().split("\r\n").map((line) =>
    JSON.parse(line)
  );
  assert.deepEqual(lines.map(({ timestamp: _, ...line }) => line), [
    { event: "SHUTDOWN", data: { guest: false, reason: "host-qmp-quit" } },
    { return: {}, id: 1 },
  ]);
  assert.equal(await bench.vmm.ended(), 0);
});

/** What each `info` sub-command prints of a VM that runs; undefined where it may print nothing. */
const infos: Record<string, RegExp | undefined> = {
  block: undefined,
  blockstats: undefined,
  chardev: /^serial0: filename=null$/m,
  cpus: /^\* CPU #0: thread_id=\d+ model=/,
  history: undefined,
  iothreads: undefined,
  irq: /^IRQ statistics for (kvm-)?ioapic:$/m,
  kvm: /^kvm support: (enabled|disabled)$/m,
  lapic: /^dumping local APIC state for CPU 0\s*$/m,
  memdev: /^memory backend: microvm\.ram$/m,
  memory_size_summary: /^base memory: 67108864\nplugged memory: 0$/m,
  migrate: undefined,
  migrate_capabilities: /^x-ignore-shared: off$/m,
  migrate_parameters: /^mode: normal$/m,
  mtree: /^address-space: memory$/m,
  "mtree -f": /^FlatView #0$/m,
  name: undefined,
  network: undefined,
  pci: undefined,
  pic: /^pic0: irr=[0-9a-f]{2}/m,
  qtree: /^bus: main-system-bus$/m,
  ramblock: /^ +microvm\.ram +4 KiB/m,
  registers: /^CPU#0$[^]*RIP=[0-9a-f]{16}/m,
  roms: /addr=[0-9a-f]+ size=/m,
  status: /^VM status: running$/m,
  uuid: /^00000000-0000-0000-0000-000000000000$/m,
  version: /^11\.1\.3/m,
};

/** Those that tell of a device, without it. */
const lacking: Record<string, string> = {
  balloon: "No balloon device has been activated",
  "vm-generation-id": "VM Generation ID device not found",
};

kvmTest("every info sub-command works on a VM that runs", async () => {
  await using bench = await Bench.open();
  const { qmp } = bench;
  const help = await qmp.hmp("help info");
  const known = [...help.matchAll(/^info ([\w-]+)/gm)].map(([, name]) => name);
  const expected = Object.keys(infos).filter((name) => !name.includes(" "));
  assert.deepEqual(known.toSorted(), [...expected, ...Object.keys(lacking)].toSorted());
  for (const [name, error] of Object.entries(lacking)) {
    assert.equal((await qmp.hmp(`info ${name}`)).replaceAll("\r", ""), `Error: ${error}\n`);
  }
  for (const [name, pattern] of Object.entries(infos)) {
    const text = await qmp.hmp(`info ${name}`);
    assert.doesNotMatch(text, /^Error:|^unknown command/m);
    if (pattern) assert.match(text, pattern, name);
  }
});

kvmTest("x and xp read the guest's memory while it runs", async () => {
  await using bench = await Bench.open();
  const { qmp } = bench;
  const read = async (command: "x" | "xp", address: number, count = 1) => {
    const text = await qmp.hmp(`${command} /${count}gx 0x${address.toString(16)}`);
    return [...text.matchAll(/0x([0-9a-f]{16})/g)].map(([, word]) => BigInt(`0x${word}`));
  };
  const counter = async () => Number((await read("xp", layout.counter))[0]);
  const first = await counter();
  while (await counter() <= first);
  // The pattern that the guest verifies: word i is i times this number.
  const step = 0x9e3779b97f4a7c15n;
  assert.deepEqual(
    await read("xp", layout.pattern, 4),
    [0n, 1n, 2n, 3n].map((i) => BigInt.asUintN(64, i * step)),
  );
  // Virtual addresses are physical ones in this guest.
  assert.deepEqual(await read("x", layout.pattern + 8), [step]);
  assert.match(
    await qmp.hmp(`xp /4xb 0x${layout.pattern.toString(16)}`),
    /: 0x00 0x00 0x00 0x00$/m,
  );
  assert.match(await qmp.hmp("xp /1gx 0x7ffffffffff"), /7ffffffffff: Cannot access memory\n$/);
});

kvmTest("block nodes come and go, and their images stay locked while they are drives", async () => {
  const image = await Deno.makeTempFile();
  await Deno.truncate(image, 1 << 20);
  try {
    await using bench = await Bench.open("-drive", `file=${image},format=raw,id=d,if=none`);
    const { qmp } = bench;
    const names = async () =>
      (await qmp.execute("query-named-block-nodes")).map((node: Json) => node["node-name"]);
    assert.deepEqual(await names(), ["#d", "#d.file"]);
    const other = { driver: "file", filename: image, "read-only": true };
    await qmp.execute("blockdev-add", { driver: "raw", "node-name": "r", file: other });
    assert.deepEqual(await names(), ["r", "#r.file", "#d", "#d.file"]);
    await assert.rejects(
      () => qmp.execute("blockdev-add", { driver: "null-co", "node-name": "r" }),
      { message: /Duplicate nodes with node-name='r'/ },
    );
    await qmp.execute("blockdev-del", { "node-name": "r" });
    await qmp.execute("block_resize", { device: "d", size: 2 << 20 });
    assert.equal((await Deno.stat(image)).size, 2 << 20);
    const [disk] = await qmp.execute("query-block");
    assert.equal(disk.inserted.image["virtual-size"], 2 << 20);
    assert.equal(disk.inserted.file, image);
    assert.match(await qmp.hmp("info block"), /^d \(#d\): .* \(raw\)$/m);
  } finally {
    await Deno.remove(image);
  }
});

kvmTest("memory backends and character devices come and go", async () => {
  await using bench = await Bench.open();
  const { qmp, folder } = bench;
  const ids = async (command: string, key: string) =>
    (await qmp.execute(command)).map((item: Json) => item[key]).toSorted();
  const backend = { "qom-type": "memory-backend-memfd", id: "extra", size: 1 << 20 };
  await qmp.execute("object-add", backend);
  assert.deepEqual(await ids("query-memdev", "id"), ["extra", "microvm.ram"]);
  assert.equal(
    (await qmp.call("object-add", backend)).error.desc,
    "attempt to add duplicate property 'extra' to object (type 'container')",
  );
  await qmp.execute("object-del", { id: "extra" });
  assert.deepEqual(await ids("query-memdev", "id"), ["microvm.ram"]);
  assert.equal(
    (await qmp.call("object-del", { id: "extra" })).error.desc,
    "object 'extra' not found",
  );
  assert.equal(
    (await qmp.call("object-del", { id: "microvm.ram" })).error.desc,
    "object 'microvm.ram' is in use, can not be deleted",
  );

  const out = folder.file("out");
  const file = { id: "f", backend: { type: "file", data: { out } } };
  assert.deepEqual(await qmp.execute("chardev-add", file), {});
  assert.ok(Deno.statSync(out).isFile);
  assert.equal(
    (await qmp.call("chardev-add", file)).error.desc,
    "Chardev with id 'f' already exists",
  );
  const pty = await qmp.execute("chardev-add", { id: "p", backend: { type: "pty", data: {} } });
  assert.match(pty.pty, /^\/dev\/pts\/\d+$/);
  assert.deepEqual(await ids("query-chardev", "label"), ["compat_monitor0", "f", "p", "serial0"]);
  for (const id of ["f", "p"]) await qmp.execute("chardev-remove", { id });
  assert.deepEqual(await ids("query-chardev", "label"), ["compat_monitor0", "serial0"]);
  assert.equal((await qmp.call("chardev-remove", { id: "f" })).error.desc, "Chardev 'f' not found");
  assert.equal(
    (await qmp.call("chardev-remove", { id: "serial0" })).error.desc,
    "Chardev 'serial0' is busy",
  );

  assert.equal(
    (await qmp.call("device_add", { driver: "nope" })).error.desc,
    "'nope' is not a valid device model name",
  );
  assert.match(
    (await qmp.call("device_add", { driver: "isa-debug-exit", id: "x" })).error.desc,
    /^Bus 'isa\.0' does not support hotplugging/,
  );
  assert.equal((await qmp.call("device_del", { id: "x" })).error.class, "DeviceNotFound");
  assert.equal((await qmp.execute("query-status")).status, "running");
});
