/**
 * Commands about the network: `set_link`, `netdev_add`, `netdev_del`.
 *
 * @module
 */
import { netdevHelp } from "../../options/netdev.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";

const schemas = () => import("../schema/network.ts");

/** The commands. */
export const networkCommands: readonly Command[] = [
  defineCommand({
    name: "set_link",
    help: "change the link status of a network adapter",
    schema: async () => (await schemas()).setLink,
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
  defineCommand({
    name: "netdev_add",
    help: "add host network device, like -netdev on the command line",
    schema: async () => (await schemas()).netdevAdd,
    handler: ({ machine }, options) => machine.netdevAdd(JSON.stringify(options)),
    hmp: {
      parameters: [{ name: "netdev", type: "rest" }],
      usage: "[user|tap|stream|dgram],id=str[,prop=value][,...]",
      help: "add host network device",
      run({ machine }, { netdev }) {
        const help = netdevHelp(netdev);
        return help === undefined ? machine.netdevAdd(netdev) : `${help}\n`;
      },
    },
  }),
  defineCommand({
    name: "netdev_del",
    help: "remove host network device",
    schema: async () => (await schemas()).netdevDel,
    handler: ({ machine }, { id }) => machine.netdevDel(id),
    hmp: { parameters: [{ name: "id", type: "string" }], usage: "id" },
  }),
];
