/**
 * `query-qmp-schema`: the table's zod schemas as QAPI SchemaInfo.
 *
 * As in QEMU, commands, events and built-in types go by their names, all other types by numbers that
 * mean nothing: clients must look at what a type is made of.
 *
 * @module
 */
import type { z } from "zod";
import type { CommandSet } from "./context.ts";

/** QAPI SchemaInfo. */
export type SchemaInfo = z.input<typeof import("./schema/monitor.ts").schemaInfo>;

type Unnamed<T> = T extends unknown ? Omit<T, "name"> : never;
type ObjectMember = Extract<SchemaInfo, { "meta-type": "object" }>["members"][number];
type Schema = z.core.$ZodTypes;
type Shape = Readonly<Record<string, z.core.$ZodType>>;

/** Built-in types, in the order in which QEMU lists them. */
const builtins = {
  str: "string",
  any: "value",
  bool: "boolean",
  int: "int",
  null: "null",
  number: "number",
} as const;

/** The type of a command without arguments or result: an object without members. */
const emptyType = "0";

/** A member's schema without the wrappers that say whether it may be absent. */
function unwrap(schema: z.core.$ZodType): { inner: z.core.$ZodType; optional: boolean } {
  const { def } = (schema as Schema)._zod;
  if (def.type !== "optional" && def.type !== "default") return { inner: schema, optional: false };
  return { inner: unwrap(def.innerType).inner, optional: true };
}

/** An option's members; of a union in a union those that all of its options have. */
function shapeOf(schema: z.core.$ZodType): Shape {
  const { def } = (schema as Schema)._zod;
  if (def.type === "union") {
    const [first, ...others] = def.options.map(shapeOf);
    const shared = Object.entries(first).filter(([name, member]) =>
      others.every((shape) => shape[name] === member)
    );
    return Object.fromEntries(shared);
  }
  if (def.type !== "object") throw new TypeError(`Cannot describe a union of '${def.type}'`);
  return def.shape;
}

/** The values of a literal or enum schema. */
function valuesOf(schema: z.core.$ZodType | undefined): string[] {
  const def = schema && (schema as Schema)._zod.def;
  if (def?.type === "literal") return def.values.map(String);
  if (def?.type === "enum") return Object.values(def.entries).map(String);
  throw new TypeError(`Cannot describe a discriminator of type '${def?.type}'`);
}

/** Collects SchemaInfo entries; the same schema object becomes one type. */
class TypeCollector {
  readonly entries: SchemaInfo[] = [];
  readonly #names = new Map<unknown, string>();
  #next = 1;

  constructor() {
    this.entries.push({ name: emptyType, "meta-type": "object", members: [] });
    for (const [name, json] of Object.entries(builtins)) {
      this.entries.push({ name, "json-type": json, "meta-type": "builtin" });
    }
  }

  /** The name of a schema's type; describes the type when it is first met. */
  typeName(schema: z.core.$ZodType | undefined): string {
    if (!schema) return emptyType;
    const known = this.#names.get(schema);
    if (known !== undefined) return known;
    const name = this.#describe(schema);
    this.#names.set(schema, name);
    return name;
  }

