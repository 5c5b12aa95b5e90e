import assert from "node:assert/strict";
import { noLimits } from "../../devices/block/throttle.ts";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { CommandTable } from "../../vmm/monitor/command_table.ts";
import { type CommandContext, newSession } from "../../vmm/monitor/context.ts";
import { defineCommand } from "../../vmm/monitor/command.ts";
import { defineHmp } from "../../vmm/monitor/hmp_command.ts";
import { completions, executeLine } from "../../vmm/monitor/hmp_line.ts";
import { type SchemaInfo, schemaInfo } from "../../vmm/monitor/introspect.ts";
import { denovoVersion } from "../../vmm/monitor/version.ts";
import type { JsonObject } from "../../vmm/monitor/json_value.ts";
import { FakeMachine } from "./monitor_fake_machine.ts";

function makeContext(table = builtinCommands()): CommandContext & { machine: FakeMachine } {
  return { machine: new FakeMachine(), table, session: newSession() };
}

/** Executes a command of the built-in table on a fake machine. */
function execute(name: string, args: JsonObject = {}) {
  const context = makeContext();
  return context.table.execute(context, name, args);
}

Deno.test("CommandTable lists each command once, sorted", async () => {
  const names = (await execute("query-commands") as { name: string }[]).map(({ name }) => name);
  assert.deepEqual(names, [...new Set(names)].sort());
  for (const name of ["qmp_capabilities", "stop", "query-qmp-schema", "add-fd"]) {
    assert.ok(names.includes(name), name);
  }
  assert.ok(!names.some((name) => name.includes("migrate")));
});

Deno.test("CommandTable.add() refuses a name that is taken", () => {
  const again = defineCommand({ name: "stop", help: "", handler: () => {} });
  assert.throws(() => builtinCommands().add(again), RangeError);
  const alias = defineHmp({ name: "sleep", aliases: ["s"], help: "", run: () => {} });
  assert.throws(() => builtinCommands().addHmp(alias), RangeError);
});

Deno.test("CommandTable takes commands of other layers, with schemas, HMP and info", async () => {
  const { z } = await import("zod");
  const table = builtinCommands().add(defineCommand({
    name: "migrate-incoming",
    help: "continue an incoming migration",
    schema: () =>
      Promise.resolve({
        args: z.strictObject({ uri: z.string() }),
        returns: z.strictObject({ length: z.int() }),
      }),
    handler: async (_context, { uri }) => await Promise.resolve({ length: uri.length }),
    hmp: {
      name: "migrate_incoming",
      parameters: [{ name: "uri", type: "string" }],
      usage: "uri",
    },
  })).addInfo(defineHmp({ name: "migrate", help: "show it", run: () => "Status: none\n" }))
    .addEvents(() => Promise.resolve({ TRIED: z.strictObject({ uri: z.string() }) }));
  const context = makeContext(table);
  assert.deepEqual(await table.execute(context, "migrate-incoming", { uri: "abc" }), { length: 3 });
  assert.equal(await executeLine(context, "migrate_incoming x"), "");
  assert.equal(
    await executeLine(context, "migrate_incoming"),
    'migrate_incoming: string expected\nTry "help migrate_incoming" for more information\n',
  );
  assert.equal(
    await executeLine(context, "help migrate_incoming"),
    "migrate_incoming uri -- continue an incoming migration\n",
  );
  assert.equal(await executeLine(context, "info migrate"), "Status: none\n");
  const names = (await schemaInfo(table)).map(({ name }) => name);
  assert.ok(names.includes("migrate-incoming") && names.includes("TRIED"));
});

Deno.test("Results of all queries fit their schemas", async () => {
  const table = builtinCommands();
  for (const { name, schema } of table.commands.filter(({ name }) => name.startsWith("query-"))) {
    const { returns } = await schema();
    assert.ok(returns, `${name} returns nothing`);
    const result = returns.safeParse(await execute(name));
    assert.ok(result.success, `${name}: ${result.error?.message}`);
  }
});

