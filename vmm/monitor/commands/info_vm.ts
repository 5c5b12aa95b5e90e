/**
 * `info` sub-commands about the VM, its vCPUs and its interrupt controllers.
 *
 * @module
 */
import type { CommandContext } from "../context.ts";
import { defineHmp } from "../hmp_command.ts";
import type { HmpCommand } from "../context.ts";
import { generationId } from "./machine.ts";
import { packageName, qemuVersion } from "../version.ts";

/** The sub-commands. */
export const infoVmCommands: readonly HmpCommand[] = [
  defineHmp({
    name: "version",
    help: "show the version of QEMU",
    run: () => {
      const { major, minor, micro } = qemuVersion;
      return `${major}.${minor}.${micro} ${packageName}\n`;
    },
  }),
  defineHmp({
    name: "status",
    help: "show the current VM status (running|paused)",
    run: ({ machine: { running, runState } }) => {
      const reason = running || runState === "paused" ? "" : ` (${runState})`;
      return `VM status: ${running ? "running" : "paused"}${reason}\n`;
    },
  }),
  defineHmp({
    name: "name",
    help: "show the current VM name",
    run: ({ machine: { name } }) => name === undefined ? "" : `${name}\n`,
  }),
  defineHmp({
    name: "uuid",
    help: "show the current VM UUID",
    run: ({ machine }) => `${machine.uuid}\n`,
  }),
  defineHmp({
    name: "vm-generation-id",
    help: "Show Virtual Machine Generation ID",
    run: ({ machine }) => `${generationId(machine)}\n`,
  }),
  defineHmp({
    name: "kvm",
    help: "show KVM information",
    run: ({ machine: { kvm } }) => {
      const state = !kvm.present ? "not compiled" : kvm.enabled ? "enabled" : "disabled";
      return `kvm support: ${state}\n`;
    },
  }),
  defineHmp({
    name: "cpus",
    help: "show infos for each CPU",
    run: ({ machine, session }) =>
      machine.vcpus.map(({ index, threadId, model }) =>
        `${index === session.cpuIndex ? "*" : " "} CPU #${index}: ` +
        `thread_id=${threadId} model=${model}\n`
      ).join(""),
  }),
  defineHmp({
    name: "registers",
    parameters: [
      { name: "all", type: "flag", letter: "a" },
      { name: "vcpu", type: "int", optional: true },
    ],
    usage: "[-a|vcpu]",
    help: "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to " +
      "query; show the current CPU's registers if no argument is specified)",
    run: async ({ machine, session }, { all, vcpu = session.cpuIndex }) => {
      const indexes = machine.vcpus.map(({ index }) => index);
      const shown = all ? indexes : indexes.filter((index) => index === vcpu);
      if (shown.length === 0) return `CPU#${vcpu} not available\n`;
      let text = "";
      for (const index of shown) {
        text += `\nCPU#${index}\n${endLine(await machine.registers(index))}`;
      }
      return text;
    },
  }),
  defineHmp({
    name: "lapic",
    parameters: [{ name: "apicId", type: "int", optional: true }],
    usage: "[apic-id]",
    help: "show local apic state (apic-id: local apic to read, default is which of current CPU)",
    // A vCPU's initial APIC id is its index.
    run: async ({ machine, session }, { apicId = session.cpuIndex }) => {
      if (!machine.vcpus.some(({ index }) => index === apicId)) return "No CPU available\n";
      return endLine(await machine.localApic(apicId));
    },
  }),
  defineHmp({
    name: "pic",
    help: "show PIC state",
    run: async ({ machine }) => endLine(await machine.interruptControllers()),
  }),
  defineHmp({
    name: "irq",
    help: "show the interrupts statistics (if available)",
    run: async ({ machine }) => endLine(await machine.interruptStatistics()),
  }),
  defineHmp({
    name: "history",
    help: "show the command line history",
    run: ({ session }: CommandContext) =>
      session.history.map((line, index) => `${index}: '${line}'\n`).join(""),
  }),
];

/** A text of the VM's, with its last line ended. */
const endLine = (text: string) => text === "" || text.endsWith("\n") ? text : `${text}\n`;
