/**
 * Puts the working tree into a lab, and runs commands there.
 *
 * @module
 */
import { runInside, type Streams } from "./client.ts";
import { exists, run, step, tree } from "./host.ts";
import { STOCK_LINUX } from "./recipe.ts";

/** Where the tree is inside. */
const TREE = "/denovo";
/** Where Linux kernels for tests are inside. */
const LINUX = "/linux";
/** Linux kernels and initial RAM disks for tests, on this host: no part of the project. */
const linux = Deno.env.get("DENOVO_LINUX") ??
  new URL("../../../shared/guests", import.meta.url).pathname;

const env: Readonly<Record<string, string>> = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  ...{ HOME: "/root", TERM: "dumb", NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", LANG: "C.UTF-8" },
  DENOVO_LINUX: LINUX,
  DENOVO_STOCK_LINUX: STOCK_LINUX,
};

/**
 * Runs a command in the tree.
 *
 * @param port the lab's agent
 * @returns its exit status
 */
export function runCommand(
  port: number,
  argv: readonly string[],
  streams: Streams,
  { more = {}, signal }: { more?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<number> {
  return runInside(port, { argv, cwd: TREE, env: { ...env, ...more } }, streams, signal);
}

/** Collects a command's output: both streams in the order in which they come. */
export class Output implements Streams {
  readonly #decoder = new TextDecoder();
  /** What has come so far. */
  text = "";
  readonly stdout = (data: Uint8Array): void => this.#add(data);
  readonly stderr = (data: Uint8Array): void => this.#add(data);

  #add(data: Uint8Array): void {
    this.text += this.#decoder.decode(data, { stream: true });
  }
}

/** Puts the working tree, and Linux if there is one, into a lab. */
export async function putTree(port: number): Promise<void> {
  await step("putting the working tree in", async () => {
    // Made here in a second: inside it would take half a minute.
    await run([Deno.execPath(), "run", "-A", "--no-check", "cpr/update/bundle.ts"], { cwd: tree });
    await put(port, tree, [...await files(), "dist"], TREE);
    if (exists(linux)) await put(port, linux, ["."], LINUX);
  });
}

/** The tree's files: those that git knows or would add, where it is there. */
async function files(): Promise<string[]> {
  const list = ["git", "-C", tree, "ls-files", "-z", "-co", "--exclude-standard"];
  const names = exists(`${tree}.git`)
    ? (await run(list)).split("\0")
    : Array.from(Deno.readDirSync(tree), ({ name }) => name).filter((name) => name !== "dist");
  return names.filter((name) => name !== "" && exists(`${tree}${name}`));
}

/** Copies files below a folder into a folder inside, which has nothing else then. */
async function put(port: number, from: string, names: string[], to: string): Promise<void> {
  const pack = new Deno.Command("tar", {
    args: ["-C", from, "--exclude", "node_modules", "--exclude", ".git", "-c", "--null", "-T", "-"],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const listed = new Blob([names.join("\0")]).stream().pipeTo(pack.stdin);
  const errors: Uint8Array[] = [];
  const unpack = `rm -rf ${to} && mkdir ${to} && tar -C ${to} -x`;
  const status = await runInside(
    port,
    { argv: ["sh", "-c", unpack], cwd: "/", env },
    { stdin: pack.stdout, stdout: () => {}, stderr: (data) => errors.push(data) },
  );
  await listed;
  if (status === 0 && (await pack.status).success) return;
  throw new Error(
    `Copying ${from} into the lab failed: ${await new Blob(errors as BlobPart[]).text()}`,
  );
}
