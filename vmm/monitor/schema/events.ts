/**
 * Data of the events that a VM sends (QAPI run-state.json, migration.json, qdev.json).
 *
 * @module
 */
import { z } from "zod";
import type { EventSchemas } from "../context.ts";
import { watchdogAction } from "./run_control.ts";

/** QAPI ShutdownCause. */
const shutdownCause = z.enum([
  "none",
  "host-error",
  "host-qmp-quit",
  "host-qmp-system-reset",
  "host-signal",
  "host-ui",
  "guest-shutdown",
  "guest-reset",
  "guest-panic",
  "subsystem-reset",
  "snapshot-load",
]);

/** QAPI MigrationStatus. */
export const migrationStatus = z.enum([
  "none",
  "setup",
  "cancelling",
  "cancelled",
  "active",
  "postcopy-device",
  "postcopy-active",
  "postcopy-paused",
  "postcopy-recover-setup",
  "postcopy-recover",
  "completed",
  "failing",
  "failed",
  "colo",
  "pre-switchover",
  "device",
  "wait-unplug",
]);

const reset = z.strictObject({ guest: z.boolean(), reason: shutdownCause });
const device = z.strictObject({ device: z.string().optional(), path: z.string() });

/** QAPI SocketAddress, as far as network backends have such. */
export const socketAddress = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("inet"), host: z.string(), port: z.string() }),
  z.strictObject({ type: z.literal("unix"), path: z.string() }),
  z.strictObject({ type: z.literal("fd"), str: z.string() }),
]);

/** The events, by name. */
export const events = {
  SHUTDOWN: reset,
  POWERDOWN: undefined,
  RESET: reset,
  STOP: undefined,
  RESUME: undefined,
  SUSPEND: undefined,
  WAKEUP: undefined,
  WATCHDOG: z.strictObject({ action: watchdogAction }),
  GUEST_PANICKED: z.strictObject({ action: z.enum(["pause", "poweroff", "run"]) }),
  MIGRATION: z.strictObject({ status: migrationStatus }),
  MIGRATION_PASS: z.strictObject({ pass: z.int() }),
  BLOCK_IO_ERROR: z.strictObject({
    "qom-path": z.string(),
    device: z.string(),
    "node-name": z.string().optional(),
    operation: z.enum(["read", "write"]),
    action: z.enum(["ignore", "report", "stop"]),
    nospace: z.boolean().optional(),
    reason: z.string(),
  }),
  BLOCK_IMAGE_CORRUPTED: z.strictObject({
    device: z.string(),
    "node-name": z.string().optional(),
    msg: z.string(),
    offset: z.int().optional(),
    size: z.int().optional(),
    fatal: z.boolean(),
  }),
  BALLOON_CHANGE: z.strictObject({ actual: z.int() }),
  DEVICE_DELETED: device,
  DEVICE_UNPLUG_GUEST_ERROR: device,
  VSERPORT_CHANGE: z.strictObject({ id: z.string(), open: z.boolean() }),
  NETDEV_STREAM_CONNECTED: z.strictObject({ "netdev-id": z.string(), addr: socketAddress }),
  NETDEV_STREAM_DISCONNECTED: z.strictObject({ "netdev-id": z.string() }),
} satisfies EventSchemas;
