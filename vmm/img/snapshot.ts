/**
 * `denovo img snapshot`.
 *
 * @module
 */
import type { Qcow2Node } from "../../devices/block/qcow2/node.ts";
import { Arguments, common, UsageError } from "./arguments.ts";
import { ImgImage } from "./image.ts";
import { snapshotText } from "./info.ts";

/** What is done about a snapshot: an image of another format has none, and cannot have any. */
interface Action {
  readonly verb: string;
  readonly unsupported: string;
  /** @throws {Error} if it cannot be done */
  run(image: Qcow2Node, name: string): void;
}

const actions: Readonly<Record<"apply" | "create" | "delete", Action>> = {
  apply: {
    verb: "apply",
    unsupported: "Block driver does not support snapshots",
    run(image, name) {
      const { snapshots } = image;
      const snapshot = snapshots.find(({ id }) => id === name) ??
        snapshots.find((one) => one.name === name);
      if (!snapshot) throw new Error("Failed to load snapshot: No such file or directory");
      image.applySnapshot(snapshot);
    },
  },
  create: {
    verb: "create",
    unsupported: "-95 (Operation not supported)",
    run: (image, name) => image.createSnapshot(name),
  },
  delete: {
    verb: "delete",
    unsupported: "snapshot not found",
    run(image, name) {
      const snapshot = image.snapshots.find((one) => one.name === name);
      if (!snapshot) throw new Error("snapshot not found");
      image.deleteSnapshot(snapshot);
    },
  },
};

/** `snapshot` */
export function snapshotCommand(argv: readonly string[]): number {
  const args = new Arguments(argv, {
    ...common,
    list: { type: "boolean", short: "l" },
    apply: { type: "string", short: "a", multiple: true },
    create: { type: "string", short: "c", multiple: true },
    delete: { type: "string", short: "d", multiple: true },
  });
  const given = (["apply", "create", "delete"] as const)
    .flatMap((name) => args.all(name).map((value) => ({ name, value })));
  if (given.length + Number(args.has("list")) > 1) {
    throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'");
  }
  const [action] = given;
  if (action) change(args, actions[action.name], action.value);
  else list(args);
  return 0;
}

function list(args: Arguments): void {
  const share = args.has("force-share");
  using image = new ImgImage(args.one(), { format: args.get("format"), share, alone: true });
  const snapshots = image.qcow2?.snapshots ?? [];
  if (snapshots.length > 0) console.log(snapshotText(snapshots));
}

function change(args: Arguments, { verb, unsupported, run }: Action, name: string): void {
  const filename = args.one();
  if (args.has("force-share")) {
    throw new Error(
      `Could not open '${filename}': force-share=on can only be used with read-only images`,
    );
  }
  using image = new ImgImage(filename, { format: args.get("format"), writable: true, alone: true });
  try {
    if (!image.qcow2) throw new Error(unsupported);
    run(image.qcow2, name);
  } catch (error) {
    throw new Error(`Could not ${verb} snapshot '${name}': ${(error as Error).message}`, {
      cause: error,
    });
  }
}
