/**
 * What a QEMU that stands still is doing: its threads, by the host, and its processors, by its monitor.
 *
 * @module
 */

/** Milliseconds that the monitor has for its answers. */
const LIMIT_MS = 10_000;
/** Milliseconds over which a thread's use of the processor is measured. */
const WATCH_MS = 1_000;
/** A tick of `/proc/PID/stat`, milliseconds (`getconf CLK_TCK`). */
const TICK_MS = 10;

/** Of QEMU's monitor: whether the machine runs, where each processor is, and what it waits for. */
const QUESTIONS = ["info status", "info registers -a", "info lapic 0", "info lapic 1"];
/** Registers that say nothing of where a processor is. */
const NUMBERS = /^(?:FCW|FPR|[XYZ]MM|Opmask)/;

/**
 * Asks all that there is to ask. It does not fail: what cannot be had is told instead.
 *
 * @param pid QEMU's process
 * @param monitor the path of its QMP socket
 * @param limitMs milliseconds that the monitor has for its answers
 * @returns lines
 */
export async function stateOfQemu(
  pid: number,
  monitor: string,
  limitMs = LIMIT_MS,
): Promise<string> {
  const results = await Promise.allSettled([threads(pid), ask(monitor, limitMs)]);
  return results.map((result) =>
    result.status === "fulfilled" ? result.value : `QEMU: ${(result.reason as Error).message}`
  ).join("\n");
}

/** A thread's name, state and time on a processor, as `/proc/PID/task/TID/stat` has them (proc(5)). */
interface Thread {
  readonly name: string;
  readonly state: string;
  readonly ms: number;
}

/** A line for each thread: what it waits for, and how much of a processor it takes. */
async function threads(pid: number): Promise<string> {
  const before = readThreads(pid);
  await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  return Array.from(readThreads(pid), ([id, { name, state, ms }]) => {
    const used = ms - (before.get(id)?.ms ?? 0);
    return `QEMU's thread ${id} ${name}: ${state}, ${used} of ${WATCH_MS} ms on a processor`;
  }).join("\n");
}

function readThreads(pid: number): Map<string, Thread> {
  const found = new Map<string, Thread>();
  for (const { name: id } of Deno.readDirSync(`/proc/${pid}/task`)) {
    const text = Deno.readTextFileSync(`/proc/${pid}/task/${id}/stat`);
    const end = text.lastIndexOf(")");
    const [state, ...rest] = text.slice(end + 2).split(" ");
    // utime and stime: the 14th and 15th fields, of which the 3rd is the state.
    const ms = (Number(rest[10]) + Number(rest[11])) * TICK_MS;
    found.set(id, { name: text.slice(text.indexOf("(") + 1, end), state, ms });
  }
  return found;
}

/** Asks QEMU's monitor by QMP. @returns the answers, one after the other */
async function ask(path: string, limitMs: number): Promise<string> {
  const connection = await Deno.connect({ transport: "unix", path });
  const answers: string[] = [];
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    connection.close();
  }, limitMs);
  try {
    const replies = lines(connection.readable);
    const writer = connection.writable.getWriter();
    const execute = async (command: string, text?: string) => {
      const request = { execute: command, arguments: text && { "command-line": text } };
      await writer.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
      return await reply(replies);
    };
    await execute("qmp_capabilities");
    for (const question of QUESTIONS) {
      answers.push(`${question}: ${await execute("human-monitor-command", question)}`);
    }
  } catch (error) {
    const why = late ? `it has said nothing for ${limitMs / 1000} s` : (error as Error).message;
    answers.push(`QEMU's monitor: ${why}`);
  } finally {
    clearTimeout(timer);
    if (!late) connection.close();
  }
  return answers.join("\n").split(/[\r\n]+/).filter((line) => !NUMBERS.test(line)).join("\n");
}

/** The answer to a command; the greeting and events are nobody's. */
async function reply(replies: AsyncGenerator<string>): Promise<string> {
  for (;;) {
    const { value, done } = await replies.next();
    if (done) throw new Error("The monitor has ended");
    const message = JSON.parse(value);
    if ("return" in message) return typeof message.return === "string" ? message.return : "";
    if ("error" in message) return message.error.desc;
  }
}

async function* lines(source: ReadableStream<Uint8Array>): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (const text of source.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}
