/**
 * Schemas of commands about the monitor itself (QAPI control.json, misc.json, introspect.json).
 *
 * @module
 */
import { z } from "zod";

/** `qmp_capabilities` */
export const qmpCapabilities = {
  args: z.strictObject({ enable: z.array(z.enum(["oob"])).optional() }),
};

/** `query-commands` */
export const queryCommands = { returns: z.array(z.strictObject({ name: z.string() })) };

/** `human-monitor-command` */
export const humanMonitorCommand = {
  args: z.strictObject({ "command-line": z.string(), "cpu-index": z.int().optional() }),
  returns: z.string(),
};

const jsonType = z.enum([
  "string",
  "number",
  "int",
  "boolean",
  "null",
  "object",
  "array",
  "value",
]);
const name = z.string();
const enumMember = z.strictObject({ name });
const objectMember = z.strictObject({
  name,
  type: z.string(),
  default: z.unknown().optional(),
});
const variant = z.strictObject({ case: z.string(), type: z.string() });

/** QAPI SchemaInfo. */
export const schemaInfo = z.discriminatedUnion("meta-type", [
  z.strictObject({ name, "meta-type": z.literal("builtin"), "json-type": jsonType }),
  z.strictObject({
    name,
    "meta-type": z.literal("enum"),
    members: z.array(enumMember),
    values: z.array(z.string()),
  }),
  z.strictObject({ name, "meta-type": z.literal("array"), "element-type": z.string() }),
  z.strictObject({
    name,
    "meta-type": z.literal("object"),
    members: z.array(objectMember),
    tag: z.string().optional(),
    variants: z.array(variant).optional(),
  }),
  z.strictObject({
    name,
    "meta-type": z.literal("alternate"),
    members: z.array(z.strictObject({ type: z.string() })),
  }),
  z.strictObject({
    name,
    "meta-type": z.literal("command"),
    "arg-type": z.string(),
    "ret-type": z.string(),
    "allow-oob": z.boolean().optional(),
  }),
  z.strictObject({ name, "meta-type": z.literal("event"), "arg-type": z.string() }),
]);

/** `query-qmp-schema` */
export const queryQmpSchema = { returns: z.array(schemaInfo) };
