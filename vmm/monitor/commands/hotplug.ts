/**
 * Commands that add and remove devices, objects and character devices.
 *
 * @module
 */
import type { z } from "zod";
import type { ChardevConfig, SocketEndpoint } from "../../../devices/chardev/config.ts";
import { deviceTypes } from "../../../devices/registry.ts";
import { chardevHelp, protocolOf, reconnectTime } from "../../options/chardev.ts";
import { deviceHelp } from "../../options/device.ts";
import { objectHelp } from "../../options/object.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import type { MachineControl, RunState } from "../control.ts";
import { notPermitted, QmpError } from "../errors.ts";

const schemas = () => import("../schema/hotplug.ts");

/** The parts of the machine must not change while their state is taken or after it was handed on. */
const hotplugStates: readonly RunState[] = [
  "inmigrate",
  "internal-error",
  "io-error",
  "paused",
  "prelaunch",
  "running",
  "shutdown",
  "suspended",
  "watchdog",
  "guest-panicked",
];

/** The check that QMP dispatch makes, for HMP forms that go to the machine directly. */
function checkState({ runState }: MachineControl, name: string): void {
  if (!hotplugStates.includes(runState)) throw notPermitted(name, runState);
}

const idParameter = [{ name: "id", type: "string" }] as const;

/** `device_add`, `device_del`, `object-add`, `object-del`, `chardev-add`, `chardev-remove` */
export const hotplugCommands: readonly Command[] = [
  defineCommand({
    name: "device_add",
    help: "add device, like -device on the command line",
    schema: async () => (await schemas()).deviceAdd,
    allowedIn: hotplugStates,
    handler: ({ machine }, options) => machine.deviceAdd(options),
    hmp: {
      parameters: [{ name: "device", type: "rest", optional: true }],
      usage: "driver[,prop=value][,...]",
      run: ({ machine }, { device = "" }) => {
        const help = deviceHelp(device, deviceTypes);
        if (help !== undefined) return `${help}\n`;
        checkState(machine, "device_add");
        if (device === "") throw new QmpError("Parameter 'driver' is missing");
        return machine.deviceAddOptions(device);
      },
    },
  }),
  defineCommand({
    name: "device_del",
    help: "remove device",
    schema: async () => (await schemas()).byId,
    allowedIn: hotplugStates,
    handler: ({ machine }, { id }) => machine.deviceDel(id),
    hmp: { parameters: idParameter, usage: "device" },
  }),
  defineCommand({
    name: "object-add",
    help: "create QOM object",
    schema: async () => (await schemas()).objectAdd,
    allowedIn: hotplugStates,
    handler: ({ machine }, options) => machine.objectAdd(options),
    hmp: {
      name: "object_add",
      parameters: [{ name: "object", type: "rest" }],
      usage: "[qom-type=]type,id=str[,prop=value][,...]",
      run: ({ machine }, { object }) => {
        const help = objectHelp(object);
        if (help !== undefined) return `${help}\n`;
        checkState(machine, "object-add");
        return machine.objectAddOptions(object);
      },
    },
  }),
  defineCommand({
    name: "object-del",
    help: "destroy QOM object",
    schema: async () => (await schemas()).byId,
    allowedIn: hotplugStates,
    handler: ({ machine }, { id }) => machine.objectDel(id),
    hmp: { name: "object_del", parameters: idParameter, usage: "id" },
  }),
  defineCommand({
    name: "chardev-add",
    help: "add chardev",
    schema: async () => (await schemas()).chardevAdd,
    allowedIn: hotplugStates,
    handler: ({ machine }, { id, backend }) =>
      machine.chardevAdd(chardevConfig(machine, id, backend)),
    hmp: {
      parameters: [{ name: "args", type: "rest" }],
      usage: "args",
      run: ({ machine }, { args }) => {
        const help = chardevHelp(args);
        if (help !== undefined) return `${help}\n`;
        checkState(machine, "chardev-add");
        return machine.chardevAddOptions(args);
      },
    },
  }),
  defineCommand({
    name: "chardev-remove",
    help: "remove chardev",
    schema: async () => (await schemas()).byId,
    allowedIn: hotplugStates,
    handler: ({ machine }, { id }) => machine.chardevRemove(id),
    hmp: { parameters: idParameter, usage: "id" },
  }),
];

type ChardevBackend = z.output<typeof import("../schema/hotplug.ts").chardevBackend>;
type SocketAddress = Extract<ChardevBackend, { type: "socket" }>["data"]["addr"];

/** A QAPI ChardevBackend as configuration. */
function chardevConfig(
  machine: MachineControl,
  id: string,
  { type, data }: ChardevBackend,
): ChardevConfig {
  const { logfile, logappend } = data;
  const common = {
    id,
    ...logfile !== undefined && { logfile },
    ...logappend !== undefined && { logappend },
  };
  switch (type) {
    case "null":
      return { ...common, backend: type };
    case "stdio":
      return { ...common, backend: type, signal: data.signal ?? true };
    case "file":
      return { ...common, backend: type, path: data.out, append: data.append ?? false };
    case "pipe":
      return { ...common, backend: type, path: data.device };
    case "pty":
      return { ...common, backend: type, ...data.path !== undefined && { path: data.path } };
    case "socket": {
      const { addr, server = true, wait = false } = data;
      if (addr.type === "fd") {
        return { ...common, backend: "fd", fd: passedSocket(machine, addr.data.str) };
      }
      const protocol = protocolOf({ ...data, server });
      const reconnectMs = reconnectTime({ ...data, server });
      return {
        ...common,
        ...endpoint(addr),
        backend: type,
        server,
        wait,
        ...protocol && { protocol },
        ...reconnectMs !== undefined && { reconnectMs },
      };
    }
  }
}

function endpoint(addr: Exclude<SocketAddress, { type: "fd" }>): SocketEndpoint {
  if (addr.type === "unix") return { family: "unix", path: addr.data.path };
  const { host, port } = addr.data;
  const number = /^[0-9]{1,5}$/.test(port) ? Number(port) : Infinity;
  if (number > 0xffff) throw new QmpError(`Cannot use port '${port}': expected 0 to 65535`);
  return { family: "tcp", host, port: number };
}

/** A socket's descriptor, by the name that `getfd` gave it or by its number. */
function passedSocket(machine: MachineControl, name: string): number {
  const owned = machine.fds.take(name);
  if (owned) return owned.release();
  if (/^[0-9]{1,9}$/.test(name)) return Number(name);
  throw new QmpError(`File descriptor named '${name}' has not been found`);
}
