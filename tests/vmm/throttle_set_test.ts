/** Limits of drives: options, changes while the guest runs, and what of them an update keeps. */
import assert from "node:assert/strict";
import { type Limit, noLimits, type ThrottleLimits } from "../../devices/block/throttle.ts";
import { limitsOf, shortLimits } from "../../vmm/options/throttle.ts";
import { BlockSet } from "../../vmm/block_set.ts";
import { Inheritance } from "../../vmm/inheritance.ts";
import type { MachineConfig } from "../../vmm/config.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { testDevices, words } from "./options_fixture.ts";

const NODE = "driver=null-co";
const device = { device: "vd0", shareWrites: false };

function parse(line: string): MachineConfig {
  const { config } = parseCommandLine(words(line), testDevices);
  assert.ok(config, line);
  return config;
}

function limit(average: number, max = 0, burstLength = 1): Limit {
  return { average, max, burstLength };
}

/** A set with the drives of a command line, each a device's disk. */
function setOf(options: string, inheritance?: Inheritance): BlockSet {
  const { blockdevs, drives } = parse(options);
  const set = new BlockSet();
  set.open(blockdevs, drives, inheritance);
  for (const { id } of drives) set.attach(id, { ...device, device: `of-${id}` });
  return set;
}

function inheritedFrom(set: BlockSet): Inheritance {
  const inheritance = new Inheritance(true);
  for (const { name, id, data } of set.handOver().values) inheritance.addValue(name, id, data);
  return inheritance;
}

const limitsIn = (set: BlockSet, id: string): ThrottleLimits | undefined =>
  set.backends.find(({ drive }) => drive?.id === id)!.throttle?.limits;

