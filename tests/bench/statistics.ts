/**
 * What a benchmark reports: samples, and what can be said about them.
 *
 * @module
 */

/** What was measured. */
export interface Measurement {
  /** The part and the case, e.g. `exits: PIO write, Denovo`. */
  readonly name: string;
  /** The unit of the samples. */
  readonly unit: string;
  readonly samples: readonly number[];
  /** What the project aims at, in words; a benchmark never fails because of it. */
  readonly aim?: string;
}

/** What the samples say. */
export interface Summary {
  readonly n: number;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly p99: number;
}

/** How long a part may take. */
export interface BenchOptions {
  /** Fewer and shorter runs: shows that it works, the numbers are rough. */
  readonly quick: boolean;
}

/** One part of the benchmarks. */
export type Part = (options: BenchOptions) => AsyncIterable<Measurement>;

/** Summarizes samples by the nearest-rank method. @throws {RangeError} if there are none */
export function summarize(samples: readonly number[]): Summary {
  if (samples.length === 0) throw new RangeError("Cannot summarize: there are no samples");
  const sorted = samples.toSorted((a, b) => a - b);
  const rank = (share: number) => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  return {
    n: sorted.length,
    median: rank(0.5),
    min: sorted[0],
    max: sorted[sorted.length - 1],
    p99: rank(0.99),
  };
}

/** Two programs that took turns, and what the first one's samples are of the second one's. */
export function* compare(
  name: string,
  unit: string,
  ours: readonly number[],
  theirs: readonly number[],
  aim?: string,
): Generator<Measurement> {
  yield { name: `${name}, Denovo`, unit, samples: ours };
  if (theirs.length === 0) return;
  yield { name: `${name}, QEMU`, unit, samples: theirs };
  yield {
    name: `${name}, ratio`,
    unit: "x",
    samples: ours.map((value, i) => value / theirs[i]),
    aim,
  };
}

/** The median alone. */
export function median(samples: readonly number[]): number {
  return summarize(samples).median;
}

/** One line of the table. */
export function tableLine({ name, unit, samples, aim }: Measurement): string {
  const { n, median, min, max, p99 } = summarize(samples);
  const numbers = [median, min, max, p99].map((value) => format(value).padStart(10)).join("");
  return `${name.padEnd(48)}${numbers}${String(n).padStart(6)}  ${unit}${aim ? `  (${aim})` : ""}`;
}

/** The line above the table. */
export function tableHead(): string {
  const columns = ["median", "min", "max", "p99"].map((name) => name.padStart(10)).join("");
  return `${"".padEnd(48)}${columns}${"n".padStart(6)}`;
}

function format(value: number): string {
  const digits = Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  return value.toFixed(digits);
}
