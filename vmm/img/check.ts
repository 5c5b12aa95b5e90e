/**
 * `denovo img check`.
 *
 * @module
 */
import type { CheckResult, Fix } from "../../devices/block/qcow2/check.ts";
import { Arguments, common, output, printJson, wantsJson } from "./arguments.ts";
import { ImgImage } from "./image.ts";

/** Exit statuses. */
const CORRUPT = 2;
const LEAKS = 3;
const NOT_SUPPORTED = 63;

/** `check` */
export function checkCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    ...output,
    repair: { type: "string", short: "r" },
  });
  const filename = args.one();
  const json = wantsJson(args);
  const fix = args.get("repair") ?? "none";
  if (fix !== "none" && fix !== "leaks" && fix !== "all") {
    throw new Error("--repair option expects 'leaks' or 'all'");
  }
  using image = new ImgImage(filename, {
    ...{ format: args.get("format"), share: args.has("force-share") },
    ...{ writable: fix !== "none", check: true, alone: true },
  });
  const { qcow2 } = image;
  if (!qcow2) {
    console.error("denovo img: This image format does not support checks");
    return NOT_SUPPORTED;
  }
  const report = (text: string) => {
    if (!args.has("quiet")) console.error(text);
  };
  const found = qcow2.check(fix, report);
  const isFixed = fix !== "none" && found.leaks + found.corruptions > 0;
  if (isFixed && !json && !args.has("quiet")) console.log(fixedText(found, fix));
  const result = isFixed ? qcow2.check("none", report) : found;
  if (json) printJson(describe(filename, result, isFixed ? found : undefined, fix));
  else if (!args.has("quiet")) console.log(resultText(result));
  return result.corruptions > 0 ? CORRUPT : result.leaks > 0 ? LEAKS : 0;
}

function fixedText({ leaks, corruptions }: CheckResult, fix: Fix): string {
  return "The following inconsistencies were found and repaired:\n\n" +
    `    ${leaks} leaked clusters\n    ${fix === "all" ? corruptions : 0} corruptions\n\n` +
    "Double checking the fixed image now...";
}

function resultText(result: CheckResult): string {
  const { corruptions, leaks, totalClusters: total, allocatedClusters: allocated } = result;
  const lines: string[] = [];
  if (corruptions > 0) {
    lines.push(
      `\n${corruptions} errors were found on the image.\n` +
        "Data may be corrupted, or further writes to the image may corrupt it.",
    );
  }
  if (leaks > 0) {
    lines.push(
      `\n${leaks} leaked clusters were found on the image.\n` +
        "This means waste of disk space, but no harm to data.",
    );
  }
  if (lines.length === 0) lines.push("No errors were found on the image.");
  if (total > 0 && allocated > 0) {
    lines.push(
      `${allocated}/${total} = ${percent(allocated, total)}% allocated, ` +
        `${percent(result.fragmentedClusters, allocated)}% fragmented, ` +
        `${percent(result.compressedClusters, allocated)}% compressed clusters`,
    );
  }
  lines.push(`Image end offset: ${result.imageEnd}`);
  return lines.join("\n");
}

/** Percent to two places as C's printf rounds them: of two that are as near, to the even one. */
function percent(part: number, whole: number): string {
  const value = part * 100 / whole;
  const [low, rest] = [Math.floor(value * 100), value * 100 % 1];
  return (rest === 0.5 && low % 2 === 0 ? low / 100 : value).toFixed(2);
}

/** QAPI ImageCheck: numbers that are 0 are left out. */
function describe(filename: string, result: CheckResult, fixed: CheckResult | undefined, fix: Fix) {
  const optional = {
    corruptions: result.corruptions,
    leaks: result.leaks,
    "corruptions-fixed": fix === "all" ? fixed?.corruptions ?? 0 : 0,
    "leaks-fixed": fixed?.leaks ?? 0,
    "allocated-clusters": result.allocatedClusters,
    "fragmented-clusters": result.fragmentedClusters,
    "compressed-clusters": result.compressedClusters,
  };
  return {
    "image-end-offset": result.imageEnd,
    ...Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== 0)),
    "total-clusters": result.totalClusters,
    "check-errors": 0,
    filename,
    format: "qcow2",
  };
}