Deno.test("-drive throttling takes QEMU's names, old and new", () => {
  const cases: [options: string, group: string, limits: Partial<ThrottleLimits>][] = [
    ["throttling.bps-total=1000", "d", { "bps-total": limit(1000) }],
    ["bps=1000,iops_rd=5", "d", { "bps-total": limit(1000), "iops-read": limit(5) }],
    [
      "throttling.iops-write=5,throttling.iops-write-max=50,throttling.iops-write-max-length=3",
      "d",
      { "iops-write": limit(5, 50, 3) },
    ],
    ["iops=5,iops_max=50,iops_max_length=3,iops_size=4096,throttling.group=g", "g", {
      "iops-total": limit(5, 50, 3),
      iopsSize: 4096,
    }],
    ["throttling.group=g", "g", {}],
  ];
  for (const [options, group, limits] of cases) {
    const [drive] = parse(`-drive ${NODE},id=d,${options}`).drives;
    assert.deepEqual(drive.throttle, { group, limits: { ...noLimits, ...limits } }, options);
  }
  assert.equal(parse(`-drive ${NODE},id=d`).drives[0].throttle, undefined);
  const refused: [options: string, message: RegExp][] = [
    ["bps=1,bps_rd=1", /total values and read\/write values cannot be used at the same time/],
    ["bps=1,throttling.bps-total=1", /'throttling.bps-total' and its alias 'bps' can't be used/],
    ["bps=x", /: Parameter 'throttling.bps-total' expects a number, not 'x'$/],
    ["throttling.iops-total=1M", /'throttling.iops-total' expects a number, not '1M'$/],
    ["throttling.iops-total=", /'throttling.iops-total' expects a number, not ''$/],
    ["iops=-1", /: bps\/iops\/max values must be within \[0, 1000000000000000\]$/],
    ["iops=1,iops_max=2,iops_max_length=-1", /: the burst length cannot be -1$/],
    ["iops=1,iops_size=-1", /: the iops size cannot be -1$/],
    ["throttling.iops=1", /option 'throttling.iops': say throttling.iops-total$/],
    ["throttling.bps_rd_max=1", /'throttling.bps_rd_max': say throttling.bps-read-max$/],
    ["throttling.foo=1", /does not support the option 'throttling.foo'$/],
  ];
  for (const [options, message] of refused) {
    assert.throws(() => parse(`-drive ${NODE},id=d,${options}`), { message }, options);
  }
});

Deno.test("QMP's names of limits there and back", () => {
  const args = { bps: 0, bps_rd: 10, bps_wr: 0, iops: 7, iops_rd: 0, iops_wr: 0 };
  const more = { bps_rd_max: 20, bps_rd_max_length: 2, iops_size: 512 };
  assert.deepEqual(shortLimits(limitsOf({ ...args, ...more })), { ...args, ...more });
  assert.deepEqual(shortLimits(limitsOf(args)), args);
  assert.throws(() => limitsOf({ ...args, bps: 1 }), {
    message: /cannot be used at the same time/,
  });
});

Deno.test("drives of a group have its limits, and change them together", () => {
  const one = `-drive ${NODE},id=a,iops=5,throttling.group=g`;
  const set = setOf(`${one} -drive ${NODE},id=b,throttling.group=g,iops=9 -drive ${NODE},id=c`);
  assert.deepEqual(limitsIn(set, "a"), { ...noLimits, "iops-total": limit(9) });
  assert.deepEqual(limitsIn(set, "b"), limitsIn(set, "a"));
  assert.equal(limitsIn(set, "c"), undefined);
  const other = { ...noLimits, "bps-read": limit(100) };
  set.setLimits({ id: "of-a" }, other);
  assert.deepEqual(limitsIn(set, "b"), other);
  set.setLimits({ device: "c" }, other, "c");
  assert.deepEqual(limitsIn(set, "c"), other);
  for (const name of ["a", "b", "c"]) set.setLimits({ device: name }, noLimits);
  assert.equal(limitsIn(set, "b"), undefined);
  assert.throws(() => set.setLimits({ device: "x" }, other), { message: "Device 'x' not found" });
  for (const both of [{}, { device: "a", id: "of-a" }]) {
    assert.throws(() => set.setLimits(both, noLimits), {
      message: "Need exactly one of 'device' and 'id'",
    });
  }
  assert.throws(() => set.setLimits({ device: "a" }, other, "h"), {
    message: "The throttle group of 'a' is 'g': it cannot change",
  });
  set.close();
});

Deno.test("an update keeps limits that were changed, unless the successor is told others", () => {
  const options = (iops: number) => `-drive ${NODE},id=a,iops=${iops} -drive ${NODE},id=b`;
  const old = setOf(options(5));
  const changed = { ...noLimits, "iops-total": limit(7) };
  old.setLimits({ device: "a" }, changed);
  old.setLimits({ device: "b" }, changed);
  for (const [iops, a] of [[5, changed], [6, { ...noLimits, "iops-total": limit(6) }]] as const) {
    using inheritance = inheritedFrom(old);
    const next = setOf(options(iops), inheritance);
    assert.deepEqual(limitsIn(next, "a"), a);
    assert.deepEqual(limitsIn(next, "b"), changed);
    assert.deepEqual(inheritance.values, []);
    // And once more.
    using again = inheritedFrom(next);
    assert.deepEqual(limitsIn(setOf(options(iops), again), "b"), changed);
  }
  // No limits by now is a change as well.
  old.setLimits({ device: "a" }, noLimits);
  using inheritance = inheritedFrom(old);
  assert.equal(limitsIn(setOf(options(5), inheritance), "a"), undefined);
  old.close();
});

Deno.test("what a predecessor says of limits is checked", () => {
  const set = setOf(`-drive ${NODE},id=a,iops=5`);
  const [{ name, id, data }] = set.handOver().values;
  const good = JSON.parse(new TextDecoder().decode(data));
  for (
    const bad of [
      "{",
      "null",
      "{}",
      JSON.stringify({ ...good, levels: [1] }),
      JSON.stringify({ ...good, limits: { ...good.limits, iopsSize: -1.5 } }),
      JSON.stringify({ ...good, told: { ...good.told, "bps-total": limit(1e17) } }),
    ]
  ) {
    using inheritance = new Inheritance(true);
    inheritance.addValue(name, id, new TextEncoder().encode(bad));
    assert.throws(() => setOf(`-drive ${NODE},id=a,iops=5`, inheritance), {
      message: "Limits of throttle group 'a' make no sense",
    }, bad);
  }
  set.close();
});

const GROUP = "-object throttle-group,id=tg";
const THROTTLE = "-blockdev driver=throttle,node-name=t,throttle-group=tg,file=n";
const NULL = "-blockdev driver=null-co,node-name=n";

/** A set with the nodes, groups and drives of a command line; nothing is attached. */
function openSet(line: string, inheritance?: Inheritance): BlockSet {
  const { blockdevs, drives, throttleGroups } = parse(line);
  const set = new BlockSet();
  set.open(blockdevs, drives, inheritance, false, throttleGroups);
  return set;
}

Deno.test("-object throttle-group takes QEMU's names, as options and as JSON", () => {
  const cases: [options: string, limits: Partial<ThrottleLimits>][] = [
    ["", {}],
    [",x-iops-total=5,x-iops-size=512", { "iops-total": limit(5), iopsSize: 512 }],
    [",x-bps-read=5,x-bps-read-max=10,x-bps-read-max-length=2", { "bps-read": limit(5, 10, 2) }],
    [",limits.bps-write=7", { "bps-write": limit(7) }],
  ];
  for (const [options, limits] of cases) {
    const [group] = parse(GROUP + options).throttleGroups;
    assert.deepEqual(group.limits, { ...noLimits, ...limits }, options);
  }
  const json = (limits: unknown) =>
    JSON.stringify({ "qom-type": "throttle-group", id: "tg", limits }).replaceAll(" ", "");
  assert.deepEqual(parse(`-object ${json({ "iops-read": 3 })}`).throttleGroups[0].limits, {
    ...noLimits,
    "iops-read": limit(3),
  });
  const refused: [options: string, message: RegExp][] = [
    [`${GROUP},x-iops-total=x`, /Parameter 'x-iops-total' expects a number, not 'x'$/],
    [`${GROUP},limits.bps-read=x`, /Parameter 'limits.bps-read' expects a number, not 'x'$/],
    [`${GROUP},x-iops-total=1,limits.iops-read=1`, /cannot be used at the same time$/],
    [`${GROUP},limits.iops=1`, /Invalid parameter 'limits.iops'$/],
    [`${GROUP},x-bps=1`, /Invalid parameter 'x-bps'$/],
    [`-object ${json({ "iops-read": "3x" })}`, /'iops-read' expects a number, not '3x'$/],
    [`-object ${json({ nothing: 3 })}`, /Parameter 'limits.nothing' is unexpected$/],
    [`-object ${json({ "iops-read": true })}`, /'iops-read', expected: integer$/],
    [`-object ${json(5)}`, /Parameter 'limits' is unexpected$/],
    [`${GROUP} ${GROUP}`, /Duplicate ID 'tg' for object$/],
    [`${NULL} ${THROTTLE.replace("throttle-group=tg,", "")}`, /Please specify a throttle group$/],
    [`${THROTTLE.replace(",file=n", "")}`, /Parameter 'file' is missing$/],
  ];
  for (const [line, message] of refused) assert.throws(() => parse(line), { message }, line);
});

Deno.test("disks of throttle nodes count in their group, and drives that share it as well", () => {
  const set = openSet(
    `${GROUP},x-iops-total=5 ${NULL} ${THROTTLE} -blockdev driver=throttle,node-name=u,` +
      "throttle-group=tg,file.driver=null-co,read-only=on" +
      ` -drive driver=throttle,throttle-group=tg,file.driver=null-co,id=d -drive ${NODE},id=e`,
  );
  const group = set.throttles.object("tg")!;
  assert.deepEqual(group.limits, { ...noLimits, "iops-total": limit(5) });
  for (const name of ["t", "u", "d"]) {
    const disk = set.attach(name, { ...device, device: `of-${name}` });
    assert.equal(disk.throttle, group.shared, name);
    assert.equal(disk.disk.readOnly, name === "u");
  }
  assert.notEqual(set.attach("e", { ...device, device: "of-e" }).throttle, group.shared);
  // The limits are the nodes', and not to be changed as a drive's.
  assert.equal(limitsIn(set, "d"), undefined);
  assert.throws(() => set.setLimits({ id: "of-t" }, noLimits), {
    message:
      "The limits of 't' are those of throttle group 'tg': set its property 'limits' by qom-set",
  });
  const node = set.nodes.find(({ config }) => config.nodeName === "t")!;
  assert.deepEqual(JSON.parse(node.filename.slice("json:".length)), {
    ...{ "throttle-group": "tg", driver: "throttle" },
    file: { driver: "null-co", filename: node.child!.filename },
  });
  set.close();
});

Deno.test("a throttle node without its group, within another node, or beside a drive's limits is refused", () => {
  const cases: [line: string, message: string][] = [
    [`${NULL} ${THROTTLE}`, "Throttle group 'tg' does not exist"],
    [
      `${GROUP} ${NULL} ${THROTTLE} -blockdev driver=raw,node-name=r,file=t`,
      "Node 'r' cannot be made of throttle node 't': that has to be the first node of a disk",
    ],
    [
      `${GROUP} ${NULL} ${THROTTLE} -blockdev driver=throttle,node-name=s,throttle-group=tg,file=t`,
      "Node 's' cannot be made of throttle node 't': that has to be the first node of a disk",
    ],
  ];
  for (const [line, message] of cases) assert.throws(() => openSet(line), { message }, line);
  const both = openSet(
    `${GROUP} -drive driver=throttle,throttle-group=tg,file.driver=null-co,id=d,iops=5`,
  );
  assert.throws(() => both.attach("d", device), {
    message:
      "Drive 'd' has limits of its own and those of throttle group 'tg': give it one of them",
  });
  both.close();
});

Deno.test("an update keeps a group's limits that were changed, unless the successor is told others", () => {
  const line = (iops: number) => `${GROUP},x-iops-total=${iops} ${NULL} ${THROTTLE}`;
  const old = openSet(line(5));
  const changed = { ...noLimits, "bps-total": limit(7) };
  old.throttles.object("tg")!.limits = changed;
  for (
    const [iops, limits] of [[5, changed], [6, { ...noLimits, "iops-total": limit(6) }]] as const
  ) {
    using inheritance = inheritedFrom(old);
    const next = openSet(line(iops), inheritance);
    assert.deepEqual(next.throttles.object("tg")!.limits, limits);
    assert.deepEqual(inheritance.values, []);
    next.close();
  }
  old.close();
});
