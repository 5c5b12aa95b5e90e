/**
 * Runs tests in the lab, and counts them.
 *
 * @module
 */
import { lookAgain, type TestRun } from "../second_look.ts";
import { addRun, summaryOf, type Sums } from "../sums.ts";
import { LabGone } from "./client.ts";
import { NoLab } from "./host.ts";
import { Output, putTree, runCommand } from "./inside.ts";
import { type GuestsSeen, lookForGuests, watchGuests } from "./astray.ts";
import { makeLab } from "./recipe.ts";
import { nameFilter } from "./slice.ts";
import { LabVm } from "./vm.ts";

/** Milliseconds after which a file's tests hang, all of them or those of the slice. */
const FILE_LIMIT_MS = { whole: 40 * 60_000, slice: 8 * 60_000 };
/** Milliseconds that the lab slice may take in all: it is part of what CI has an hour for. */
export const SLICE_LIMIT_MS = 30 * 60_000;

/** A file's tests, all unless names are given. */
export interface LabTests {
  readonly file: string;
  readonly names?: readonly string[];
}

/** A lab with the working tree in it. */
export interface Place extends AsyncDisposable {
  readonly port: number;
  /** What can be known of it where it stands still, in lines. */
  state(): Promise<string>;
  /** What has been seen of its guests since this was last asked for. */
  guests(): Promise<GuestsSeen>;
}

/** Labs that may stand still in one run: the emulator's fault, which is told, and not the tests'. */
const SPARE_LABS = 2;

/** Labs, one at a time: one that ends or stands still is followed by another, so many times. */
class Labs implements AsyncDisposable {
  #place: Place | undefined;
  #spare = SPARE_LABS;

  constructor(private readonly boot: () => Promise<Place>) {}

  /** The lab that is up, or a new one. @throws {NoLab} if there can be none @throws {LabGone} */
  async place(): Promise<Place> {
    if (this.#spare < 0) throw new LabGone("no lab is left");
    return this.#place ??= await this.boot();
  }

  /** Ends the lab, since it has failed. @returns whether there may be another one */
  async failed(why: string): Promise<boolean> {
    console.log(`lab: ${why}${this.#place ? `\n${await this.#place.state()}` : ""}`);
    await this[Symbol.asyncDispose]();
    return --this.#spare >= 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#place?.[Symbol.asyncDispose]();
    this.#place = undefined;
  }
}

/**
 * Runs tests, file by file, in a lab of their own. Where there can be no lab they count as skipped. A
 * lab that ends, stands still or has lost a guest (see `astray.ts`) is ended, and the file is run once
 * more in a new one. What has failed by itself gets a second look, as on the host.
 *
 * @param options further options for `deno test`
 * @param limitMs milliseconds after which what has not ended has failed
 * @param boot makes labs, one at a time
 * @returns a line for each failure that was a chance
 */
export async function runInLab(
  tests: readonly LabTests[],
  sums: Sums,
  options: readonly string[],
  limitMs = Infinity,
  boot: () => Promise<Place> = bootWithTree,
): Promise<string[]> {
  await using labs = new Labs(boot);
  try {
    await labs.place();
  } catch (error) {
    if (!(error instanceof NoLab)) throw error;
    const count = tests.reduce((sum, { names }) => sum + (names?.length ?? 1), 0);
    console.log(`SKIPPED: ${count} tests and files of tests in the lab: ${error.message}`);
    sums.skipped += count;
    return [];
  }
  const deadline = performance.now() + limitMs;
  const failed: TestRun[] = [];
  for (const one of tests) {
    const run = await runFile(labs, one, options, deadline);
    if (run.success) addRun(sums, run.text, true);
    else failed.push(run);
  }
  return await lookAgain(failed, sums);
}

async function bootWithTree(): Promise<Place> {
  const vm = await LabVm.boot(await makeLab(), false);
  try {
    await putTree(vm.port);
    await watchGuests(vm.port);
    return {
      port: vm.port,
      state: () => vm.state(),
      guests: () => lookForGuests(vm.port),
      [Symbol.asyncDispose]: () => vm[Symbol.asyncDispose](),
    };
  } catch (error) {
    await vm[Symbol.asyncDispose]();
    throw error;
  }
}

/** Runs a file's tests; those that could not be run have failed, each of them. */
async function runFile(
  labs: Labs,
  tests: LabTests,
  options: readonly string[],
  deadline: number,
): Promise<TestRun> {
  const { file, names } = tests;
  const filter = names === undefined ? [] : ["--filter", nameFilter(names)];
  const argv = ["deno", "test", "-A", "--no-check", "--quiet", file, ...filter, ...options];
  const ended = (text: string, success: boolean): TestRun => ({
    ...{ name: file, text, success },
    repeat: () => runFile(labs, tests, options, deadline),
  });
  const notRun = (why: string): TestRun => {
    const text = `FAILED: ${file} has not run: ${why}`;
    console.log(text);
    return ended(`${text}\n0 passed | ${names?.length ?? 1} failed`, false);
  };
  for (;;) {
    const start = performance.now();
    if (start >= deadline) return notRun("the lab's time is over");
    let text: string, status: number;
    try {
      const place = await labs.place();
      const limit = names === undefined ? FILE_LIMIT_MS.whole : FILE_LIMIT_MS.slice;
      ({ text, status } = await runTests(place.port, argv, Math.min(deadline - start, limit)));
      const seen = await place.guests();
      assertNoneAstray(seen, text, status);
      if (status !== 0) tellEnds(seen);
    } catch (error) {
      if (!(error instanceof LabGone) && !(error instanceof NoLab)) throw error;
      if (await labs.failed(`${file}: ${error.message}`)) continue;
      return notRun(error.message);
    }
    const seconds = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`${text.trimEnd()}\nlab: ${file}: ${seconds} s`);
    return ended(text, allRan(text, tests) && status === 0);
  }
}

/** @throws {LabGone} if tests have failed in a lab whose emulator has lost a guest meanwhile */
function assertNoneAstray({ astray }: GuestsSeen, text: string, status: number): void {
  if (astray === undefined) return;
  const told = `the emulator has lost a guest, which has the lab's own state: ${astray}`;
  if (status === 0) return console.log(`lab: ${told}`);
  console.log(text.trimEnd());
  throw new LabGone(told);
}

/** Says how guests have ended beside a failure: one that started anew may have had a triple fault. */
function tellEnds({ ends }: GuestsSeen): void {
  if (ends.length > 0) console.log(`lab: guests have ended: ${ends.join("; ")}`);
}

/** Whoever renames a test renames it in the slice too: else a promise goes unproven. */
function allRan(text: string, { file, names }: LabTests): boolean {
  const { passed = 0, failed = 0, skipped = 0 } = summaryOf(text) ?? {};
  if (names === undefined || failed > 0 || passed === names.length && skipped === 0) return true;
  console.log(`FAILED: of ${names.length} tests of the lab slice, ${passed} ran in ${file}`);
  return false;
}

/**
 * A command's output, both streams in the order in which they came, and its exit status.
 *
 * @throws {LabGone} once what there was is shown
 */
async function runTests(port: number, argv: readonly string[], limitMs: number) {
  const output = new Output();
  try {
    const signal = AbortSignal.timeout(Math.ceil(limitMs));
    const status = await runCommand(port, argv, output, { signal });
    return { text: output.text, status };
  } catch (error) {
    if (error instanceof LabGone) {
      console.log(output.text.trimEnd());
      throw error;
    }
    return { text: `${output.text}\nlab: ${(error as Error).message}`, status: 1 };
  }
}
