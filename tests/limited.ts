/**
 * A command that ends, whatever it does.
 *
 * @module
 */
import { killTree } from "./processes.ts";

/** What a command has come to. */
export interface Ended {
  /** Whether it ended with status 0, in time. */
  readonly success: boolean;
  /** What it printed to stdout, and then what it printed to stderr. */
  readonly text: string;
}

/**
 * Runs a command. If it takes too long, it and all that it has started are killed, and it has failed,
 * with what was printed until then.
 *
 * @param argv the program and its arguments
 * @param limitMs milliseconds
 */
export async function runWithin(
  [program, ...args]: readonly string[],
  limitMs: number,
  options: { readonly cwd?: string; readonly env?: Record<string, string> } = {},
): Promise<Ended> {
  const child = new Deno.Command(program, {
    ...options,
    ...{ args, stdin: "null", stdout: "piped", stderr: "piped" },
  }).spawn();
  const texts = ["", ""];
  const reading = [child.stdout, child.stderr].map(async (stream, i) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) texts[i] += text;
  });
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), limitMs);
  const ended = await Promise.race([Promise.all([child.status, ...reading]), late.promise]);
  clearTimeout(timer);
  if (ended) return { success: ended[0].success, text: texts.join("") };
  killTree(child.pid);
  await child.status;
  const seconds = Math.round(limitMs / 1000);
  texts.push(`\nKILLED: it did not end within ${seconds} s: ${[program, ...args].join(" ")}\n`);
  return { success: false, text: texts.join("") };
}
