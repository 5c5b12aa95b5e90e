import assert from "node:assert/strict";
import { Anchor, anchorCode } from "../../ffi/anchor.ts";
import { mailboxSize, MAX_VCPUS } from "../../ffi/anchor_layout.ts";
import { makeMemfd } from "../../ffi/memory.ts";
import { assembleImage, haveBinutils } from "../guests/build.ts";
import { until } from "../conformance/program.ts";
import { onlyKvmTest } from "../needs_kvm.ts";
import { isAlive } from "../processes.ts";

const binutils = await haveBinutils();
if (!binutils) console.warn("SKIPPED: anchor.s is not assembled: no `as` or `ld` here");

Deno.test("anchor.ts has the bytes of anchor.s", { ignore: !binutils }, async () => {
  const folder = await Deno.makeTempDir({ prefix: "denovo-anchor-" });
  const source = "../../ffi/anchor.s";
  const recipe = { name: "anchor", source, defines: [], address: 0 };
  const built = await assembleImage(recipe, folder);
  await Deno.remove(folder, { recursive: true });
  assert.equal(anchorCode().toBase64(), built.toBase64());
});

/** Runs `anchor_vmm.ts`; gives what it has printed. */
async function run(what: string): Promise<Record<string, unknown>[]> {
  const program = new URL("anchor_vmm.ts", import.meta.url).pathname;
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--no-lock", program, what],
  }).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert.ok(success, errors);
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

onlyKvmTest("an anchor runs a guest while its process executes another program", async () => {
  const [who, ...found] = await run("take");
  assert.equal(who.samePid, true);
  assert.deepEqual(found, [
    { foreign: "EIO" },
    { phase: 0, read: 1, rip: true, stands: true },
    { refused: 0, result: -9 },
    { port: 0x42, out: true, data: 0x5a },
    { phase: 2, port: 0x42 },
    { finished: 1 },
    { port: 0x43, out: false },
    { finished: 1 },
    { turn: 4, back: 2 },
    { answer: 0x77 },
    { signal: 9, ended: true },
  ]);
});

onlyKvmTest(
  "an anchor ends with the process that has made it, whatever that is by then",
  async () => {
    const [{ anchor }] = await run("die");
    await until(() => !isAlive(anchor as number), () => "the anchor to end");
  },
);

onlyKvmTest(
  "an anchor that nobody comes to runs its guest no more when the time is up",
  async () => {
    const [, found] = await run("late");
    assert.deepEqual(found, { phase: 0, count: 0 });
  },
);

onlyKvmTest("an anchor that expires while it is told to let the guest run does not", async () => {
  const [, found] = await run("race");
  assert.deepEqual(found, { phase: 0, stands: true });
});

onlyKvmTest("an anchor for whose process there is no pidfd to be had is ended", async () => {
  const [found] = await run("scarce");
  const refusal = "The process that would keep the guest has not come up";
  assert.deepEqual(found, { refusal, children: "" });
});

Deno.test("`start()` refuses more vCPUs than the next program takes over", () => {
  const vcpus = Array.from({ length: MAX_VCPUS + 1 }, () => ({ fd: -1, runAddress: 0 }));
  const message = `An anchor has at most ${MAX_VCPUS} vCPUs, not ${MAX_VCPUS + 1}`;
  assert.throws(() => Anchor.start(-1, vcpus, 1000), new RangeError(message));
});

Deno.test("`takeOver()` refuses what is no mailbox", () => {
  for (const size of [0, 4096, mailboxSize(2)]) {
    using memory = makeMemfd("denovo-anchor", size);
    assert.throws(() => Anchor.takeOver(memory), /^Error: The mailbox of the process/);
  }
});
