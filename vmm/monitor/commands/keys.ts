/**
 * Commands that press keys of the guest's keyboard: `send-key`, `sendkey`.
 *
 * @module
 */
import { keyByNumber, keyNames } from "../../../devices/isa/ps2_keys.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";

/** How long keys are held unless it is said, in ms. */
const HOLD_MS = 100;
/** What the keyboard can count. */
const MAX_HOLD_MS = 0xffff_ffff;

/** QEMU takes what is no time for none given. */
function holdTime(ms: number | undefined): number {
  return ms === undefined || ms <= 0 ? HOLD_MS : Math.min(ms, MAX_HOLD_MS);
}

/** Reads `ctrl-alt-f1`, codes such as `0x1e` among them; a string is the part that is no key. */
function parseKeys(text: string): string[] | string {
  if (text === "<") return ["less"];
  const keys: string[] = [];
  for (const part of text.split("-")) {
    if (/^0x[0-9a-f]+$/i.test(part)) keys.push(keyByNumber(Number(part)));
    else if (keyNames.includes(part)) keys.push(part);
    else return part;
  }
  return keys;
}

/** The commands. */
export const keyCommands: readonly Command[] = [
  defineCommand({
    name: "send-key",
    help: "press keys together, and release them after a while",
    schema: async () => (await import("../schema/keys.ts")).sendKey,
    handler: ({ machine }, { keys, "hold-time": holdMs }) =>
      machine.sendKeys(
        keys.map((key) => key.type === "number" ? keyByNumber(key.data) : key.data),
        holdTime(holdMs),
      ),
    hmp: {
      name: "sendkey",
      parameters: [
        { name: "keys", type: "string" },
        { name: "hold_ms", type: "int", optional: true },
      ],
      usage: "keys [hold_ms]",
      help: "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
      async run({ machine }, { keys, hold_ms: holdMs }) {
        const parsed = parseKeys(keys);
        if (typeof parsed === "string") return `invalid parameter: ${parsed}\n`;
        await machine.sendKeys(parsed, holdTime(holdMs));
      },
    },
  }),
];
