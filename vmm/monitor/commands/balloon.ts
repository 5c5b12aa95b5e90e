/**
 * Commands about the memory balloon: `balloon`, `query-balloon`, `info balloon`.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command, HmpCommand } from "../context.ts";
import { QmpError } from "../errors.ts";
import { defineHmp } from "../hmp_command.ts";

const schemas = () => import("../schema/balloon.ts");
const MIB = 1 << 20;

/** The commands. */
export const balloonCommands: readonly Command[] = [
  defineCommand({
    name: "balloon",
    help: "request VM to change its memory allocation",
    schema: async () => (await schemas()).balloon,
    handler: ({ machine }, { value }) => {
      // Without a device that is what is wrong, whatever the value.
      void machine.guestMemory;
      if (value <= 0n) throw new QmpError("Parameter 'target' expects a size");
      machine.setBalloon(Number(value));
    },
    hmp: {
      parameters: [{ name: "target", type: "long" }],
      usage: "target",
      help: "request VM to change its memory allocation (in MB)",
      async run({ machine, table, session }, { target }) {
        await table.execute({ machine, table, session }, "balloon", {
          value: BigInt.asIntN(64, target * BigInt(MIB)),
        });
      },
    },
  }),
  defineCommand({
    name: "query-balloon",
    help: "show how much memory the guest has, without what it has given back",
    schema: async () => (await schemas()).queryBalloon,
    handler: ({ machine }) => ({ actual: machine.guestMemory }),
  }),
];

/** The sub-commands of `info`. */
export const infoBalloonCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "balloon",
    help: "show balloon information",
    run: ({ machine }) => `balloon: actual=${Math.floor(machine.guestMemory / MIB)}\n`,
  }),
];