Deno.test("Queries answer in QEMU's shapes", async () => {
  assert.deepEqual(await execute("query-kvm"), { enabled: true, present: true });
  assert.deepEqual(await execute("query-name"), { name: "vm1" });
  assert.deepEqual(await execute("query-target"), { arch: "x86_64" });
  assert.deepEqual((await execute("query-cpus-fast") as unknown[])[1], {
    "thread-id": 3116,
    props: { "core-id": 1, "die-id": 0, "thread-id": 0, "socket-id": 0 },
    "qom-type": "qemu64-x86_64-cpu",
    "qom-path": "/machine/unattached/device[1]",
    "cpu-index": 1,
    target: "x86_64",
  });
  assert.deepEqual(await execute("query-memdev"), [{
    share: true,
    reserve: true,
    prealloc: false,
    "host-nodes": [],
    size: 268435456,
    merge: true,
    dump: true,
    policy: "default",
    id: "ram0",
  }]);
  assert.deepEqual(await execute("query-memory-size-summary"), {
    "base-memory": 268435456,
    "plugged-memory": 0,
  });
  assert.deepEqual(await execute("query-chardev"), [{
    "frontend-open": true,
    filename: "unix:run/tr-old.qmp,server=on",
    label: "compat_monitor0",
  }]);
});

Deno.test("query-block and query-blockstats tell of drives, nodes, and what was counted", async () => {
  const blocks = await execute("query-block") as Record<string, unknown>[];
  const { inserted, ...disk } = blocks[0];
  assert.deepEqual(disk, {
    ...{ "io-status": "nospace", device: "d0", qdev: "vb0", type: "unknown" },
    ...{ locked: false, removable: false },
  });
  assert.deepEqual(inserted, {
    ...{ bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0, write_threshold: 0 },
    ...{ detect_zeroes: "off", ro: false, drv: "raw", file: "disk.img", "node-name": "#d0" },
    ...{ active: true, encrypted: false, backing_file_depth: 0 },
    children: [{ child: "file", "node-name": "#d0.file" }],
    cache: { "no-flush": false, direct: false, writeback: false },
    image: {
      ...{ filename: "disk.img", format: "raw", "dirty-flag": false },
      ...{ "virtual-size": 1048576, "actual-size": 8192 },
    },
  });
  assert.deepEqual(blocks[1], {
    ...{ device: "cd", type: "unknown", locked: false, removable: true },
  });
  const nodes = await execute("query-named-block-nodes") as Record<string, unknown>[];
  assert.deepEqual(nodes.map((node) => node["node-name"]), ["#d0", "#d0.file", "n1"]);
  assert.deepEqual(nodes[2].cache, { "no-flush": true, direct: true, writeback: true });

  type Statistics = Record<string, Record<string, unknown>>;
  const [d0, cd] = await execute("query-blockstats") as Statistics[];
  assert.equal(d0["node-name"], "#d0");
  assert.deepEqual(d0.parent["driver-specific"], {
    driver: "file",
    "discard-nb-ok": 1,
    "discard-nb-failed": 2,
    "discard-bytes-ok": 512,
  });
  const { stats } = d0;
  for (const [name, first] of [["rd", 1], ["wr", 11], ["flush", 20], ["unmap", 31]] as const) {
    if (name !== "flush") assert.equal(stats[`${name}_bytes`], first);
    const base = Math.floor(first / 10) * 10;
    assert.deepEqual(
      ["operations", "total_time_ns"].map((what) => stats[`${name}_${what}`]),
      [base + 2, base + 3],
    );
    assert.deepEqual(
      ["failed", "invalid"].map((what) => stats[`${what}_${name}_operations`]),
      [base + 4, base + 5],
    );
  }
  assert.deepEqual([stats.wr_highest_offset, stats.idle_time_ns], [1024, 99]);
  assert.ok(!("idle_time_ns" in cd.stats) && !("node-name" in cd));
  const ofNodes = await execute("query-blockstats", { "query-nodes": true }) as Statistics[];
  assert.equal(ofNodes[1].stats.wr_highest_offset, 1024);
  assert.equal(ofNodes[1].stats.account_invalid, false);
});

