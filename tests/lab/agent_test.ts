/** The lab's agent and its client, here on the host. */
import assert from "node:assert/strict";
import { answers, runInside } from "./client.ts";
import { patience } from "../patience.ts";
import { freePort } from "../ports.ts";
import { isAlive } from "../processes.ts";
import { encodeFrame, encodeObject, Kind, MAX_LENGTH, readFrames } from "./wire.ts";

const decoder = new TextDecoder();

/** An agent of this test's own. */
async function withAgent(use: (port: number) => Promise<void>): Promise<void> {
  const path = new URL("agent.ts", import.meta.url).pathname;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", path, "0"],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  try {
    let text = "";
    while (!text.includes("\n")) text += decoder.decode((await reader.read()).value);
    await use(Number(/port (\d+)/.exec(text)![1]));
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
  }
}

/** Runs a shell command by an agent. */
async function run(
  port: number,
  command: string,
  stdin?: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
) {
  let stdout = "", stderr = "";
  const code = await runInside(
    port,
    { argv: ["sh", "-c", command], cwd: "/", env: { WORD: "said" } },
    {
      stdin,
      stdout: (data) => stdout += decoder.decode(data),
      stderr: (data) => stderr += decoder.decode(data),
    },
    signal,
  );
  return { code, stdout, stderr };
}

Deno.test("the agent runs a command with its environment, input, both outputs and status", async () => {
  await withAgent(async (port) => {
    assert.ok(await answers(port, patience(60_000)));
    const input = new Blob(["in".repeat(1_000_000)]).stream();
    const { code, stdout, stderr } = await run(port, "pwd; cat; echo $WORD >&2; exit 7", input);
    assert.equal(code, 7);
    assert.equal(stderr, "said\n");
    assert.equal(stdout, `/\n${"in".repeat(1_000_000)}`);
    assert.equal((await run(port, "kill -9 $$")).code, 137);
    // What is left behind keeps nobody waiting, though it has the outputs open.
    const left = await run(port, "sleep 1000 & echo $!");
    assert.equal(left.code, 0);
    Deno.kill(Number(left.stdout), "SIGKILL");
  });
});

Deno.test("the agent passes output on as it comes, and ends all of a command with its client", async () => {
  await withAgent(async (port) => {
    const { promise, resolve } = Promise.withResolvers<number>();
    const control = new AbortController();
    const running = runInside(
      port,
      { argv: ["sh", "-c", "sleep 1000 & echo $!; wait"], cwd: "/", env: {} },
      { stdout: (data) => resolve(Number(decoder.decode(data))), stderr: () => {} },
      control.signal,
    );
    const pid = await promise;
    assert.ok(Deno.statSync(`/proc/${pid}`).isDirectory);
    control.abort();
    await assert.rejects(running, { message: "The command was ended" });
    while (isAlive(pid)) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

Deno.test("the agent says why a command cannot be started", async () => {
  await withAgent(async (port) => {
    const request = { argv: ["/nonexistent/program"], cwd: "/", env: {} };
    const streams = { stdout: () => {}, stderr: () => {} };
    await assert.rejects(runInside(port, request, streams), {
      message: /^\/nonexistent\/program: /,
    });
  });
});

Deno.test("answers() is false where nobody listens, or who listens says nothing", async () => {
  const mute = Deno.listen({ port: 0 });
  const { port } = mute.addr as Deno.NetAddr;
  const accepted = mute.accept();
  assert.equal(await answers(port, 50), false);
  (await accepted).close();
  mute.close();
  assert.equal(await answers(freePort(), 50), false);
});

async function framesOf(...chunks: Uint8Array[]) {
  return await Array.fromAsync(readFrames((async function* () {
    for (const chunk of chunks) yield await Promise.resolve(chunk);
  })()));
}

Deno.test("readFrames() finds frames however they are cut", async () => {
  const data = Uint8Array.from({ length: 300 }, (_, i) => i);
  const bytes = Uint8Array.from([
    ...encodeFrame(Kind.ALIVE),
    ...encodeFrame(Kind.STDOUT, data),
    ...encodeObject(Kind.EXIT, { code: 3 }),
  ]);
  const wanted = await framesOf(bytes);
  assert.deepEqual(wanted.map(({ kind }) => kind), [Kind.ALIVE, Kind.STDOUT, Kind.EXIT]);
  assert.deepEqual(wanted[1].data, data);
  for (let at = 0; at < bytes.length; at++) {
    assert.deepEqual(await framesOf(bytes.subarray(0, at), bytes.subarray(at)), wanted);
  }
});

Deno.test("readFrames() refuses what is cut short or too long", async () => {
  await assert.rejects(framesOf(encodeFrame(Kind.STDOUT, new Uint8Array(9)).subarray(0, 12)), {
    message: "The connection ended within a frame",
  });
  const long = encodeFrame(Kind.STDOUT);
  new DataView(long.buffer).setUint32(1, MAX_LENGTH + 1, true);
  await assert.rejects(framesOf(long), { message: /^A frame says that it has 1048577 bytes$/ });
  assert.throws(() => encodeFrame(Kind.STDOUT, new Uint8Array(MAX_LENGTH + 1)), RangeError);
});
