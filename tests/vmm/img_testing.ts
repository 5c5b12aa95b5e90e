/** `denovo img` and Debian's qemu-img, beside one another. */
import assert from "node:assert/strict";
import { imgCommand } from "../../vmm/img/cli.ts";
import { hasQemuImg, Model, qemuImg, withFolder } from "../devices/qcow2/testing.ts";

/** Bytes. */
export const MIB: number = 1 << 20;

/** Runs `denovo img` in a folder. */
export function img(...args: string[]): { code: number; text: string } {
  const { log, error } = console;
  const lines: string[] = [];
  console.log = console.error = (text: string) => lines.push(`${text}\n`);
  try {
    const code = imgCommand(args);
    return { code, text: lines.join("") };
  } finally {
    Object.assign(console, { log, error });
  }
}

/** The same, which must succeed. @returns what it prints */
export function ok(...args: string[]): string {
  const { code, text } = img(...args);
  assert.equal(code, 0, `img ${args.join(" ")}: ${text}`);
  return text;
}

/** How much a file takes on its file system may change at any time. */
export function withoutDiskSize(text: string): string {
  return text.replaceAll(/^disk size: .*$/gm, "disk size").replaceAll(/"actual-size": \d+,?/g, "");
}

/** Fails unless both say the same, with the same status. */
export async function same(...args: string[]): Promise<void> {
  const ours = img(...args);
  const theirs = await qemuImg(...args);
  const text = theirs.text.replaceAll("qemu-img: ", "denovo img: ");
  assert.deepEqual(
    { ...ours, text: withoutDiskSize(ours.text) },
    { code: theirs.code, text: withoutDiskSize(text) },
    `img ${args.join(" ")}`,
  );
}

/** Other versions have other words. */
const isKnown = hasQemuImg && (await qemuImg("--version")).text.includes("version 7.2");
/** Runs a test with a folder where there is a qemu-img whose words are known. */
export const oracleTest = (name: string, run: (folder: string) => Promise<void>): void =>
  Deno.test({ name, ignore: !isKnown, fn: () => withFolder(run) });

/** A raw image with data and zeros. */
export function writeRaw(path: string): Model {
  const model = new Model(4 * MIB, 11);
  for (let i = 0; i < 10; i++) {
    const { offset, length } = model.range(MIB);
    model.bytes.set(model.data(length), offset);
  }
  Deno.writeFileSync(path, model.bytes);
  return model;
}
