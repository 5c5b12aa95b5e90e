/**
 * `deno task core`: writes the sources in `core/` that come from tables (see `generated`), and compiles `core/*.ts` (AssemblyScript) to `core.wasm`.
 *
 * The compiler's version is exact, because the result is committed and a test compares it byte for byte.
 *
 * @module
 */
import {
  ATTENTION,
  COMMON_ADDRESS,
  cpuState,
  DIRTY_PAGES_ADDRESS,
  GUEST_DEBUG,
  KVM_RUN_ADDRESS,
  MAX_REGIONS,
  PIO_DATA_ADDRESS,
  RAM_ADDRESS,
  region,
  segment,
  SEGMENT_NAMES,
  SHARED_SIZE,
  STOP,
} from "./cpu_state.ts";
import { loopSource } from "./loop_cases.ts";
import { simdTableSource } from "./simd_table.ts";
import { opsSource, tableSource } from "./tables.ts";

const COMPILER = "npm:assemblyscript@0.28.9/asc";
const folder = new URL(".", import.meta.url).pathname;

const constant = (name: string, value: number, type = "usize") =>
  `export const ${name.toUpperCase()}: ${type} = 0x${value.toString(16)};`;

function offsetsOf(
  prefix: string,
  { offsets }: { readonly offsets: Readonly<Record<string, number>> },
): string[] {
  return Object.entries(offsets).map(([name, offset]) => constant(prefix + name, offset));
}

/** The text of `core/layout.ts`. */
function layoutSource(): string {
  const names = (values: Record<string, number>, prefix: string) =>
    Object.entries(values).map(([name, value]) => constant(prefix + name, value, "u32"));
  return [
    "// Written by `deno task core` from cpu_state.ts; change that.",
    ...offsetsOf("", cpuState),
    "// The parts of a segment, and where each is",
    constant("segment_size_of", segment.size),
    ...offsetsOf("segment_", segment),
    ...SEGMENT_NAMES.map((name, i) =>
      constant(`seg_${name}`, cpuState.offsets.segments + i * segment.size)
    ),
    "// The parts of a region of RAM",
    constant("region_size_of", region.size),
    ...offsetsOf("region_", region),
    constant("max_regions", MAX_REGIONS, "u32"),
    "// attention, and what run() returns",
    ...names(ATTENTION, "attention_"),
    ...names(STOP, "stop_"),
    ...names(GUEST_DEBUG, "guest_debug_"),
    "// The memory",
    constant("kvm_run", KVM_RUN_ADDRESS),
    constant("pio_data", PIO_DATA_ADDRESS),
    constant("shared_size", SHARED_SIZE),
    constant("common", COMMON_ADDRESS),
    constant("dirty_pages", DIRTY_PAGES_ADDRESS),
    constant("ram", RAM_ADDRESS),
    "",
  ].join("\n");
}

/**
 * Compiles the CPU.
 *
 * @param output where the module goes
 * @param entry the source that exports what the module exports
 * @param level the compiler's optimization, 0 to 3
 * @throws Error if it does not compile, with the compiler's messages
 */
export async function compile(
  output: string,
  entry = `${folder}core/main.ts`,
  level = 3,
): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--no-config", COMPILER, entry, "--outFile", output],
      // No allocator, no collector: every address is the sources' own.
      ...["--runtime", "stub", "--importMemory", "--initialMemory", "4096", "--noExportMemory"],
      "--exportTable",
      ...["--maximumMemory", "65536", "--memoryBase", String(SHARED_SIZE)],
      ...["--use", "abort=", "--noAssert", "--enable", "threads,bulk-memory,sign-extension,simd"],
      ...["--optimizeLevel", String(level), "--shrinkLevel", "0"],
    ],
    cwd: folder,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder().decode(stderr);
  if (!success) throw new Error(`Cannot compile ${entry}: ${text}`);
}

/** The generated sources by name. */
export function generated(): Record<string, string> {
  return {
    "layout.ts": layoutSource(),
    "ops.ts": opsSource(),
    "table.ts": tableSource(),
    "loop.ts": loopSource(Deno.readTextFileSync(`${folder}core/loop.template`)),
    "simd_table.ts": simdTableSource(),
  };
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(generated())) {
    await Deno.writeTextFile(`${folder}core/${name}`, text);
  }
  const fast = Deno.args.includes("--fast");
  const output = Deno.args.find((arg) => arg.endsWith(".wasm")) ?? `${folder}core.wasm`;
  await compile(output, undefined, fast ? 1 : 3);
}
