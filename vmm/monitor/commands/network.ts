/**
 * Commands about the network: `set_link`.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";

/** The commands. */
export const networkCommands: readonly Command[] = [
  defineCommand({
    name: "set_link",
    help: "change the link status of a network adapter",
    schema: async () => (await import("../schema/network.ts")).setLink,
    handler: ({ machine }, { name, up }) => machine.setLink(name, up),
    hmp: {
      parameters: [{ name: "name", type: "string" }, { name: "up", type: "string" }],
      usage: "name on|off",
      help: "change the link status of a network adapter",
      async run({ machine }, { name, up }) {
        if (up !== "on" && up !== "off") return "Expected 'on' or 'off'\n";
        await machine.setLink(name, up === "on");
      },
    },
  }),
];
