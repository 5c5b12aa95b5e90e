/**
 * Every option of the command line, under its heading in `-help`.
 *
 * @module
 */
import { acceptedOptions } from "./groups/accepted.ts";
import { blockOptions } from "./groups/block.ts";
import { bootOptions } from "./groups/boot.ts";
import { chardevOptions } from "./groups/chardev.ts";
import { consoleOptions } from "./groups/consoles.ts";
import { displayOptions } from "./groups/display.ts";
import { networkOptions } from "./groups/network.ts";
import { objectOptions } from "./groups/objects.ts";
import { processOptions } from "./groups/process.ts";
import { standardOptions } from "./groups/standard.ts";
import type { Option } from "./option.ts";

/** Options under a heading of `-help`. */
interface OptionGroup {
  readonly title: string;
  readonly options: readonly Option[];
}

/** All options. */
export const optionGroups: readonly OptionGroup[] = [
  { title: "Standard options", options: standardOptions },
  { title: "Block device options", options: blockOptions },
  { title: "Display options", options: displayOptions },
  { title: "Network options", options: networkOptions },
  { title: "Character device options", options: chardevOptions },
  { title: "Boot Image or Kernel specific", options: bootOptions },
  {
    title: "Debug/Expert options",
    options: [...consoleOptions, ...processOptions, ...acceptedOptions],
  },
  { title: "Generic object creation", options: objectOptions },
];

/** What `-help` prints after the version. */
export function optionsHelp(): string {
  const groups = optionGroups.map(({ title, options }) =>
    [`${title}:`, ...options.map(({ help }) => help)].join("\n")
  );
  const usage = "usage: denovo [options]\n       denovo update -qmp socket [options]" +
    "    replace the VMM of a running guest, see 'update -help'" +
    "\n       denovo state FILE    print a saved state as JSON" +
    "\n       denovo img COMMAND [ARGUMENT]..." +
    "    make, check, copy and change images, see 'img --help'";
  return [usage, ...groups].join("\n\n");
}
