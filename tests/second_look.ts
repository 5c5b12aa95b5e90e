/**
 * A second look at tests that failed: a host that is slow or busy can fail a test that waits, and one
 * such chance in three thousand tests says nothing of the change that is tested.
 *
 * It is not for what the project exists for: whatever proves that one VMM alone runs the guest has to
 * pass at once. A test that fails by chance is told last of all, since it is to be mended.
 *
 * @module
 */
import { addRun, type Sums } from "./sums.ts";

/** What a run of tests said, and how to have it again. */
export interface TestRun {
  /** What ran, for people. */
  readonly name: string;
  /** All that it printed. */
  readonly text: string;
  /** Whether it ended with status 0. */
  readonly success: boolean;
  /** Runs the same tests again, with nothing beside them. */
  readonly repeat: () => Promise<TestRun>;
}

/** So many times a test that failed has to pass by itself for its failure to be a chance. */
const REPEATS = 3;
/** More runs than these do not fail by chance. */
const MAX_CHANCES = 2;
/** Where a failure is never a chance. */
const NEVER = /^tests\/faults\//;

/**
 * Adds runs that failed to the sums: as they failed, or, if it was a chance, as they passed again.
 *
 * @returns a line for each failure that was a chance
 */
export async function lookAgain(failed: readonly TestRun[], sums: Sums): Promise<string[]> {
  const chances: string[] = [];
  for (const run of failed) {
    const passed = failed.length <= MAX_CHANCES && !NEVER.test(run.name)
      ? await passesAgain(run)
      : undefined;
    const counted = passed ?? run;
    addRun(sums, counted.text, counted.success);
    if (passed) {
      chances.push(`UNSTEADY: ${run.name}: ${failuresOf(run.text)}, then passed ${REPEATS} times`);
    }
  }
  return chances;
}

/** The last of the repeated runs; undefined if one of them failed. */
async function passesAgain(run: TestRun): Promise<TestRun | undefined> {
  let last = run;
  for (let count = 0; count < REPEATS; count++) {
    last = await run.repeat();
    if (!last.success) return undefined;
  }
  return last;
}

/** The tests that failed, by what `deno test` says at its end: `name => file:line:column`. */
function failuresOf(text: string): string {
  const names = [...text.matchAll(/^(.+) => \S+:\d+:\d+$/gm)].map(([, name]) => `'${name}'`);
  return `${[...new Set(names)].join(", ") || "the run"} failed`;
}
