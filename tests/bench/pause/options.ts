/**
 * The options of `deno task bench -- pause`.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type AcceleratorName, acceleratorNames } from "../../../vmm/accel/accelerator.ts";
import { type Configuration, guests, type Mode, modes } from "./results.ts";

/** What `--help` prints. */
export const usage = `usage: deno task bench -- pause [options]

Measures how long a guest stands still while its VMM is replaced. Writes pause.json, pause.md and
pause.html. Each list's first value is part of the base, which every other value is compared with.

--quick            a few runs of the base: ends in a minute
--runs N           updates of each configuration and mode [default=30]
--modes LIST       of ${modes.join(", ")} [default=all]
--guests LIST      of cpl3, cpl0, dirty [default=all]
--ram LIST         sizes of guest RAM [default=256M,1G,4G,16G]
--pages LIST       of 4K, 2M [default=all]
--cpus LIST        numbers of vCPUs, measured with the guest 'smp'; or none [default=1,2,4]
--populate LIST    of off, on: RAM that is allocated before the guest starts [default=all]
--accel NAME       what runs the guests of all VMMs: kvm, or tcg, the VMMs' own software CPUs
                   [default=kvm where /dev/kvm opens]
--qemu PATH        a qemu-system-x86_64 of version 10.0 or newer, measured in turns with Denovo;
                   or 'debian': that of Debian sid, which is fetched (as root, with mmdebstrap)
--machines LIST    QEMU's machines, of microvm, q35 [default=all]
--observe on|off   whether a second process watches the guest as well; it looks every 50 us, which
                   is felt where there are few processors; with --accel tcg it is what measures
                   [default=on]
--out DIR          where the files go [default=dist]
--report FILE      measures nothing: makes the reports from a pause.json
--check-report     opens the report in headless Chromium and checks what is drawn
`;

/** What is to be measured and how. */
export interface PauseOptions {
  readonly quick: boolean;
  readonly runs: number;
  readonly modes: readonly Mode[];
  readonly guests: readonly Configuration["guest"][];
  /** Bytes. */
  readonly ram: readonly number[];
  readonly pages: readonly Configuration["page"][];
  readonly cpus: readonly number[];
  readonly populate: readonly boolean[];
  /** What shall run the guests; undefined for what this host has. */
  readonly accel?: AcceleratorName;
  readonly qemu?: string;
  readonly machines: readonly ("microvm" | "q35")[];
  readonly out: string;
  readonly report?: string;
  readonly checkReport: boolean;
  readonly observe: boolean;
  readonly help: boolean;
}

const strings = [
  ...["runs", "modes", "guests", "ram", "pages", "cpus", "populate"],
  ...["accel", "qemu", "machines", "observe", "out", "report"],
] as const;
const flags = ["quick", "check-report", "help"] as const;

/** The default folder for what is written. */
const dist = new URL("../../../dist", import.meta.url).pathname;

/**
 * Parses the arguments after `pause`.
 *
 * @throws {Error} one sentence that names the option and what it takes
 */
export function parseOptions(args: readonly string[]): PauseOptions {
  const values = parse(args);
  const quick = values.quick === true;
  const pick = <T extends string>(name: string, all: readonly T[], quickly = all) =>
    choices(name, text(values[name]), all) ?? (quick ? quickly : all);
  return {
    quick,
    runs: number("runs", text(values.runs) ?? (quick ? "3" : "30")),
    modes: pick("modes", modes),
    guests: pick("guests", guests.filter((guest) => guest !== "smp"), ["cpl3"]),
    ram: list(text(values.ram) ?? (quick ? "256M" : "256M,1G,4G,16G")).map(size),
    pages: pick("pages", ["4K", "2M"], ["4K"]),
    cpus: cpuList(text(values.cpus) ?? (quick ? "none" : "1,2,4")),
    populate: pick("populate", ["off", "on"], ["off"]).map((word) => word === "on"),
    accel: choices("accel", text(values.accel), acceleratorNames)?.[0],
    qemu: text(values.qemu),
    machines: pick("machines", ["microvm", "q35"], ["microvm"]),
    out: text(values.out) ?? dist,
    report: text(values.report),
    checkReport: values["check-report"] === true,
    observe: pick("observe", ["on", "off"]).includes("on"),
    help: values.help === true,
  };
}

type Values = Readonly<Record<string, string | boolean | undefined>>;

function parse(args: readonly string[]): Values {
  const options = {
    ...Object.fromEntries(strings.map((name) => [name, { type: "string" } as const])),
    ...Object.fromEntries(flags.map((name) => [name, { type: "boolean" } as const])),
  };
  try {
    return parseArgs({ args: [...args], options }).values as Values;
  } catch (error) {
    const [sentence] = (error as Error).message.split(". ");
    throw new Error(`pause: ${sentence}; 'pause --help' lists the options`);
  }
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function list(text: string): string[] {
  return text.split(",").map((word) => word.trim());
}

function choices<T extends string>(
  name: string,
  given: string | undefined,
  all: readonly T[],
): T[] | undefined {
  return given === undefined ? undefined : list(given).map((word) => {
    const found = all.find((choice) => choice === word);
    if (!found) throw new Error(`--${name} does not know '${word}': give any of ${all.join(", ")}`);
    return found;
  });
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new Error(`--${name} takes whole numbers above 0, not '${text}'`);
}

function cpuList(text: string): number[] {
  return text === "none" ? [] : list(text).map((word) => number("cpus", word));
}

const units = { M: 2 ** 20, G: 2 ** 30 };

function size(text: string): number {
  const [, digits, unit] = /^(\d+)([MG])$/.exec(text) ?? [];
  const bytes = Number(digits) * units[unit as keyof typeof units];
  // `dirty`, the largest of the guests, needs 80 MiB.
  if (bytes >= 128 * units.M) return bytes;
  throw new Error(`--ram takes sizes of at least 128M such as 256M or 4G, not '${text}'`);
}
