/**
 * Schemas of the migration commands (QAPI migration.json, sockets.json).
 *
 * Loaded with the first migration command: importing zod costs milliseconds.
 *
 * @module
 */
import { z } from "zod";
import { migrationStatuses } from "../migration/migration.ts";
import { capabilityNames, parameterChoices } from "../migration/parameters.ts";
import { steps, updateProcesses } from "../migration/timeline.ts";

const status = z.enum(migrationStatuses);
const capability = z.enum(capabilityNames);
const capabilityStatus = z.strictObject({ capability, state: z.boolean() });
const integer = () => z.int().min(0);

const socket = { transport: z.literal("socket") };
/** QAPI MigrationAddress: the union of sockets, commands and files. */
export const migrationAddress = z.discriminatedUnion("transport", [
  z.discriminatedUnion("type", [
    z.strictObject({ ...socket, type: z.literal("inet"), host: z.string(), port: z.string() }),
    z.strictObject({ ...socket, type: z.literal("unix"), path: z.string() }),
    z.strictObject({ ...socket, type: z.literal("fd"), str: z.string() }),
  ]),
  z.strictObject({ transport: z.literal("exec"), args: z.array(z.string()) }),
  z.strictObject({ transport: z.literal("file"), filename: z.string(), offset: integer() }),
]);

/** QAPI MigrationChannel. */
export const migrationChannel = z.strictObject({
  "channel-type": z.enum(["main", "cpr"]),
  addr: migrationAddress,
});

const parameterMembers = {
  "announce-initial": integer(),
  "announce-max": integer(),
  "announce-rounds": integer(),
  "announce-step": integer(),
  "throttle-trigger-threshold": integer(),
  "cpu-throttle-initial": integer(),
  "cpu-throttle-increment": integer(),
  "cpu-throttle-tailslow": z.boolean(),
  "tls-creds": z.string(),
  "tls-hostname": z.string(),
  "tls-authz": z.string(),
  "max-bandwidth": integer(),
  "avail-switchover-bandwidth": integer(),
  "downtime-limit": z.int(),
  "x-checkpoint-delay": integer(),
  "multifd-channels": integer(),
  "xbzrle-cache-size": integer(),
  "max-postcopy-bandwidth": integer(),
  "max-cpu-throttle": integer(),
  "multifd-compression": z.enum(parameterChoices["multifd-compression"]),
  "multifd-zlib-level": integer(),
  "multifd-qatzip-level": integer(),
  "multifd-zstd-level": integer(),
  "x-vcpu-dirty-limit-period": integer(),
  "vcpu-dirty-limit": integer(),
  mode: z.enum(parameterChoices.mode),
  "zero-page-detection": z.enum(parameterChoices["zero-page-detection"]),
  "direct-io": z.boolean(),
  "x-rdma-chunk-size": integer(),
  "cpr-exec-command": z.array(z.string()),
  "x-cpr-exec-relay": z.enum(parameterChoices["x-cpr-exec-relay"]),
  "x-trace-file": z.string(),
};
/** QAPI MigrationParameters, all optional also where all are given. */
const parameters = z.strictObject(parameterMembers).partial();

/** `migrate-set-parameters` */
export const migrateSetParameters = { args: parameters };
/** `query-migrate-parameters` */
export const queryMigrateParameters = { returns: parameters };
/** `migrate-set-capabilities` */
export const migrateSetCapabilities = {
  args: z.strictObject({ capabilities: z.array(capabilityStatus) }),
};
/** `query-migrate-capabilities` */
export const queryMigrateCapabilities = { returns: z.array(capabilityStatus) };

/** `migrate` */
export const migrate = {
  args: z.strictObject({
    uri: z.string().optional(),
    channels: z.array(migrationChannel).optional(),
    resume: z.boolean().optional(),
  }),
};
/** `migrate-incoming` */
export const migrateIncoming = {
  args: z.strictObject({
    uri: z.string().optional(),
    channels: z.array(migrationChannel).optional(),
    "exit-on-error": z.boolean().optional(),
  }),
};
/** `migrate-continue` */
export const migrateContinue = { args: z.strictObject({ state: status }) };

const statistics = z.strictObject({
  transferred: integer(),
  remaining: integer(),
  total: integer(),
  duplicate: integer(),
  normal: integer(),
  "normal-bytes": integer(),
  "dirty-pages-rate": integer(),
  mbps: z.number(),
  "dirty-sync-count": integer(),
  "postcopy-requests": integer(),
  "page-size": integer(),
  "multifd-bytes": integer(),
  "pages-per-second": integer(),
  "precopy-bytes": integer(),
  "downtime-bytes": integer(),
  "postcopy-bytes": integer(),
  "dirty-sync-missed-zero-copy": integer(),
});

/** QAPI SocketAddress, as far as a listener that chose its port has one. */
const socketAddress = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("inet"),
    host: z.string(),
    port: z.string(),
    ipv4: z.boolean().optional(),
    ipv6: z.boolean().optional(),
  }),
]);

/** `query-migrate` */
export const queryMigrate = {
  returns: z.strictObject({
    status: status.optional(),
    ram: statistics.optional(),
    "total-time": integer().optional(),
    downtime: integer().optional(),
    "setup-time": integer().optional(),
    "error-desc": z.string().optional(),
    "blocked-reasons": z.array(z.string()).optional(),
    "socket-address": z.array(socketAddress).optional(),
    /** Denovo's own: the guest's pause end to end, in microseconds. */
    "x-pause": integer().optional(),
    /** Denovo's own: each of the pauses of a relayed cpr-exec, in microseconds. */
    "x-pauses": z.array(integer()).optional(),
    // Devices as `-device` takes them, and ids.
    "x-plugged": z.array(z.looseObject({ driver: z.string() })).optional(),
    "x-unplugged": z.array(z.string()).optional(),
    /**
     * Denovo's own: the update's steps so far, in both processes; microseconds from where the guest
     * stopped.
     */
    "x-timeline": z.array(
      z.strictObject({
        step: z.enum(steps),
        process: z.enum(updateProcesses),
        us: z.number(),
        vcpu: integer().optional(),
      }),
    ).optional(),
    /**
     * Denovo's own: what disturbed each process's half of a pause. Page faults are accesses to memory
     * that was not mapped; preemptions, how often the host gave the processor to somebody else.
     */
    "x-pause-usage": z.array(
      z.strictObject({
        process: z.enum(updateProcesses),
        "page-faults": integer(),
        preemptions: integer(),
      }),
    ).optional(),
  }),
};

/** Data of the migration events. */
export const migrationEvents = {
  MIGRATION: z.strictObject({ status }),
  MIGRATION_PASS: z.strictObject({ pass: z.int() }),
};
