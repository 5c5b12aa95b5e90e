/**
 * What the lab needs of its host: where it is kept, commands, lines about what takes long.
 *
 * @module
 */

/** The project's folder, with a slash at its end. */
export const tree = new URL("../..", import.meta.url).pathname;

/** The lab cannot be made or started on this host; the message says in a sentence why. */
export class NoLab extends Error {
  override readonly name = "NoLab";
}

/** The folder that labs are kept in, outside of the project. */
export function cacheFolder(): string {
  const home = Deno.env.get("XDG_CACHE_HOME") || `${Deno.env.get("HOME") ?? "/root"}/.cache`;
  return `${home}/denovo/lab`;
}

/** Says on stderr what is done now, and how long it took. */
export async function step<T>(what: string, work: () => Promise<T>, who = "lab"): Promise<T> {
  console.error(`${who}: ${what} …`);
  const start = performance.now();
  const result = await work();
  console.error(`${who}: ${what}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
  return result;
}

/** What is special about a command. */
export interface CommandOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
}

/**
 * Runs a command of the host to its end.
 *
 * @returns what it printed
 * @throws {NoLab} with its last words if it fails or is not there
 */
export async function run(
  [file, ...args]: readonly string[],
  { cwd, env }: CommandOptions = {},
): Promise<string> {
  const options = { args, cwd, env, stdin: "null", stdout: "piped", stderr: "piped" } as const;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(file, options).spawn();
  } catch (error) {
    throw new NoLab(`'${file}' cannot be run: ${(error as Error).message}`, { cause: error });
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  if (code === 0) return decoder.decode(stdout);
  const said = decoder.decode(stderr).trim() || decoder.decode(stdout).trim();
  // Deno adds a backtrace to what it says.
  const words = said.split("\nStack backtrace")[0].trim().split("\n");
  throw new NoLab(`'${[file, ...args].join(" ")}' failed: ${words.slice(-3).join("; ")}`);
}

/** Whether there is a file or folder. */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** A short name for what something is made of. */
export async function shortHash(text: string): Promise<string> {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(hash).toHex().slice(0, 12);
}
