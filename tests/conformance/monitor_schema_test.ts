/**
 * The schema of each command and event against QEMU 11.1.3's: the same members of the same types, the
 * same of them optional. A command may take fewer optional arguments and fewer enum values than
 * QEMU's, and a result may lack optional members; nothing may be new or of another type, but for what
 * is named below.
 *
 * QEMU's schema is a recording beside the project; without it the test is skipped.
 */
import assert from "node:assert/strict";
import { registerMigration } from "../../cpr/commands/commands.ts";
import type { Cpr } from "../../cpr/cpr.ts";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { type SchemaInfo, schemaInfo } from "../../vmm/monitor/introspect.ts";

const recorded = new URL(
  "../../../shared/reference/qemu-11.1/qmp-schema-11.1.3.json",
  import.meta.url,
);

/** Optional members that QEMU's lack: a network backend names its limits' group as a throttle node does. */
const additions: readonly string[] = ["netdev_add.throttle-group"];

type Types = ReadonlyMap<string, SchemaInfo>;
type Kind<M extends SchemaInfo["meta-type"]> = Extract<SchemaInfo, { "meta-type": M }>;

function byName(entries: readonly SchemaInfo[]): Types {
  return new Map(entries.map((entry) => [entry.name, entry]));
}

/** Compares a type of ours with QEMU's and recurses into what it is made of. */
class Comparison {
  readonly #compared = new Set<string>();
  readonly #ours: Types;
  readonly #theirs: Types;

  constructor(ours: Types, theirs: Types) {
    this.#ours = ours;
    this.#theirs = theirs;
  }

  /** Each form of ours is one of theirs; of objects there is one in an alternate. */
  #alternate(ours: Kind<"alternate">, theirs: Kind<"alternate">, where: string): void {
    for (const { type } of ours.members) {
      const kind = this.#ours.get(type)!["meta-type"];
      const same = theirs.members.find((other) =>
        kind === "object"
          ? this.#theirs.get(other.type)!["meta-type"] === kind
          : other.type === type
      );
      assert.ok(same, where);
      this.compare(type, same.type, where);
    }
  }

  compare(ourName: string, theirName: string, where: string): void {
    const key = `${ourName} ${theirName}`;
    if (this.#compared.has(key)) return;
    this.#compared.add(key);
    const ours = this.#ours.get(ourName)!, theirs = this.#theirs.get(theirName)!;
    // One of several forms is enough.
    if (theirs["meta-type"] === "alternate") {
      if (ours["meta-type"] === "alternate") return this.#alternate(ours, theirs, where);
      return assert.ok(theirs.members.some(({ type }) => type === ourName), where);
    }
    assert.equal(ours["meta-type"], theirs["meta-type"], where);
    switch (ours["meta-type"]) {
      case "builtin":
        return assert.equal(ours.name, theirs.name, where);
      case "enum": {
        const extra = ours.values.filter((value) =>
          !(theirs as Kind<"enum">).values.includes(value)
        );
        return assert.deepEqual(extra, [], where);
      }
      case "array": {
        const element = (theirs as Kind<"array">)["element-type"];
        return this.compare(ours["element-type"], element, `${where}[]`);
      }
      case "object":
        return this.#object(ours, theirs as Kind<"object">, where);
    }
    assert.fail(`${where}: nothing is known about ${ours["meta-type"]}`);
  }

  #object(ours: Kind<"object">, theirs: Kind<"object">, where: string): void {
    for (const member of ours.members) {
      const name = `${where}.${member.name}`;
      const counterpart = theirs.members.find((their) => their.name === member.name);
      // What begins with `x-` is ours, as QEMU marks what is not settled.
      const isOurs = member.name.startsWith("x-") || additions.includes(name);
      if (!counterpart && isOurs && "default" in member) continue;
      assert.ok(counterpart, `${name} is not QEMU's`);
      assert.equal("default" in member, "default" in counterpart, `${name}: optional`);
      this.compare(member.type, counterpart.type, name);
    }
    for (const counterpart of theirs.members.filter((member) => !("default" in member))) {
      const present = ours.members.some((member) => member.name === counterpart.name);
      assert.ok(present, `${where}.${counterpart.name} is missing`);
    }
    if (ours.tag !== undefined) assert.equal(ours.tag, theirs.tag, where);
    for (const variant of ours.variants ?? []) {
      const counterpart = theirs.variants?.find((their) => their.case === variant.case);
      assert.ok(counterpart, `${where}: no ${variant.case}`);
      this.compare(variant.type, counterpart.type, `${where}(${variant.case})`);
    }
  }
}

async function readRecording(): Promise<SchemaInfo[] | undefined> {
  try {
    return JSON.parse(await Deno.readTextFile(recorded));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.warn(`SKIPPED: there is no ${recorded.pathname}`);
  }
}

Deno.test("query-qmp-schema agrees with QEMU 11.1.3's", async () => {
  const theirs = await readRecording();
  if (!theirs) return;
  // The schemas of the migration commands do not depend on the VM.
  const table = builtinCommands();
  registerMigration(table, { migration: {} } as Cpr);
  const ours = await schemaInfo(table);
  const theirTypes = byName(theirs);
  const comparison = new Comparison(byName(ours), theirTypes);
  let compared = 0;
  for (const entry of ours) {
    if (entry["meta-type"] !== "command" && entry["meta-type"] !== "event") continue;
    const their = theirTypes.get(entry.name);
    assert.equal(their?.["meta-type"], entry["meta-type"], entry.name);
    const { "arg-type": args, "ret-type": returns } = their as Kind<"command">;
    comparison.compare(entry["arg-type"], args, entry.name);
    if (entry["meta-type"] === "command") {
      comparison.compare(entry["ret-type"], returns, `${entry.name} returns`);
    }
    compared++;
  }
  assert.ok(compared > 40);
});
