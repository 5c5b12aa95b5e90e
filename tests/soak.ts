/**
 * `deno task soak [--rounds N] [--seed N] [--modes LIST] [--cpus N] [--guest KIND]`: replaces the VMM
 * of a guest that verifies itself over and over, by a mode that is chosen at random, and counts what
 * goes wrong: lost guests, descriptors, processes and threads that stay, memory that grows. Ends with
 * status 1 if anything does. The same seed gives the same modes in the same order.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { Laboratory } from "./conformance/program.ts";
import {
  assertSteady,
  Chain,
  EchoTypist,
  FifoConsole,
  type Mode,
  modes,
} from "./conformance/updates.ts";

/** Rounds of each mode that are not looked at: caches fill. */
const WARM_UP = 3;
/** Looks at the beginning and at the end that are compared, of each mode; the least one counts. */
const LOOKS = 5;
/** The heap moves: only more than this, in KiB, is growth. */
const MEMORY_NOISE = 16 << 10;
/** The runtime starts a thread for each processor that it may use; an update leaves some to the guest. */
const THREADS_NOISE = navigator.hardwareConcurrency;
/** After so many lost guests there is no point in going on. */
const MAX_LOST = 5;
const PROGRESS_ROUNDS = 10;

/** The kinds of guests: in user mode, in kernel mode, and one that waits for its timer most of the time. */
const guests = {
  user: { guest: "steady_cpl3", options: [] },
  kernel: { guest: "steady_cpl0", options: [] },
  halting: { guest: "steady_cpl0", options: ["-append", "mode=h"] },
} as const;
type GuestKind = keyof typeof guests;

/** What the command line says. */
interface SoakOptions {
  readonly rounds: number;
  readonly seed: number;
  readonly modes: readonly Mode[];
  readonly cpus: number;
  readonly guest: GuestKind;
}

/** What a VMM holds right after it has taken the guest. */
interface Look {
  readonly fds: number;
  readonly threads: number;
  /** Resident memory in KiB, the guest's RAM left out. */
  readonly memory: number;
}

function readOptions(args: string[]): SoakOptions {
  const { values } = parseArgs({
    args: args.filter((argument) => argument !== "--"),
    options: {
      rounds: { type: "string", default: "100" },
      seed: { type: "string", default: `${Date.now() % 1_000_000}` },
      modes: { type: "string", default: modes.join(",") },
      cpus: { type: "string", default: "2" },
      guest: { type: "string", default: "user" },
    },
  });
  const kinds = Object.keys(guests) as GuestKind[];
  const guest = kinds.find((kind) => kind === values.guest);
  if (!guest) throw new Error(`Unknown guest '${values.guest}': give one of ${kinds.join(", ")}`);
  const chosen = values.modes.split(",").map((name) => {
    const mode = modes.find((known) => known === name || known === `cpr-${name}`);
    if (!mode) throw new Error(`Unknown mode '${name}': give any of ${modes.join(", ")}`);
    return mode;
  });
  return {
    rounds: positive("rounds", values.rounds),
    seed: positive("seed", values.seed),
    modes: chosen,
    cpus: positive("cpus", values.cpus),
    guest,
  };
}

function positive(name: string, text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new Error(`--${name} is '${text}', give a positive number`);
  return Number(text);
}

/** Random numbers below a limit: mulberry32. */
function random(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}

/** Looks at a VMM's process: proc(5). */
function lookAt(pid: number): Look {
  const count = (folder: string) => [...Deno.readDirSync(`/proc/${pid}/${folder}`)].length;
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const kib = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1]);
  return { fds: count("fd"), threads: count("task"), memory: kib("RssAnon") };
}

