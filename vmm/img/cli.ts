/**
 * `denovo img`: images are made, looked at, checked, copied and changed by `qemu-img`'s words.
 *
 * @module
 */
import { denovoVersion } from "../monitor/version.ts";
import { UsageError } from "./arguments.ts";
import { checkCommand } from "./check.ts";
import { commitCommand, resizeCommand } from "./change.ts";
import { compareCommand, convertCommand } from "./convert.ts";
import { createCommand } from "./create.ts";
import { infoCommand, mapCommand } from "./info.ts";
import { snapshotCommand } from "./snapshot.ts";

/** A command: how it is used, and what it does; it gives the exit status. */
interface ImgCommand {
  readonly usage: string;
  readonly help: string;
  readonly run: (args: readonly string[]) => number;
}

const commands: Readonly<Record<string, ImgCommand>> = {
  check: {
    usage: "[-q] [-f FMT] [--output=human|json] [-r leaks|all] [-U] FILE",
    help: "count what uses each cluster of a qcow2 image, and make its refcounts right",
    run: checkCommand,
  },
  commit: {
    usage: "[-q] [-f FMT] [-d] FILE",
    help: "write what an image has to the image behind it",
    run: commitCommand,
  },
  compare: {
    usage: "[-q] [-f FMT] [-F FMT] [-s] [-U] FILE1 FILE2",
    help: "whether two disks have the same content",
    run: compareCommand,
  },
  convert: {
    usage: "[-q] [-p] [-n] [-c] [-U] [-f FMT] [-O FMT] [-o OPTIONS] FILE OUTPUT",
    help: "copy a disk to an image of another format",
    run: convertCommand,
  },
  create: {
    usage: "[-q] [-f FMT] [-b BACKING -F FMT] [-u] [-o OPTIONS] FILE [SIZE]",
    help: "make an image",
    run: createCommand,
  },
  info: {
    usage: "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILE",
    help: "what an image is",
    run: infoCommand,
  },
  map: {
    usage: "[-f FMT] [--output=human|json] [-U] FILE",
    help: "where a disk's bytes are",
    run: mapCommand,
  },
  resize: {
    usage: "[-q] [-f FMT] [--shrink] FILE [+|-]SIZE",
    help: "change the size of a disk",
    run: resizeCommand,
  },
  snapshot: {
    usage: "[-q] [-f FMT] [-U] [-l | -a SNAPSHOT | -c NAME | -d NAME] FILE",
    help: "list the snapshots in an image, apply, create or delete one",
    run: snapshotCommand,
  },
};

/** The help, for `--help`. */
function helpText(): string {
  const lines = Object.entries(commands)
    .map(([name, { usage, help }]) => `  ${name} ${usage}\n      ${help}`);
  return [
    "usage: denovo img COMMAND [ARGUMENT]...",
    "Images are made, looked at, checked, copied and changed, by the words of qemu-img.",
    "",
    ...lines,
    "",
    "Formats (FMT) are raw and qcow2. OPTIONS of qcow2, separated by commas: cluster_size, compat",
    "(0.10 or 1.1), refcount_bits, lazy_refcounts, compression_type, preallocation, backing_file,",
    "backing_fmt, size. Those of raw: preallocation, size.",
    "Sizes take k, M, G, T, P, E. Exit status: 0; 1 for an error, or for disks that differ; check: 2",
    "for an image that contradicts itself, 3 for clusters that nobody uses, 63 for no such check.",
  ].join("\n");
}

/**
 * Runs `denovo img`.
 *
 * @param args the command and its arguments
 * @returns the exit status; errors go to stderr, one line each
 */
export function imgCommand(args: readonly string[]): number {
  const [name, ...rest] = args;
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    console.log(helpText());
    return name === undefined ? 1 : 0;
  }
  if (name === "--version" || name === "-V") {
    console.log(`denovo img version ${denovoVersion}`);
    return 0;
  }
  try {
    if (!Object.hasOwn(commands, name)) {
      throw new Error(`Command not found: ${name}: there are ${Object.keys(commands).join(", ")}`);
    }
    if (rest.includes("--help")) {
      console.log(`usage: denovo img ${name} ${commands[name].usage}\n${commands[name].help}`);
      return 0;
    }
    return commands[name].run(rest);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const hint = error instanceof UsageError ? `: see 'denovo img ${name} --help'` : "";
    console.error(`denovo img: ${error.message}${hint}`);
    return 1;
  }
}
