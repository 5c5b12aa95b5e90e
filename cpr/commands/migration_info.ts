/**
 * The migration's state as `query-migrate` and `info migrate` show it.
 *
 * @module
 */
import type { DeviceChanges } from "../../vmm/device_changes.ts";
import type { Cpr } from "../cpr.ts";
import type { queryMigrate } from "./schema.ts";
import type { Migration } from "../migration/migration.ts";
import { stepLabel, type Timeline } from "../migration/timeline.ts";
import { pausesOf } from "../migration/trace.ts";
import type { z } from "zod";

const PAGE = 4096;

type MigrationInfo = z.input<typeof queryMigrate.returns>;

/** `query-migrate`. */
export function migrationInfo(
  { migration, pauseNs, blockers, deviceChanges }: Cpr,
): MigrationInfo {
  const { status, error, times, ram, transferred, socketAddress } = migration;
  const blocked = blockers();
  const info: MigrationInfo = {
    ...(status !== "none" && { status }),
    ...(blocked.length > 0 && { "blocked-reasons": blocked }),
    ...(error !== undefined && { "error-desc": error }),
    ...(socketAddress && { "socket-address": [socketAddress] }),
    ...(migration.direction === "incoming" && pauseNs !== undefined &&
      { "x-pause": Math.round(pauseNs / 1000) }),
    ...pausesInfo(migration),
    ...changesInfo(deviceChanges),
    ...(status === "completed" && migration.timeline &&
      {
        "x-timeline": timelineInfo(migration.timeline),
        "x-pause-usage": migration.timeline.usage().map(({ process, pageFaults, preemptions }) => (
          { process, "page-faults": pageFaults, preemptions }
        )),
      }),
  };
  if (migration.direction === "incoming" || !["active", "device", "completed"].includes(status)) {
    return info;
  }
  const total = (times.ended ?? performance.now()) - times.begun;
  const down = (times.ended ?? performance.now()) - (times.stopped ?? times.begun);
  return {
    ...info,
    "setup-time": Math.round(times.setup ?? 0),
    ...(status === "completed" && { downtime: Math.round(down) }),
    "total-time": Math.round(total),
    ram: {
      total: ram?.total ?? 0,
      "postcopy-requests": 0,
      "dirty-sync-count": 2,
      "multifd-bytes": 0,
      "pages-per-second": 0,
      "downtime-bytes": transferred,
      "page-size": PAGE,
      remaining: 0,
      "postcopy-bytes": 0,
      mbps: total > 0 ? transferred * 8 / total / 1000 : 0,
      transferred,
      "dirty-sync-missed-zero-copy": 0,
      "precopy-bytes": 0,
      duplicate: ram?.duplicate ?? 0,
      "dirty-pages-rate": 0,
      "normal-bytes": (ram?.normal ?? 0) * PAGE,
      normal: ram?.normal ?? 0,
    },
  };
}

/** What a successor needs beside this VMM's command line, and what of that it must not have. */
function changesInfo(
  { plugged, unplugged }: DeviceChanges,
): Pick<MigrationInfo, "x-plugged" | "x-unplugged"> {
  return {
    ...plugged.length > 0 && { "x-plugged": [...plugged] },
    ...unplugged.length > 0 && { "x-unplugged": [...unplugged] },
  };
}

/** With a helper or an anchor in between there are two pauses, of which `x-pause` is the last. */
function pausesInfo({ direction, timeline }: Migration): Pick<MigrationInfo, "x-pauses"> {
  const pauses = direction === "incoming" && timeline ? pausesOf(timeline.entries()) : [];
  if (pauses.length < 2) return {};
  return { "x-pauses": pauses.map(({ from, to }) => Math.round((to - from) / 1000)) };
}

/** The steps in microseconds from where the guest stopped, or from the first if it has not. */
function timelineInfo(timeline: Timeline): NonNullable<MigrationInfo["x-timeline"]> {
  const entries = timeline.entries();
  const zero = (entries.findLast(({ step }) => step === "stop") ?? entries[0])?.ns ?? 0;
  return entries.map(({ step, process, ns, vcpu }) => ({
    step,
    process,
    us: (ns - zero) / 1000,
    ...(step === "entered" && { vcpu }),
  }));
}

/** `info migrate`. */
export function migrationText(cpr: Cpr, all: boolean): string {
  const info = migrationInfo(cpr);
  const lines: string[] = [];
  if (info.status !== undefined) {
    const reason = info["error-desc"] === undefined ? "" : ` (${info["error-desc"]})`;
    lines.push(`Status: \t\t${info.status}${reason}`);
  }
  const pauses = info["x-pauses"] ?? [info["x-pause"]].filter((pause) => pause !== undefined);
  if (pauses.length > 0) lines.push(`Pause (us): \t\t${pauses.join(", ")}`);
  for (const reason of info["blocked-reasons"] ?? []) lines.push(`Blocked: \t\t${reason}`);
  const { ram } = info;
  if (ram) {
    const down = info.downtime === undefined ? "" : `, down=${info.downtime}`;
    lines.push(
      `Time (ms): \t\ttotal=${info["total-time"]}, setup=${info["setup-time"]}${down}`,
      "RAM info:",
      `  Throughput (Mbps): \t${ram.mbps.toFixed(2)}`,
      `  Sizes: \t\tpagesize=4 KiB, total=${sizeText(ram.total)}`,
      `  Transfers: \t\ttransferred=${sizeText(ram.transferred)}, remain=0 B`,
      "    Channels: \t\tprecopy=0 B, multifd=0 B, postcopy=0 B",
      `    Page Types: \tnormal=${ram.normal}, zero=${ram.duplicate}`,
      "  Page Rates (pps): \ttransfer=0",
      `  Others: \t\tdirty_syncs=2, downtime_bytes=${ram["downtime-bytes"]}`,
    );
  }
  if (all) {
    lines.push(...timelineLines(info["x-timeline"] ?? []));
    for (const { process, "page-faults": faults, preemptions } of info["x-pause-usage"] ?? []) {
      lines.push(`Pause, ${process}: \tpage-faults=${faults}, preemptions=${preemptions}`);
    }
    lines.push("Globals:", "  store-global-state: on", "  only-migratable: off");
  }
  return lines.map((line) => line + "\n").join("");
}

function timelineLines(timeline: NonNullable<MigrationInfo["x-timeline"]>): string[] {
  if (timeline.length === 0) return [];
  const rows = timeline.map((entry) =>
    `${entry.us.toFixed(1).padStart(14)}  ${entry.process.padEnd(6)}  ${stepLabel(entry)}`
  );
  return ["Timeline:", `${"us from stop".padStart(14)}  process step`, ...rows];
}

function sizeText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(3))} ${units[unit]}`;
}
