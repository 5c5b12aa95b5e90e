/**
 * `denovo img info` and `map`.
 *
 * @module
 */
import { backingPath } from "../../devices/block/qcow2/open.ts";
import type { Snapshot } from "../../devices/block/qcow2/snapshots.ts";
import { sizeText } from "../size_text.ts";
import { describeLayer } from "../monitor/commands/block_image.ts";
import { describeNode } from "../view/block_view.ts";
import { Arguments, common, output, printJson, wantsJson } from "./arguments.ts";
import { type Extent, extents } from "./extents.ts";
import { ImgImage } from "./image.ts";

/** `info` */
export function infoCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    ...output,
    "backing-chain": { type: "boolean" },
  });
  const json = wantsJson(args);
  const share = args.has("force-share");
  const infos = [];
  let [filename, format]: [string, string | undefined] = [args.one(), args.get("format")];
  for (;;) {
    using image = new ImgImage(filename, { format, share, alone: true });
    infos.push(image.qcow2 ? infoOf(image) : { ...infoOf(image), snapshots: undefined });
    const backing = image.qcow2?.format.backing;
    if (!backing || !args.has("backing-chain")) break;
    if (infos.length > 100) throw new Error(`Backing files of '${filename}' form a circle`);
    [filename, format] = [backingPath(filename, backing.filename), backing.format];
  }
  if (json) printJson(args.has("backing-chain") ? infos : infos[0]);
  else console.log(infos.map(infoText).join("\n\n"));
  return 0;
}

type Info = ReturnType<typeof infoOf>;

function infoOf({ node, qcow2, filename }: ImgImage) {
  const info = describeLayer(describeNode(node));
  const name = qcow2?.format.backing?.filename;
  const full = name === undefined ? undefined : backingPath(filename, name);
  return { ...info, filename, ...full !== undefined && { "full-backing-filename": full } };
}

function infoText(info: Info): string {
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${sizeText(info["virtual-size"])} (${info["virtual-size"]} bytes)`,
    `disk size: ${sizeText(info["actual-size"] ?? 0)}`,
  ];
  if (info["cluster-size"] !== undefined) lines.push(`cluster_size: ${info["cluster-size"]}`);
  const [backing, full] = [info["backing-filename"], info["full-backing-filename"]];
  if (backing !== undefined) {
    const actual = full === backing ? "" : ` (actual path: ${full})`;
    lines.push(`backing file: ${backing}${actual}`);
  }
  const format = info["backing-filename-format"];
  if (format !== undefined) lines.push(`backing file format: ${format}`);
  const { snapshots } = info;
  if (snapshots) {
    lines.push(snapshotText(snapshots.map((one) => ({
      ...{ id: one.id, name: one.name, vmStateSize: one["vm-state-size"] },
      ...{
        seconds: one["date-sec"],
        ...one.icount !== undefined && { icount: BigInt(one.icount) },
      },
      vmClockNs: BigInt(one["vm-clock-sec"]) * 1_000_000_000n + BigInt(one["vm-clock-nsec"]),
    }))));
  }
  const data = info["format-specific"]?.data;
  if (data) lines.push("Format specific information:", ...specificLines(data));
  return lines.join("\n");
}

type Specific = NonNullable<Info["format-specific"]>["data"];

function specificLines(data: Specific): string[] {
  const order = [
    "compat",
    "compression-type",
    "lazy-refcounts",
    "refcount-bits",
    "corrupt",
  ] as const;
  return [...order, "extended-l2" as const].flatMap((name) => {
    const value = data[name];
    return value === undefined ? [] : [`    ${name.replaceAll("-", " ")}: ${value}`];
  });
}

/** What is listed of a snapshot. */
type Listed = Pick<Snapshot, "id" | "name" | "vmStateSize" | "seconds" | "vmClockNs" | "icount">;

/** A table of snapshots. */
export function snapshotText(snapshots: readonly Listed[]): string {
  const line = (id: string, tag: string, ...rest: string[]) => {
    const widths = [8, 20, 13, 11];
    return id.padEnd(10) + tag.padEnd(17) +
      rest.map((text, i) => text.padStart(widths[i])).join("");
  };
  const rows = snapshots.map(({ id, name, vmStateSize, seconds, vmClockNs, icount }) =>
    line(
      id,
      name,
      sizeText(vmStateSize),
      dateText(seconds),
      clockText(vmClockNs),
      `${icount ?? ""}`,
    )
  );
  const header = line("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  return ["Snapshot list:", header, ...rows].join("\n");
}

/** In the user's time zone. */
function dateText(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function clockText(ns: bigint): string {
  const ms = Number(ns / 1_000_000n);
  const seconds = Math.floor(ms / 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  const fraction = String(ms % 1000).padStart(3, "0");
  return `${two(hours)}:${two(minutes)}:${two(seconds % 60)}.${fraction}`;
}

/** `map` */
export function mapCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, { ...common, ...output });
  const json = wantsJson(args);
  const share = args.has("force-share");
  using image = new ImgImage(args.one(), { format: args.get("format"), share });
  const all = [...extents(image.node)];
  console.log(json ? mapJson(all) : mapText(all));
  return 0;
}

function mapJson(all: readonly Extent[]): string {
  const rows = all.map(({ start, length, depth, present, zero, data, offset }) =>
    `{ "start": ${start}, "length": ${length}, "depth": ${depth}, "present": ${present}, ` +
    `"zero": ${zero}, "data": ${data}${offset === undefined ? "" : `, "offset": ${offset}`}}`
  );
  return `[${rows.join(",\n")}]`;
}

function mapText(all: readonly Extent[]): string {
  const line = (...columns: string[]) => columns.map((text) => text.padEnd(16)).join("");
  const hex = (value: number) => value === 0 ? "0" : `0x${value.toString(16)}`;
  const rows = all.filter(({ data, zero }) => data && !zero).map((extent) => {
    const { start, length, offset, filename = "" } = extent;
    if (offset === undefined) {
      throw new Error("File contains external, encrypted or compressed clusters.");
    }
    return line(hex(start), hex(length), hex(offset)) + filename;
  });
  return [line("Offset", "Length", "Mapped to") + "File", ...rows].join("\n");
}
