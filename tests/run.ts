/**
 * `deno task test`: runs every test file, then prints one line with the sums.
 *
 * Tests of pure parts and tests that start VMs are two runs: the VMs get the machine to themselves.
 *
 * @module
 */

/** Folders in the order in which they run, and the examples in doc comments. */
const runs: readonly (readonly string[])[] = [
  ["--doc", "mod.ts", "vmm/options/command_line.ts"],
  ["tests/ffi", "tests/devices", "tests/vmm", "tests/cpr", "tests/guests", "tests/bench"],
  ["tests/kvm", "tests/conformance", "tests/faults"],
];

const sums = { passed: 0, failed: 0, skipped: 0 };
const decoder = new TextDecoder();
const root = new URL("..", import.meta.url).pathname;

function exists(path: string): boolean {
  try {
    Deno.statSync(`${root}${path}`);
    return true;
  } catch {
    return false;
  }
}

for (const args of runs) {
  const chosen = args.filter((arg) => arg.startsWith("--") || exists(arg));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", "--quiet", ...chosen, ...Deno.args],
    cwd: root,
    env: { NO_COLOR: "1" },
    stdout: "piped",
  }).spawn();
  let tail = "";
  for await (const chunk of child.stdout) {
    Deno.stdout.writeSync(chunk);
    tail = (tail + decoder.decode(chunk, { stream: true })).slice(-4096);
  }
  const { success } = await child.status;
  const summary = [...tail.matchAll(/(\d+) passed.* \| (\d+) failed(?: \| (\d+) ignored)?/g)].at(
    -1,
  );
  sums.passed += Number(summary?.[1] ?? 0);
  sums.failed += Number(summary?.[2] ?? 0);
  sums.skipped += Number(summary?.[3] ?? 0);
  // A run that ended without a summary, or failed outside of any test, is a failure all the same.
  if (!summary || (!success && summary[2] === "0")) sums.failed++;
}

console.log(`${sums.passed} passed, ${sums.failed} failed, ${sums.skipped} skipped`);
Deno.exit(sums.failed > 0 || sums.passed === 0 ? 1 : 0);
