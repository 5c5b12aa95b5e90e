/**
 * Commands that pass file descriptors to the VM.
 *
 * @module
 */
import type { OwnedFd } from "../../../ffi/fd.ts";
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import type { MonitorSession } from "../context.ts";
import { QmpError } from "../errors.ts";

const schemas = () => import("../schema/fds.ts");

/** `getfd`, `closefd`, `add-fd`, `remove-fd`, `query-fdsets` */
export const fdCommands: readonly Command[] = [
  defineCommand({
    name: "getfd",
    help: "receive a file descriptor via SCM rights and assign it a name",
    schema: async () => (await schemas()).getfd,
    handler: ({ machine, session }, { fdname }) => machine.fds.set(fdname, passedFd(session)),
    hmp: { parameters: [{ name: "fdname", type: "string" }], usage: "getfd name" },
  }),
  defineCommand({
    name: "closefd",
    help: "close a file descriptor previously passed via SCM rights",
    schema: async () => (await schemas()).closefd,
    handler: ({ machine }, { fdname }) => machine.fds.close(fdname),
    hmp: { parameters: [{ name: "fdname", type: "string" }], usage: "closefd name" },
  }),
  defineCommand({
    name: "add-fd",
    help: "add a file descriptor, passed via SCM rights, to an fd set",
    schema: async () => (await schemas()).addFd,
    handler: ({ machine, session }, { "fdset-id": id, opaque }) => {
      const { fdsetId, fd } = machine.fds.add(passedFd(session), id, opaque);
      return { "fdset-id": fdsetId, fd };
    },
  }),
  defineCommand({
    name: "remove-fd",
    help: "remove a file descriptor from an fd set",
    schema: async () => (await schemas()).removeFd,
    handler: ({ machine }, { "fdset-id": id, fd }) => machine.fds.remove(id, fd),
  }),
  defineCommand({
    name: "query-fdsets",
    help: "show the fd sets",
    schema: async () => (await schemas()).queryFdsets,
    handler: ({ machine }) =>
      machine.fds.sets.map(({ fdsetId, fds }) => ({ "fdset-id": fdsetId, fds: [...fds] })),
  }),
];

/** The descriptor that came with the command. */
function passedFd(session: MonitorSession): OwnedFd {
  const owned = session.takeFd();
  if (!owned) throw new QmpError("No file descriptor supplied via SCM_RIGHTS");
  return owned;
}
