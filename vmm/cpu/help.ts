/**
 * `-cpu help`.
 *
 * @module
 */
import { featureNames } from "./features.ts";
import { cpuModels, unversioned } from "./models.ts";

const LINE_WIDTH = 75;

/** The text that `-cpu help` prints: CPU models, then feature names; without a final newline. */
export function cpuHelp(): string {
  const lines = ["Available CPUs:", ...modelLines(), "", "Recognized CPUID flags:"];
  return [...lines, ...wrap(featureNames())].join("\n");
}

function modelLines(): string[] {
  const named = cpuModels.filter(({ name }) => name !== "base").flatMap((model) => {
    const line: [string, string][] = [[model.name, model.modelId]];
    const family = unversioned(model.name);
    if (model.name === `${family}-v1`) line.push([family, "(alias configured by machine type)"]);
    if (model.alias) line.push([model.alias, `(alias of ${model.name})`]);
    return line;
  }).sort(([a], [b]) => a < b ? -1 : 1);
  return [
    ...named,
    ["base", "base CPU model type with no features enabled"],
    ["host", "processor with all supported host features"],
    ["max", "Enables all features supported by the accelerator in the current host"],
  ].map(([name, text]) => `  ${name.padEnd(20)}  ${text}`.trimEnd());
}

/** Fills lines with words. */
function wrap(words: readonly string[]): string[] {
  const lines: string[] = [];
  let line = " ";
  for (const word of words) {
    if (line.length + 1 + word.length > LINE_WIDTH) {
      lines.push(line);
      line = " ";
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
