/**
 * `-rtc`: what the machine's clock shows at its start.
 *
 * @module
 */
import type { Draft } from "./draft.ts";
import { OptionError } from "./error.ts";
import { parseOpts } from "./grammar.ts";
import { readOptions } from "./schema.ts";

const DATE_TIME = /^(\d{4})-(\d{1,2})-(\d{1,2})(?:T(\d{1,2}):(\d{1,2}):(\d{1,2}))?$/;

/** Reads `2006-06-17T16:01:21` or `2006-06-17` as seconds since 1970, without a time zone. */
function parseDateTime(text: string): number {
  const fields = DATE_TIME.exec(text)?.slice(1).map((field) => Number(field ?? 0));
  if (fields) {
    const [year, month, day, hour, minute, second] = fields;
    const date = new Date(0);
    date.setUTCFullYear(year, month - 1, day);
    date.setUTCHours(hour, minute, second);
    const isReal = date.getUTCMonth() === month - 1 && date.getUTCDate() === day &&
      date.getUTCHours() === hour && date.getUTCMinutes() === minute;
    if (isReal) return date.getTime() / 1000;
  }
  throw new OptionError(
    "invalid datetime format, valid formats: '2006-06-17T16:01:21' or '2006-06-17'",
  );
}

/** `-rtc [base=utc|localtime|datetime][,clock=host|rt|vm][,driftfix=none|slew]` */
export function rtc(text: string, draft: Draft): void {
  const { base = "utc", clock = "host", driftfix = "none" } = readOptions(parseOpts(text, "base"), {
    base: "string",
    clock: "string",
    driftfix: "string",
  });
  if (clock === "rt" || clock === "vm") {
    throw new OptionError(`clock=${clock} is not there: the clock follows the host's (clock=host)`);
  }
  if (driftfix === "slew") {
    throw new OptionError("driftfix=slew is not there: lost ticks stay lost (driftfix=none)");
  }
  if (clock !== "host") throw new OptionError(`invalid option value '${clock}'`);
  if (driftfix !== "none") throw new OptionError(`invalid option value '${driftfix}'`);
  const isNamed = base === "utc" || base === "localtime";
  draft.config.rtcBase = isNamed ? base : parseDateTime(base);
}