Deno.test("blockdev-add, blockdev-del and block_resize reach the machine, checked", async () => {
  const context = makeContext(builtinCommands());
  const { table } = context;
  const node = { driver: "raw", "node-name": "x", file: { driver: "file", filename: "y" } };
  await table.execute(context, "blockdev-add", node);
  await table.execute(context, "blockdev-del", { "node-name": "x" });
  await table.execute(context, "block_resize", { device: "d0", size: 4096 });
  await executeLine(context, "block_resize d0 2");
  await executeLine(context, "block_resize d0 1.5k");
  assert.deepEqual(context.machine.calls, [
    ["blockdevAdd", node],
    ["blockdevDel", "x"],
    ["blockResize", { device: "d0", nodeName: undefined }, 4096],
    ["blockResize", { device: "d0" }, 2 << 20],
    ["blockResize", { device: "d0" }, 1536],
  ]);
  for (
    const [name, args, message] of [
      ["block_resize", { size: -1 }, "Parameter 'size' expects a >0 size"],
      ["blockdev-add", { driver: "qed" }, "Parameter 'driver' does not accept value 'qed'"],
      ["blockdev-add", { driver: "qcow2" }, "Parameter 'file' is missing"],
      ["blockdev-add", { driver: "file" }, "Parameter 'filename' is missing"],
      ["blockdev-add", { driver: "null-co", foo: 1 }, "Parameter 'foo' is unexpected"],
    ] as const
  ) {
    await assert.rejects(() => table.execute(context, name, args), { message });
  }
});

Deno.test("block_set_io_throttle reaches the machine, checked", async () => {
  const context = makeContext(builtinCommands());
  const { table } = context;
  const rates = { bps: 0, bps_rd: 5, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 };
  await table.execute(context, "block_set_io_throttle", { id: "vd0", ...rates, bps_rd_max: 9 });
  await executeLine(context, "block_set_io_throttle d0 0 5 0 0 0 0");
  const limit = (average: number, max = 0) => ({ average, max, burstLength: 1 });
  assert.deepEqual(context.machine.calls, [
    ["blockSetIoThrottle", { device: undefined, id: "vd0" }, {
      ...noLimits,
      "bps-read": limit(5, 9),
    }, undefined],
    ["blockSetIoThrottle", { device: "d0" }, { ...noLimits, "bps-read": limit(5) }],
  ]);
  for (
    const [args, message] of [
      [{ id: "vd0", ...rates, bps: 1 }, /cannot be used at the same time/],
      [{ id: "vd0" }, /Parameter 'bps' is missing/],
      [{ id: "vd0", ...rates, foo: 1 }, /Parameter 'foo' is unexpected/],
    ] as const
  ) {
    const run = () => table.execute(context, "block_set_io_throttle", args);
    await assert.rejects(run, { message });
  }
});

Deno.test("memsave and pmemsave check what they are given", async () => {
  const args = { val: 0, size: 1, filename: "/nonexistent/x" };
  await assert.rejects(execute("memsave", { ...args, "cpu-index": 9 }), {
    message: "Parameter 'cpu-index' expects a CPU number",
  });
  await assert.rejects(execute("pmemsave", { ...args, size: -1 }), {
    message: "Parameter 'size' expects a non-negative value",
  });
});

Deno.test("pmemsave writes zeros for what is no memory", async () => {
  const filename = await Deno.makeTempFile();
  await execute("pmemsave", { val: 0xfe0000000000, size: (1 << 20) + 3, filename });
  const saved = await Deno.readFile(filename);
  assert.equal(saved.length, (1 << 20) + 3);
  assert.ok(saved.every((byte) => byte === 0));
  await Deno.remove(filename);
});

Deno.test("set-action and inject-nmi reach the machine", async () => {
  const context = makeContext();
  await context.table.execute(context, "set-action", { reboot: "shutdown", panic: "pause" });
  await context.table.execute(context, "inject-nmi");
  assert.deepEqual(context.machine.calls, [
    ["setActions", { reboot: "shutdown", panic: "pause" }],
    ["injectNmi"],
  ]);
});

Deno.test("set_link names a card or a backend, and says whether the cable is in", async () => {
  const context = makeContext();
  await context.table.execute(context, "set_link", { name: "n0", up: false });
  assert.deepEqual(context.machine.calls, [["setLink", "n0", false]]);
});

Deno.test("netdev_add and netdev_del reach the machine as -netdev has them", async () => {
  const context = makeContext();
  const addr = { type: "unix", path: "/x" };
  await context.table.execute(context, "netdev_add", { type: "stream", id: "n", addr });
  await context.table.execute(context, "netdev_del", { id: "n" });
  const text = '{"type":"stream","id":"n","addr":{"type":"unix","path":"/x"}}';
  assert.deepEqual(context.machine.calls, [["netdevAdd", text], ["netdevDel", "n"]]);
});

