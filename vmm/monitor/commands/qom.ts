/**
 * Commands about objects' properties: `qom-get`, `qom-set`.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import { QmpError } from "../errors.ts";
import { type JsonValue, stringify } from "../json_value.ts";

const schemas = () => import("../schema/qom.ts");
const place = [{ name: "path", type: "string" }, { name: "property", type: "string" }] as const;

/** The commands. */
export const qomCommands: readonly Command[] = [
  defineCommand({
    name: "qom-get",
    help: "show a property of an object",
    schema: async () => (await schemas()).qomGet,
    handler: ({ machine }, { path, property }) => machine.qomGet(path, property),
    hmp: {
      parameters: place,
      usage: "path property",
      help: "print QOM property",
      run: async ({ machine }, { path, property }) =>
        `${stringify(await machine.qomGet(path, property), true)}\n`,
    },
  }),
  defineCommand({
    name: "qom-set",
    help: "set a property of an object",
    schema: async () => (await schemas()).qomSet,
    handler: ({ machine }, { path, property, value }) => machine.qomSet(path, property, value),
    hmp: {
      parameters: [
        { name: "json", type: "flag", letter: "j" },
        ...place,
        { name: "value", type: "rest" },
      ],
      usage: "[-j] path property value",
      help: "set QOM property.\n\t\t\t-j: the value is specified in json format.",
      run: ({ machine }, { json, path, property, value }) =>
        json
          ? machine.qomSet(path, property, parseJson(value))
          : machine.qomSetText(path, property, value),
    },
  }),
];

/** @throws {QmpError} if it is no JSON */
function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text);
  } catch {
    throw new QmpError(`JSON parse error in '${text}'`);
  }
}
