/**
 * `info` sub-commands about devices.
 *
 * @module
 */
import type { BusInfo, DeviceInfo, NetClientInfo } from "../control.ts";
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";

/** The sub-commands. */
export const infoDeviceCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "chardev",
    help: "show the character devices",
    run: ({ machine }) =>
      machine.chardevs.map(({ label, filename }) => `${label}: filename=${filename}\n`).join(""),
  }),
  defineHmp({
    name: "iothreads",
    help: "show iothreads",
    run: async ({ machine }) =>
      (await machine.iothreads()).map((thread) =>
        `${thread.id}:\n  thread_id=${thread.threadId}\n  poll-max-ns=${thread.pollMaxNs}\n` +
        `  poll-grow=${thread.pollGrow}\n  poll-shrink=${thread.pollShrink}\n` +
        `  poll-weight=${thread.pollWeight}\n  aio-max-batch=${thread.aioMaxBatch}\n`
      ).join(""),
  }),
  defineHmp({
    name: "network",
    help: "show the network state",
    run: ({ machine }) => machine.netClients.map(netClientText).join(""),
  }),
  defineHmp({
    name: "qtree",
    parameters: [{ name: "brief", type: "flag", letter: "b" }],
    usage: "[-b]",
    help: "show device tree (-b: brief, omit properties)",
    run: ({ machine }, { brief }) => busText(machine.deviceTree, "", brief),
  }),
];

function netClientText({ name, info, peer }: NetClientInfo): string {
  return `${name}: ${info}\n${peer ? ` \\ ${peer.name}: ${peer.info}\n` : ""}`;
}

function busText({ name, type, devices }: BusInfo, indent: string, brief: boolean): string {
  return `${indent}bus: ${name}\n${indent}  type ${type}\n` +
    devices.map((device) => deviceText(device, `${indent}  `, brief)).join("");
}

function deviceText(device: DeviceInfo, indent: string, brief: boolean): string {
  const hex = (value: bigint) => value.toString(16).padStart(16, "0");
  const lines = [`${indent}dev: ${device.driver}, id "${device.id}"`];
  if (!brief) {
    for (const [name, value] of device.properties) lines.push(`${indent}  ${name} = ${value}`);
    for (const { start, size } of device.mmio ?? []) {
      lines.push(`${indent}  mmio ${hex(start)}/${hex(size)}`);
    }
  }
  const buses = (device.buses ?? []).map((bus) => busText(bus, `${indent}  `, brief));
  return `${lines.join("\n")}\n${buses.join("")}`;
}