Deno.test("send-key presses keys by their names and their codes", async () => {
  const context = makeContext();
  const sendKey = (args: JsonObject) => context.table.execute(context, "send-key", args);
  const qcode = (data: string) => ({ type: "qcode", data });
  const number = (data: number) => ({ type: "number", data });
  await sendKey({ keys: [qcode("ctrl"), qcode("alt"), qcode("delete")] });
  await sendKey({ keys: [number(0x1e), number(0xd3), number(0x7f)], "hold-time": 7 });
  await sendKey({ keys: [qcode("a")], "hold-time": 0 });
  await sendKey({ keys: [qcode("a")], "hold-time": -5 });
  assert.deepEqual(context.machine.calls, [
    ["sendKeys", ["ctrl", "alt", "delete"], 100],
    ["sendKeys", ["a", "delete", "unmapped"], 7],
    ["sendKeys", ["a"], 100],
    ["sendKeys", ["a"], 100],
  ]);
  await assert.rejects(sendKey({ keys: [qcode("nope")] }), {
    message: "Parameter 'data' does not accept value 'nope'",
  });
});

Deno.test("chardev-add makes a backend's configuration of QAPI's", async () => {
  const context = makeContext();
  const add = (type: string, data: JsonObject) =>
    context.table.execute(context, "chardev-add", { id: "c", backend: { type, data } });
  const socket = (addr: JsonObject, options = {}) => add("socket", { addr, ...options });
  await add("null", { logfile: "log", logappend: true });
  await add("file", { out: "f" });
  await add("pty", { path: "link" });
  await socket({ type: "unix", data: { path: "s" } }, { server: false });
  await socket({ type: "inet", data: { host: "::1", port: "0" } }, { wait: true });
  await socket({ type: "fd", data: { str: "7" } });
  await socket({ type: "unix", data: { path: "s" } }, { telnet: true, websocket: false });
  await socket({ type: "unix", data: { path: "s" } }, { server: false, "reconnect-ms": 20 });
  assert.deepEqual(context.machine.calls.map(([, config]) => config), [
    { id: "c", logfile: "log", logappend: true, backend: "null" },
    { id: "c", backend: "file", path: "f", append: false },
    { id: "c", backend: "pty", path: "link" },
    { id: "c", family: "unix", path: "s", backend: "socket", server: false, wait: false },
    { id: "c", family: "tcp", host: "::1", port: 0, backend: "socket", server: true, wait: true },
    { id: "c", backend: "fd", fd: 7 },
    {
      id: "c",
      family: "unix",
      path: "s",
      backend: "socket",
      server: true,
      wait: false,
      protocol: "telnet",
    },
    {
      id: "c",
      family: "unix",
      path: "s",
      backend: "socket",
      server: false,
      wait: false,
      reconnectMs: 20,
    },
  ]);
  await assert.rejects(socket({ type: "unix", data: { path: "s" } }, { "reconnect-ms": 20 }), {
    message: "'reconnect-ms' option is incompatible with socket in server listen mode",
  });
  await assert.rejects(socket({ type: "inet", data: { host: "", port: "65536" } }), {
    message: "Cannot use port '65536': expected 0 to 65535",
  });
  await assert.rejects(socket({ type: "fd", data: { str: "nope" } }), {
    message: "File descriptor named 'nope' has not been found",
  });
});

Deno.test("HMP's hotplug commands hand on the options as typed", async () => {
  const context = makeContext();
  await executeLine(context, "chardev-add socket,id=c,path=/x y");
  await executeLine(context, "object_add memory-backend-ram,id=m,size=1M");
  assert.deepEqual(context.machine.calls, [
    ["chardevAddOptions", "socket,id=c,path=/x y"],
    ["objectAddOptions", "memory-backend-ram,id=m,size=1M"],
  ]);
});

