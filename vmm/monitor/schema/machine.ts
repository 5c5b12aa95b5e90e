/**
 * Schemas of queries about the VM (QAPI control.json, misc.json, machine.json, char.json).
 *
 * @module
 */
import { z } from "zod";

/** QAPI SysEmuTarget, the part of it that Denovo emulates. */
const target = z.enum(["x86_64"]);

/** QAPI VersionInfo. */
export const version = z.strictObject({
  qemu: z.strictObject({ micro: z.int(), minor: z.int(), major: z.int() }),
  package: z.string(),
});

/** `query-version` */
export const queryVersion = { returns: version };

/** `query-name` */
export const queryName = { returns: z.strictObject({ name: z.string().optional() }) };

/** `query-uuid` */
export const queryUuid = { returns: z.strictObject({ UUID: z.string() }) };

/** `query-kvm` */
export const queryKvm = {
  returns: z.strictObject({ enabled: z.boolean(), present: z.boolean() }),
};

/** `query-target` */
export const queryTarget = { returns: z.strictObject({ arch: target }) };

const cpu = z.strictObject({
  "thread-id": z.int(),
  props: z.strictObject({
    "core-id": z.int().optional(),
    "die-id": z.int().optional(),
    "thread-id": z.int().optional(),
    "socket-id": z.int().optional(),
  }).optional(),
  "qom-type": z.string(),
  "qom-path": z.string(),
  "cpu-index": z.int(),
  target,
});

/** `query-cpus-fast` */
export const queryCpusFast = { returns: z.array(cpu) };

const machineType = z.strictObject({
  name: z.string(),
  "is-default": z.boolean().optional(),
  "cpu-max": z.int(),
  "hotpluggable-cpus": z.boolean(),
  "numa-mem-supported": z.boolean(),
  deprecated: z.boolean(),
  "default-cpu-type": z.string().optional(),
  "default-ram-id": z.string().optional(),
  acpi: z.boolean(),
});

/** `query-machines` */
export const queryMachines = { returns: z.array(machineType) };

/** `query-current-machine` */
export const queryCurrentMachine = {
  returns: z.strictObject({ "wakeup-suspend-support": z.boolean() }),
};

/** `query-vm-generation-id` */
export const queryVmGenerationId = { returns: z.strictObject({ guid: z.string() }) };

const chardev = z.strictObject({
  "frontend-open": z.boolean(),
  filename: z.string(),
  label: z.string(),
});

/** `query-chardev` */
export const queryChardev = { returns: z.array(chardev) };

/** `query-chardev-backends` */
export const queryChardevBackends = { returns: z.array(z.strictObject({ name: z.string() })) };

const iothread = z.strictObject({
  id: z.string(),
  "thread-id": z.int(),
  "poll-max-ns": z.int(),
  "poll-grow": z.int(),
  "poll-shrink": z.int(),
  "poll-weight": z.int(),
  "aio-max-batch": z.int(),
});

/** `query-iothreads` */
export const queryIothreads = { returns: z.array(iothread) };
