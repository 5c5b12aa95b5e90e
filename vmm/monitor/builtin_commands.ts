/**
 * The table with all commands that need nothing but a VM.
 *
 * @module
 */
import { CommandTable } from "./command_table.ts";
import { balloonCommands, infoBalloonCommands } from "./commands/balloon.ts";
import { blockCommands } from "./commands/block.ts";
import { fdCommands } from "./commands/fds.ts";
import { gdbCommands } from "./commands/gdb.ts";
import { hotplugCommands } from "./commands/hotplug.ts";
import { infoBlockCommands } from "./commands/info_block.ts";
import { infoDeviceCommands } from "./commands/info_devices.ts";
import { infoMemoryCommands } from "./commands/info_memory.ts";
import { infoVmCommands } from "./commands/info_vm.ts";
import { keyCommands } from "./commands/keys.ts";
import { machineCommands } from "./commands/machine.ts";
import { memoryCommands } from "./commands/memory.ts";
import { memoryHmpCommands } from "./commands/memory_hmp.ts";
import { networkCommands } from "./commands/network.ts";
import { helpCommands, monitorCommands } from "./commands/monitor.ts";
import { infoPciCommands, pciCommands } from "./commands/pci.ts";
import { qomCommands } from "./commands/qom.ts";
import { runControlCommands } from "./commands/run_control.ts";

/** A new table with the built-in commands; other layers add theirs to it. */
export function builtinCommands(): CommandTable {
  return new CommandTable()
    .add(...monitorCommands, ...runControlCommands, ...machineCommands, ...memoryCommands)
    .add(...fdCommands, ...hotplugCommands, ...blockCommands, ...keyCommands, ...networkCommands)
    .add(...balloonCommands, ...qomCommands, ...pciCommands)
    .addHmp(...helpCommands, ...memoryHmpCommands, ...gdbCommands)
    .addInfo(...infoVmCommands, ...infoMemoryCommands, ...infoDeviceCommands, ...infoBlockCommands)
    .addInfo(...infoBalloonCommands, ...infoPciCommands)
    .addEvents(async () => (await import("./schema/events.ts")).events);
}
