/**
 * Schemas of commands that add and remove devices, objects and character devices (QAPI qdev.json,
 * qom.json, char.json, sockets.json).
 *
 * @module
 */
import { z } from "zod";
import { size } from "./types.ts";

/** `device_add`: the driver's properties are members beside these. */
export const deviceAdd = {
  args: z.looseObject({
    driver: z.string(),
    bus: z.string().optional(),
    id: z.string().optional(),
  }),
};

/** `device_del`, `object-del` and `chardev-remove` */
export const byId = { args: z.strictObject({ id: z.string() }) };

/** The id of any object: the one member that the union of object types has for all of them. */
const id = z.string();

/** QAPI MemoryBackendProperties, the part that Denovo has; each type has members of its own. */
const memoryBackend = () =>
  z.strictObject({
    id,
    prealloc: z.boolean().optional(),
    share: z.boolean().optional(),
    size: size(),
  });

/** QAPI ThrottleLimits, or the older names of the same. */
function limits(prefix: string): Record<string, z.ZodOptional<z.ZodInt>> {
  const names = ["iops-total", "iops-read", "iops-write", "bps-total", "bps-read", "bps-write"];
  const all = names.flatMap((name) => [name, `${name}-max`, `${name}-max-length`]);
  return Object.fromEntries(
    [...all, "iops-size"].map((name) => [prefix + name, z.int().optional()]),
  );
}

/** `object-add` */
export const objectAdd = {
  args: z.discriminatedUnion("qom-type", [
    memoryBackend().extend({
      "qom-type": z.literal("memory-backend-file"),
      align: size().optional(),
      offset: size().optional(),
      "mem-path": z.string(),
      readonly: z.boolean().optional(),
    }),
    memoryBackend().extend({
      "qom-type": z.literal("memory-backend-memfd"),
      hugetlb: z.boolean().optional(),
      hugetlbsize: size().optional(),
      seal: z.boolean().optional(),
    }),
    memoryBackend().extend({ "qom-type": z.literal("memory-backend-ram") }),
    memoryBackend().extend({ "qom-type": z.literal("memory-backend-shm") }),
    z.strictObject({
      "qom-type": z.literal("throttle-group"),
      id,
      limits: z.strictObject(limits("")).optional(),
      ...limits("x-"),
    }),
  ]),
};

/** QAPI SocketAddressLegacy. */
const socketAddressLegacy = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("inet"),
    data: z.strictObject({ host: z.string(), port: z.string() }),
  }),
  z.strictObject({ type: z.literal("unix"), data: z.strictObject({ path: z.string() }) }),
  z.strictObject({ type: z.literal("fd"), data: z.strictObject({ str: z.string() }) }),
]);

/** QAPI ChardevCommon. */
const common = z.strictObject({
  logfile: z.string().optional(),
  logappend: z.boolean().optional(),
});

/** QAPI ChardevBackend, the part that Denovo has. */
export const chardevBackend = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("file"),
    data: common.extend({ out: z.string(), append: z.boolean().optional() }),
  }),
  z.strictObject({ type: z.literal("pipe"), data: common.extend({ device: z.string() }) }),
  z.strictObject({
    type: z.literal("socket"),
    data: common.extend({
      addr: socketAddressLegacy,
      server: z.boolean().optional(),
      wait: z.boolean().optional(),
      telnet: z.boolean().optional(),
      websocket: z.boolean().optional(),
      "reconnect-ms": z.int().optional(),
    }),
  }),
  z.strictObject({ type: z.literal("pty"), data: common.extend({ path: z.string().optional() }) }),
  z.strictObject({ type: z.literal("null"), data: common }),
  z.strictObject({
    type: z.literal("stdio"),
    data: common.extend({ signal: z.boolean().optional() }),
  }),
]);

/** `chardev-add` */
export const chardevAdd = {
  args: z.strictObject({ id: z.string(), backend: chardevBackend }),
  returns: z.strictObject({ pty: z.string().optional() }),
};
