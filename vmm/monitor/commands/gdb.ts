/**
 * The HMP command `gdbserver`.
 *
 * @module
 */
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";

const DEFAULT_DEVICE = "tcp::1234";

/** The command. */
export const gdbCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "gdbserver",
    parameters: [{ name: "device", type: "string", optional: true }],
    usage: "[device]",
    help: "start gdbserver on given device (default 'tcp::1234'), stop with 'none'",
    run: async ({ machine }, { device = DEFAULT_DEVICE }) => {
      await machine.gdbserver(device);
      return device === "none"
        ? "Disabled gdbserver\n"
        : `Waiting for gdb connection on device '${device}'\n`;
    },
  }),
];
