/**
 * The command `update`: its arguments, and what it prints.
 *
 * @module
 */
import { terminationSignals } from "../../devices/chardev/raw_terminal.ts";
import { updateVmm } from "./update.ts";
import { Progress } from "./progress.ts";
import { jsonOf, jsonOfFailure, textOf } from "./report.ts";
import { UpdateError, type UpdateMode, updateModes } from "./types.ts";

const HELP = `usage: denovo update -qmp SOCKET [--mode MODE] [--json] [-- OPTIONS…]

Replaces the VMM of a running guest by this version of Denovo. The guest goes on in the new VMM, with
its memory in place and its consoles connected; if anything fails, it goes on in the old one.

-qmp SOCKET     the running VMM's QMP socket: PATH, unix:PATH or tcp:HOST:PORT on this host
--mode MODE     transfer  a new process takes the guest over (default)
                exec      the process replaces its program and keeps its id; default for a VMM
                          whose console is a terminal or whose monitor listens on TCP
                reboot    the guest goes through a file, sockets and files are opened anew
--json          print one JSON object instead of lines
-- OPTIONS…     the new VMM's options instead of those that the running one was started with

The new VMM is started with this Deno and Denovo, in the old one's working directory and with its
environment and output. Exit status: 0 when the guest is in the new VMM, 1 when it is not.`;

/** What the command line says. */
interface Arguments {
  readonly help: boolean;
  readonly json: boolean;
  readonly socket?: string;
  readonly mode?: UpdateMode;
  readonly options?: readonly string[];
}

/** @throws {Error} with one sentence */
function parseArguments(args: readonly string[]): Arguments {
  const end = args.indexOf("--");
  const own = end === -1 ? args : args.slice(0, end);
  const found: { -readonly [K in keyof Arguments]: Arguments[K] } = { help: false, json: false };
  if (end !== -1) found.options = args.slice(end + 1);
  for (let i = 0; i < own.length; i++) {
    const word = own[i];
    const [name, inline] = word.startsWith("--") ? word.split(/=(.*)/s) : [word];
    const value = () => {
      const text = inline ?? own[++i];
      if (text === undefined) throw new Error(`${word}: requires an argument`);
      return text;
    };
    switch (name.replace(/^--?/, "-")) {
      case "-h":
      case "-help":
        found.help = true;
        break;
      case "-json":
        found.json = true;
        break;
      case "-qmp":
        found.socket = value();
        break;
      case "-mode":
        found.mode = parseMode(value());
        break;
      default:
        throw new Error(
          word.startsWith("-")
            ? `${word}: invalid option, the new VMM's options come after '--'`
            : `${word}: unexpected argument, the socket is named by -qmp`,
        );
    }
  }
  if (found.options?.length === 0) throw new Error("--: the new VMM's options are missing");
  if (!found.help && found.socket === undefined) {
    throw new Error("-qmp is missing: name the running VMM's QMP socket");
  }
  return found;
}

function parseMode(text: string): UpdateMode {
  const mode = updateModes.find((name) => name === text || `cpr-${name}` === text);
  if (mode) return mode;
  throw new Error(`--mode ${text}: it is not one of ${updateModes.join(", ")}`);
}

/**
 * Runs the command.
 *
 * @param args the words after `update`
 * @returns the exit status
 */
export async function updateCommand(args: readonly string[]): Promise<number> {
  let parsed: Arguments;
  try {
    parsed = parseArguments(args);
  } catch (error) {
    console.error(`denovo update: ${(error as Error).message}`);
    return 1;
  }
  if (parsed.help) {
    console.log(HELP);
    return 0;
  }
  return await run(parsed);
}

async function run({ json, socket, mode, options }: Arguments): Promise<number> {
  using cancel = new CancelBySignal();
  const progress = json ? undefined : new Progress();
  try {
    const result = await updateVmm({
      ...{ socket: socket!, mode, options },
      signal: cancel.signal,
      onProgress: (step) => progress?.step(step),
    });
    progress?.end(true);
    console.log(json ? jsonOf(result) : textOf(result));
    return 0;
  } catch (error) {
    if (!(error instanceof UpdateError)) throw error;
    progress?.end(false);
    if (json) console.log(jsonOfFailure(error));
    else console.error(`denovo update: ${error.message}`);
    return 1;
  }
}

/** C-c and the like cancel the update instead of ending this process in its middle. */
class CancelBySignal implements Disposable {
  readonly #controller = new AbortController();
  readonly #listener = () => this.#controller.abort();

  constructor() {
    for (const name of terminationSignals) Deno.addSignalListener(name, this.#listener);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    for (const name of terminationSignals) Deno.removeSignalListener(name, this.#listener);
  }
}
