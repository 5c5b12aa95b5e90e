/** Where /dev/kvm is missing or is something else, commands say so and end. */
import assert from "node:assert/strict";
import { noKvm } from "../needs_kvm.ts";
import { kvmTest, Laboratory, program, Qmp } from "./program.ts";
import { TestFolder } from "./session.ts";

/** Puts something else in /dev/kvm's place, for one command and its children. */
const HIDE = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "sh"];

const hides = noKvm !== undefined || await succeeds([...HIDE, "true"]);
if (!hides) console.warn("SKIPPED: commands without /dev/kvm: it is here, hiding it needs root");

/** What the commands say. */
const sentence = (noKvm ?? "Could not access KVM kernel module: /dev/kvm: Inappropriate ioctl " +
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
  output(noKvm === undefined ? [...HIDE, ...command] : command);

Deno.test({
  name: "the program ends with one sentence and status 1 where KVM is missing",
  ignore: !hides,
  fn: async () => {
    using folder = new TestFolder();
    const { code, stdout, stderr } = await withoutKvm(
      [...program, "-kernel", folder.guest("hello"), "-nographic"],
    );
    assert.match(stderr, new RegExp(`^denovo: ${sentence}\n$`));
    assert.deepEqual({ code, stdout }, { code: 1, stdout: "" });
  },
});

Deno.test({
  name: "the demo shows what its VMM said and ends with status 1 where KVM is missing",
  ignore: !hides,
  fn: async () => {
    const demo = new URL("../../examples/demo.ts", import.meta.url).pathname;
    const command = [Deno.execPath(), "run", "-A", "--no-check", demo];
    const { code, stderr } = await withoutKvm(command);
    assert.match(
      stderr,
      new RegExp(`^denovo: ${sentence}\ndemo: The VMM, process \\d+, has ended\n$`),
    );
    assert.equal(code, 1);
  },
});

kvmTest(
  "update tells that the new VMM has no KVM, and the guest runs on",
  async () => {
    await using lab = await Laboratory.open();
    const vmm = lab.start("vmm");
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
  !hides,
);