/** Processes besides `known` that have the laboratory's folder on their command line. */
function strangers(folder: string, known?: number): number[] {
  const pids = [...Deno.readDirSync("/proc")].map(({ name }) => Number(name)).filter(Number);
  return pids.filter((pid) => {
    try {
      return pid !== known && Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(folder);
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}

/** A guest under test, with someone who types on its console. */
class Patient implements AsyncDisposable {
  private constructor(
    readonly lab: Laboratory,
    readonly console: FifoConsole,
    readonly chain: Chain,
    readonly typist: EchoTypist,
    readonly cpus: number,
  ) {}

  static async admit({ cpus, guest: kind }: SoakOptions): Promise<Patient> {
    const lab = await Laboratory.open();
    const console = await FifoConsole.open(lab.path("console"));
    const { guest, options } = guests[kind];
    const machine = ["-smp", `${cpus}`, ...options];
    const chain = await Chain.start(lab, { guest, options: machine, serial: console.serial });
    await console.printed(`steady ${cpus}\n`);
    return new Patient(lab, console, chain, new EchoTypist(console), cpus);
  }

  /** One update. @throws {Error} that says how the guest was lost */
  async update(mode: Mode): Promise<Look> {
    await this.chain.update(mode);
    await assertSteady(this.chain.qmp, this.cpus);
    await this.typist.echoes();
    return lookAt(this.chain.vmm.child.pid);
  }

  /** The console's and the VMM's last words. */
  get story(): string {
    return `${this.chain.story}; the console: ${JSON.stringify(this.console.text.slice(-200))}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.typist[Symbol.dispose]();
    await this.lab[Symbol.asyncDispose]();
    this.console[Symbol.dispose]();
  }
}

/** What was counted. */
class Tally {
  readonly looks = new Map<Mode, Look[]>();
  readonly pauses = new Map<Mode, number[]>();
  lost = 0;
  processes = 0;

  /** How much more there is at the end than at the beginning, the worst of all modes. */
  growth(key: keyof Look): number {
    const grown = [...this.looks.values()].map((all) => {
      const warm = all.slice(WARM_UP);
      if (warm.length < 2 * LOOKS) return 0;
      const least = (some: readonly Look[]) => Math.min(...some.map((look) => look[key]));
      return least(warm.slice(-LOOKS)) - least(warm.slice(0, LOOKS));
    });
    return Math.max(0, ...grown);
  }

  add(mode: Mode, look: Look, pause: number): void {
    this.looks.set(mode, [...this.looks.get(mode) ?? [], look]);
    this.pauses.set(mode, [...this.pauses.get(mode) ?? [], pause]);
  }

  /** One line a figure. */
  *lines(): Generator<string> {
    for (const [mode, pauses] of this.pauses) {
      const sorted = pauses.toSorted((a, b) => a - b);
      const [median, most] = [sorted[sorted.length >> 1], sorted.at(-1)!];
      yield `${mode}: ${pauses.length} updates, pause ${median} µs in the middle, ${most} at most`;
    }
    yield `lost guests: ${this.lost}`;
    yield `leaked descriptors: ${this.growth("fds")}`;
    yield `leaked processes: ${this.processes}`;
    yield `more threads: ${this.growth("threads")}, of which up to ${THREADS_NOISE} are no leak`;
    yield `more memory: ${this.growth("memory")} KiB, of which up to ${MEMORY_NOISE} are no leak`;
  }

  /** Whether nothing went wrong. */
  get clean(): boolean {
    return this.lost + this.processes + this.growth("fds") === 0 &&
      this.growth("threads") <= THREADS_NOISE && this.growth("memory") <= MEMORY_NOISE;
  }
}

async function soak(options: SoakOptions): Promise<Tally> {
  const { rounds, seed, modes } = options;
  const tally = new Tally();
  const choose = random(seed);
  let patient = await Patient.admit(options);
  const discharge = async () => {
    const { folder } = patient.lab;
    await patient[Symbol.asyncDispose]();
    tally.processes += strangers(folder).length;
  };
  for (let round = 1; round <= rounds && tally.lost < MAX_LOST; round++) {
    const mode = modes[choose(modes.length)];
    try {
      const look = await patient.update(mode);
      tally.add(mode, look, await patient.chain.pause());
      tally.processes += strangers(patient.lab.folder, patient.chain.vmm.child.pid).length;
    } catch (error) {
      tally.lost++;
      console.error(`Round ${round}, ${mode}: ${(error as Error).message}; ${patient.story}`);
      await discharge();
      patient = await Patient.admit(options);
    }
    if (round % PROGRESS_ROUNDS === 0) console.log(`${round} of ${rounds}, lost ${tally.lost}`);
  }
  try {
    await patient.typist.finish();
  } catch (error) {
    tally.lost++;
    console.error(`The echo: ${(error as Error).message}`);
  }
  await discharge();
  return tally;
}

const options = readOptions(Deno.args);
console.log(
  `${options.rounds} rounds of ${options.modes.join(", ")}, a ${options.guest} guest with` +
    ` ${options.cpus} vCPUs, seed ${options.seed}`,
);
const tally = await soak(options);
for (const line of tally.lines()) console.log(line);
console.log(tally.clean ? "nothing lost, nothing leaked" : "FAILED");
Deno.exit(tally.clean ? 0 : 1);
