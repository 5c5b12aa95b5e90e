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

function parse(line: string): Pick<MachineConfig, "blockdevs" | "drives"> {
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
