/**
 * Queries about the VM as a whole.
 *
 * @module
 */
import { defineCommand } from "../command.ts";
import type { Command } from "../context.ts";
import type { MachineControl } from "../control.ts";
import { QmpError } from "../errors.ts";
import { packageName, qemuVersion } from "../version.ts";

const schemas = () => import("../schema/machine.ts");

/** The Virtual Machine Generation ID. @throws {QmpError} in QEMU's words if there is no such device */
export function generationId({ generationId }: MachineControl): string {
  if (generationId === undefined) throw new QmpError("VM Generation ID device not found");
  return generationId;
}

/** `query-version`, `query-name`, `query-cpus-fast` and the like */
export const machineCommands: readonly Command[] = [
  defineCommand({
    name: "query-version",
    help: "show the version of QMP that is spoken, and by whom",
    schema: async () => (await schemas()).queryVersion,
    handler: () => ({ qemu: qemuVersion, package: packageName }),
  }),
  defineCommand({
    name: "query-name",
    help: "show the name of the VM",
    schema: async () => (await schemas()).queryName,
    handler: ({ machine: { name } }) => name === undefined ? {} : { name },
  }),
  defineCommand({
    name: "query-uuid",
    help: "show the UUID of the VM",
    schema: async () => (await schemas()).queryUuid,
    handler: ({ machine }) => ({ UUID: machine.uuid }),
  }),
  defineCommand({
    name: "query-kvm",
    help: "show whether KVM is there and in use",
    schema: async () => (await schemas()).queryKvm,
    handler: ({ machine: { kvm } }) => ({ enabled: kvm.enabled, present: kvm.present }),
  }),
  defineCommand({
    name: "query-target",
    help: "show the guest's architecture",
    schema: async () => (await schemas()).queryTarget,
    handler: () => ({ arch: "x86_64" as const }),
  }),
  defineCommand({
    name: "query-cpus-fast",
    help: "show the vCPUs and their threads",
    schema: async () => (await schemas()).queryCpusFast,
    handler: ({ machine }) =>
      machine.vcpus.map(({ index, threadId, model, topology }) => ({
        "thread-id": threadId,
        props: {
          "core-id": topology.coreId,
          ...topology.dieId !== undefined && { "die-id": topology.dieId },
          "thread-id": topology.threadId,
          "socket-id": topology.socketId,
        },
        "qom-type": `${model}-x86_64-cpu`,
        "qom-path": `/machine/unattached/device[${index}]`,
        "cpu-index": index,
        target: "x86_64" as const,
      })),
  }),
  defineCommand({
    name: "query-machines",
    help: "show the machine types",
    schema: async () => (await schemas()).queryMachines,
    handler: ({ machine }) =>
      machine.machineTypes.map((type) => ({
        name: type.name,
        ...type.isDefault && { "is-default": true },
        "cpu-max": type.cpuMax,
        "hotpluggable-cpus": false,
        "numa-mem-supported": false,
        deprecated: false,
        "default-cpu-type": type.defaultCpuType,
        "default-ram-id": type.defaultRamId,
        acpi: type.acpi,
      })),
  }),
  defineCommand({
    name: "query-current-machine",
    help: "show what this machine can do",
    schema: async () => (await schemas()).queryCurrentMachine,
    handler: ({ machine }) => ({ "wakeup-suspend-support": machine.wakeupSupported }),
  }),
  defineCommand({
    name: "query-vm-generation-id",
    help: "show the Virtual Machine Generation ID",
    schema: async () => (await schemas()).queryVmGenerationId,
    handler: ({ machine }) => ({ guid: generationId(machine) }),
  }),
  defineCommand({
    name: "query-chardev",
    help: "show the character devices",
    schema: async () => (await schemas()).queryChardev,
    handler: ({ machine }) =>
      machine.chardevs.map(({ label, filename, frontendOpen }) => ({
        "frontend-open": frontendOpen,
        filename,
        label,
      })),
  }),
  defineCommand({
    name: "query-chardev-backends",
    help: "show the types of character devices",
    schema: async () => (await schemas()).queryChardevBackends,
    handler: ({ machine }) => machine.chardevBackends.map((name) => ({ name })),
  }),
  defineCommand({
    name: "query-iothreads",
    help: "show the iothread objects",
    schema: async () => (await schemas()).queryIothreads,
    handler: async ({ machine }) =>
      (await machine.iothreads()).map((thread) => ({
        id: thread.id,
        "thread-id": thread.threadId,
        "poll-max-ns": thread.pollMaxNs,
        "poll-grow": thread.pollGrow,
        "poll-shrink": thread.pollShrink,
        "poll-weight": thread.pollWeight,
        "aio-max-batch": thread.aioMaxBatch,
      })),
  }),
];