Deno.test("human-monitor-command prints with carriage returns and keeps no state", async () => {
  const context = makeContext();
  const human = (line: string, cpu = {}) =>
    context.table.execute(context, "human-monitor-command", { "command-line": line, ...cpu });
  assert.equal(await human("info status"), "VM status: running\r\n");
  assert.equal(await human("nope"), "unknown command: 'nope'\r\n");
  assert.equal(await human("stop"), "");
  assert.equal(await human("info history"), "");
  assert.equal(await human("cpu 1"), "");
  assert.match(await human("info cpus") as string, /^\* CPU #0: .*\r\n {2}CPU #1: .*\r\n$/);
  assert.match(await human("info cpus", { "cpu-index": 1 }) as string, /\* CPU #1: /);
  await assert.rejects(human("info cpus", { "cpu-index": 5 }), {
    message: "Parameter 'cpu-index' expects a CPU number",
  });
});

Deno.test("completions() knows names, aliases, info's and help's words", () => {
  const table = builtinCommands();
  assert.deepEqual(completions(table, "sto"), ["stop"]);
  assert.deepEqual(completions(table, "info me"), ["memdev", "memory_size_summary"]);
  assert.deepEqual(completions(table, "help info stat"), ["status"]);
  assert.deepEqual(completions(table, "? qu"), ["quit"]);
  assert.deepEqual(completions(table, "stop x"), []);
  assert.ok(completions(table, "").includes("c"));
});

Deno.test("query-qmp-schema defines every type that it refers to", async () => {
  const entries = await schemaInfo(builtinCommands());
  const names = new Set(entries.map(({ name }) => name));
  assert.equal(names.size, entries.length);
  const references = entries.flatMap((entry): string[] => {
    switch (entry["meta-type"]) {
      case "command":
        return [entry["arg-type"], entry["ret-type"]];
      case "event":
        return [entry["arg-type"]];
      case "array":
        return [entry["element-type"]];
      case "object":
        return [...entry.members, ...entry.variants ?? []].map(({ type }) => type);
      case "alternate":
        return entry.members.map(({ type }) => type);
      default:
        return [];
    }
  });
  for (const name of references) assert.ok(names.has(name), name);
});

Deno.test("query-qmp-schema tells a type that has members of its own type once", async () => {
  const entries = new Map<string, SchemaInfo>(
    (await schemaInfo(builtinCommands())).map((entry) => [entry.name, entry]),
  );
  /** The type of a member, or of an array's elements for the name "". */
  const typeOf = (name: string, member: string): string => {
    const entry = entries.get(name);
    if (entry?.["meta-type"] === "array" && member === "") return entry["element-type"];
    assert.ok(entry?.["meta-type"] === "object", `${name} ${member}`);
    return entry.members.find(({ name }) => name === member)!.type;
  };
  const command = entries.get("query-pci");
  assert.ok(command?.["meta-type"] === "command");
  const device = ["", "devices", ""].reduce(typeOf, command["ret-type"]);
  assert.equal(["pci_bridge", "devices", ""].reduce(typeOf, device), device);
});

Deno.test("query-qmp-schema describes unions by their tag", async () => {
  const entries = new Map<string, SchemaInfo>(
    (await schemaInfo(builtinCommands())).map((entry) => [entry.name, entry]),
  );
  const command = entries.get("object-add");
  assert.ok(command?.["meta-type"] === "command");
  const args = entries.get(command["arg-type"]);
  assert.ok(args?.["meta-type"] === "object");
  assert.equal(args.tag, "qom-type");
  assert.deepEqual(args.members.map(({ name }) => name), ["qom-type", "id"]);
  const file = args.variants?.find((variant) => variant.case === "memory-backend-file");
  const members = entries.get(file!.type);
  assert.ok(members?.["meta-type"] === "object");
  assert.deepEqual(members.members, [
    { name: "prealloc", default: null, type: "bool" },
    { name: "share", default: null, type: "bool" },
    { name: "size", type: "int" },
    { name: "align", default: null, type: "int" },
    { name: "offset", default: null, type: "int" },
    { name: "mem-path", type: "str" },
    { name: "readonly", default: null, type: "bool" },
  ]);
});

Deno.test("denovoVersion is that of deno.json", async () => {
  const config = await Deno.readTextFile(new URL("../../deno.json", import.meta.url));
  assert.equal(JSON.parse(config).version, denovoVersion);
});

Deno.test("The command table loads without zod", async () => {
  const seen = new Set<string>();
  const visit = async (url: URL) => {
    if (seen.has(url.href)) return;
    seen.add(url.href);
    const source = await Deno.readTextFile(url);
    for (const [, names, from] of source.matchAll(/^(?:im|ex)port ([^;]*?)from "([^"]+)";/gms)) {
      if (names.startsWith("type ")) continue;
      assert.notEqual(from, "zod", `${url.href} imports zod`);
      if (from.startsWith(".")) await visit(new URL(from, url));
    }
  };
  for (const module of ["builtin_commands", "qmp", "hmp"]) {
    await visit(new URL(`../../vmm/monitor/${module}.ts`, import.meta.url));
  }
  assert.ok(seen.size > 20);
});

Deno.test("CommandTable without commands says that it has none", async () => {
  const table = new CommandTable();
  await assert.rejects(table.execute(makeContext(table), "stop"), {
    errorClass: "CommandNotFound",
    message: "The command stop has not been found",
  });
});
