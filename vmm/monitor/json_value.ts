/**
 * JSON values with exact integers, and their text as QMP writes it.
 *
 * @module
 */

/** A JSON value; integers that a double cannot hold exactly are bigint. */
export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | JsonObject;

/** A JSON object. Undefined members do not appear in the text. */
export interface JsonObject {
  /** A member. */
  readonly [name: string]: JsonValue | undefined;
}

/** Whether a value is a JSON object (not an array, not null). */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const namedEscapes: Record<string, string> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** Text as a JSON string in ASCII: clients may read QMP in any encoding that has ASCII. */
function stringText(text: string): string {
  // deno-lint-ignore no-control-regex
  const escaped = text.replace(/["\\\x00-\x1f\x7f-\uffff]/g, (unit) =>
    namedEscapes[unit] ??
      "\\u" + unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0"));
  return `"${escaped}"`;
}

/** A number as C's `%.17g` prints it: enough digits that reading it back gives the same double. */
function numberText(value: number): string {
  if (Number.isSafeInteger(value)) return value.toFixed(0);
  if (!Number.isFinite(value)) return "null";
  const [mantissa, power] = value.toExponential(16).split("e");
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 17) {
    const digits = Math.abs(exponent).toString().padStart(2, "0");
    return `${withoutTrailingZeros(mantissa)}e${exponent < 0 ? "-" : "+"}${digits}`;
  }
  return withoutTrailingZeros(value.toFixed(Math.min(100, 16 - exponent)));
}

function withoutTrailingZeros(digits: string): string {
  return digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
}

/**
 * Writes a value as QMP does: `", "` and `": "` as separators, ASCII only.
 *
 * @param pretty one member a line, indented by four spaces
 */
export function stringify(value: JsonValue, pretty = false): string {
  const write = (node: JsonValue, indent: string): string => {
    if (node === null) return "null";
    if (typeof node === "string") return stringText(node);
    if (typeof node === "number") return numberText(node);
    if (typeof node !== "object") return String(node);
    const inner = indent + "    ";
    const isArray = Array.isArray(node);
    const items = isArray
      ? node.map((item: JsonValue) => write(item, inner))
      : Object.entries(node as JsonObject)
        .filter(([, member]) => member !== undefined)
        .map(([name, member]) => `${stringText(name)}: ${write(member!, inner)}`);
    const [open, close] = isArray ? "[]" : "{}";
    if (!pretty) return open + items.join(", ") + close;
    return open + items.map((item) => `\n${inner}${item}`).join(",") + `\n${indent}${close}`;
  };
  return write(value, "");
}