  #describe(schema: z.core.$ZodType): string {
    const { def } = (schema as Schema)._zod;
    switch (def.type) {
      case "string":
        return "str";
      case "boolean":
        return "bool";
      case "null":
        return "null";
      case "bigint":
        return "int";
      case "number":
        return "format" in def ? "int" : "number";
      case "unknown":
      case "any":
        return "any";
      case "pipe":
        return this.typeName(def.in);
      case "enum":
      case "literal":
        return this.#enumeration(valuesOf(schema));
      case "array":
        return this.#array(def.element);
      case "object":
        return this.#object(def.shape, schema);
      case "union":
        return this.#union(def.options, (def as { discriminator?: string }).discriminator);
    }
    throw new TypeError(`Cannot describe a schema of type '${def.type}'`);
  }

  #newName(): string {
    return String(this.#next++);
  }

  #add(entry: Unnamed<SchemaInfo>, name = this.#newName()): string {
    this.entries.push({ name, ...entry } as SchemaInfo);
    return name;
  }

  #enumeration(values: string[]): string {
    const key = `enum ${values.join()}`;
    const known = this.#names.get(key);
    if (known !== undefined) return known;
    const members = values.map((name) => ({ name }));
    const name = this.#add({ members, "meta-type": "enum", values });
    this.#names.set(key, name);
    return name;
  }

  #array(element: z.core.$ZodType): string {
    const type = this.typeName(element);
    const name = `[${type}]`;
    if (!this.#names.has(name)) {
      this.#names.set(name, name);
      this.entries.push({ name, "element-type": type, "meta-type": "array" });
    }
    return name;
  }

  #members(shape: Shape): ObjectMember[] {
    return Object.entries(shape).map(([name, schema]) => {
      const { inner, optional } = unwrap(schema);
      return { name, ...optional && { default: null }, type: this.typeName(inner) };
    });
  }

  /** @param schema the schema that has this shape: it has its name first, as members may be of its type */
  #object(shape: Shape, schema?: z.core.$ZodType): string {
    if (Object.keys(shape).length === 0) return emptyType;
    const name = this.#newName();
    if (schema) this.#names.set(schema, name);
    return this.#add({ members: this.#members(shape), "meta-type": "object" }, name);
  }

  /**
   * A member whose schema object all options share belongs to the union, others to the variants.
   *
   * @param outer the tag of the union that this one is a variant of: it is told there
   */
  #union(options: readonly z.core.$ZodType[], tag: string | undefined, outer?: string): string {
    if (tag === undefined) return this.#alternate(options);
    const told = (name: string) => name === tag || name === outer;
    const shapes = options.map(shapeOf);
    const [first, ...others] = shapes;
    const isCommon = (name: string) =>
      others.length > 0 && others.every((shape) => shape[name] === first[name]);
    const common = Object.keys(first).filter((name) => !told(name) && isCommon(name));
    const without = (shape: Shape) =>
      Object.fromEntries(
        Object.entries(shape).filter(([name]) => !told(name) && !common.includes(name)),
      );
    const base = Object.fromEntries(common.map((name) => [name, first[name]]));
    const tagType = this.#enumeration(shapes.flatMap((shape) => valuesOf(shape[tag])));
    const variants = shapes.flatMap((shape, i) => {
      const { def } = (options[i] as Schema)._zod;
      const type = def.type === "union"
        ? this.#union(def.options, (def as { discriminator?: string }).discriminator, tag)
        : this.#object(without(shape));
      return valuesOf(shape[tag]).map((value) => ({ case: value, type }));
    });
    const members = [{ name: tag, type: tagType }, ...this.#members(base)];
    return this.#add({ members, "meta-type": "object", tag, variants });
  }

  /** A union without a discriminator; one of two forms of the same type is that type. */
  #alternate(options: readonly z.core.$ZodType[]): string {
    const types = new Set(options.map((option) => this.typeName(option)));
    const [first] = types;
    if (types.size === 1) return first;
    return this.#add({ members: [...types].map((type) => ({ type })), "meta-type": "alternate" });
  }
}

/** All commands, events and types of a table. */
export async function schemaInfo(table: CommandSet): Promise<SchemaInfo[]> {
  const types = new TypeCollector();
  const commands: SchemaInfo[] = [];
  for (const command of table.commands) {
    const { args, returns } = await command.schema();
    commands.push({
      name: command.name,
      "ret-type": types.typeName(returns),
      "meta-type": "command",
      "arg-type": types.typeName(args),
    });
  }
  const events = Object.entries(await table.events()).map(([name, data]) => ({
    name,
    "meta-type": "event" as const,
    "arg-type": types.typeName(data),
  }));
  return [...commands, ...events, ...types.entries];
}
