/** Where /dev/kvm is missing or is something else, commands say so and end. */
import assert from "node:assert/strict";
import { whyNoKvm } from "../../ffi/kvm/system.ts";
import { childrenOf } from "../processes.ts";
import { Laboratory, program, Qmp, until } from "./program.ts";
import { TestFolder } from "./session.ts";

/** Why there is none here anyway, or undefined. */
const missing = whyNoKvm();

/** Puts something else in /dev/kvm's place, for one command and its children. */
const HIDE = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "sh"];

const hides = missing !== undefined || await succeeds([...HIDE, "true"]);
if (!hides) console.warn("SKIPPED: commands without /dev/kvm: it is here, hiding it needs root");

/** What the commands say. */
const sentence = (missing ?? "Could not access KVM kernel module: /dev/kvm: Inappropriate ioctl " +
    "for device: it is not the device that the kernel module kvm makes")
  .replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");

async function succeeds(command: readonly string[]): Promise<boolean> {
  try {
    return (await output(command)).code === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

async function output([file, ...args]: readonly string[]) {
  const options = { args, stdin: "null", stdout: "piped", stderr: "piped" } as const;
  const { code, stdout, stderr } = await new Deno.Command(file, options).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, stdout: out, stderr: err };
}

const withoutKvm = (command: readonly string[]) =>
  output(missing === undefined ? [...HIDE, ...command] : command);

Deno.test({
  name: "-accel kvm ends with one sentence and status 1 where KVM is missing",
  ignore: !hides,
  fn: async () => {
    using folder = new TestFolder();
    const { code, stdout, stderr } = await withoutKvm(
      [...program, "-accel", "kvm", "-kernel", folder.guest("hello"), "-nographic"],
    );
    assert.match(stderr, new RegExp(`^denovo: ${sentence}\n$`));
    assert.deepEqual({ code, stdout }, { code: 1, stdout: "" });
  },
});

Deno.test({
  name: "the program says why it takes the software CPU where KVM is missing",
  ignore: !hides,
  fn: async () => {
    using folder = new TestFolder();
    const { code, stdout, stderr } = await withoutKvm([
      ...[...program, "-kernel", folder.guest("hello"), "-serial", "stdio"],
      ...["-device", "isa-debug-exit,iobase=0x501,iosize=2"],
    ]);
    assert.match(
      stderr,
      new RegExp(`^denovo: ${sentence}; falling back to tcg, the software CPU\n$`),
    );
    assert.match(stdout, /hello from denovo/);
    assert.equal(code, 0x21);
  },
});

/** Waits until a process has a child. */
async function childOf(pid: number): Promise<number> {
  let child: number | undefined;
  await until(() => ([child] = childrenOf(pid)).length > 0, () => `a child of ${pid}`);
  return child!;
}

Deno.test("the demo ends with status 1 and says so when its VMM dies", async () => {
  const path = new URL("../../examples/demo.ts", import.meta.url).pathname;
  const demo = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", path],
    ...{ stdin: "null", stdout: "piped", stderr: "piped" },
  }).spawn();
  const vmm = await childOf(demo.pid);
  Deno.kill(vmm, "SIGKILL");
  const { code, stderr } = await demo.output();
  assert.equal(new TextDecoder().decode(stderr), `demo: The VMM, process ${vmm}, has ended\n`);
  assert.equal(code, 1);
});

Deno.test({
  name: "update tells that the new VMM has no KVM, and the guest runs on",
  // The old VMM needs a KVM, the new one must not have it.
  ignore: !hides || missing !== undefined,
  fn: async () => {
    await using lab = await Laboratory.open();
    const vmm = lab.start("vmm", { options: ["-accel", "kvm"] });
    {
      using qmp = await Qmp.connect(vmm.qmpPath);
      await qmp.reaches("running");
      await qmp.assertGuestRuns();
    }
    const { code, stderr } = await withoutKvm([...program, "update", "-qmp", vmm.qmpPath]);
    assert.match(
      stderr,
      new RegExp(
        `denovo update: The new VMM ended: ${sentence}; the guest still runs in process ` +
          `${vmm.child.pid}\n$`,
      ),
    );
    assert.equal(code, 1);
    using qmp = await Qmp.connectAtOnce(vmm.qmpPath);
    assert.equal(await qmp.runState(), "running");
    await qmp.assertGuestRuns();
  },
});
