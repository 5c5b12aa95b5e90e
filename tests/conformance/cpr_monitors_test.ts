/** Monitors with `cpr=on`: the connection lives through an update, and so does what was begun on it. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, setExec, startSuccessor } from "./program.ts";
import { TextConnection } from "./session.ts";
import { Chain, type Mode } from "./updates.ts";

/** Every way that leaves connections alone; the helper of a relay is one VMM more. */
const ways: readonly {
  readonly name: string;
  readonly mode: Mode;
  readonly relay?: Chain["relay"];
}[] = [
  { name: "cpr-transfer", mode: "cpr-transfer" },
  { name: "cpr-exec by way of a helper", mode: "cpr-exec", relay: "on" },
  { name: "cpr-exec", mode: "cpr-exec", relay: "off" },
];

/** A guest whose VMM has one more monitor, and a connection to that. */
async function begin(lab: Laboratory, mode: "readline" | "control") {
  const path = lab.path("kept");
  const options = [
    ...["-chardev", `socket,id=kept,path=${path},server=on,wait=off,cpr=on`],
    ...["-mon", `chardev=kept,mode=${mode}`],
  ];
  const chain = await Chain.start(lab, { options });
  return { chain, client: await TextConnection.to(path), options };
}

/** Updates in one of the ways. */
async function update(chain: Chain, { mode, relay }: typeof ways[number]): Promise<void> {
  chain.relay = relay;
  await chain.update(mode);
}

const PROMPT = "(qemu) ";

for (const way of ways) {
  kvmTest(`a line that is typed with cpr=on is typed on after ${way.name}`, async () => {
    await using lab = await Laboratory.open();
    const { chain, client } = await begin(lab, "readline");
    using _client = client;
    await client.take(PROMPT);
    await client.send("info name\r");
    await client.take(PROMPT);
    // The cursor is in the middle of the line, and an escape sequence has begun.
    await client.send("info satus\x1b[D\x1b[D\x1b[D\x1b");
    await client.take("info satus\x1b[K\x1b[D\x1b[D\x1b[D");
    await update(chain, way);
    assert.equal(client.text, "", "the new VMM's monitor said something of its own");
    await client.send("[Dt\r");
    assert.match(await client.take(PROMPT), /info status.*\r\nVM status: running\r\n\(qemu\) $/s);
    // What was typed before is there to be called up again.
    await client.send("\x1b[A\x1b[A\r");
    assert.match(await client.take(PROMPT), /info name.*\r\n\(qemu\) $/s);
    assert.ok(!client.ended);
  });

  kvmTest(`a command that is sent with cpr=on is sent on after ${way.name}`, async () => {
    await using lab = await Laboratory.open();
    const { chain, client } = await begin(lab, "control");
    using _client = client;
    await client.take("capabilities");
    await client.send(`{"execute": "qmp_capabilities"}\n`);
    await client.take(`{"return": {}}\r\n`);
    await client.send(`{"execute": "query-status", "id": 1}{"execute": "query-`);
    await client.take(`"id": 1}\r\n`);
    await update(chain, way);
    await client.send(`name", "id": 2}\n`);
    const text = await client.take(`"id": 2}\r\n`);
    // Nobody greets, and nobody else's words come in between.
    const messages = text.trimEnd().split("\r\n").map((line) => JSON.parse(line));
    const events = messages.flatMap(({ event }) =>
      ["STOP", "RESUME"].includes(event) ? [event] : []
    );
    assert.deepEqual(messages.at(-1), { return: {}, id: 2 });
    assert.deepEqual(messages.slice(0, -1).filter(({ event }) => event === undefined), []);
    const stops = way.relay === "on" ? 2 : 1;
    assert.deepEqual(events, Array.from({ length: stops }, () => ["STOP", "RESUME"]).flat());
  });
}

kvmTest(
  "a human's migrate on a monitor with cpr=on ends with a prompt of the new VMM",
  async () => {
    await using lab = await Laboratory.open();
    const { chain, client } = await begin(lab, "readline");
    using _client = client;
    await client.take(PROMPT);
    await setExec(chain.qmp, [
      ...[
        Deno.execPath(),
        "run",
        "-A",
        "--no-check",
        new URL("../../mod.ts", import.meta.url).pathname,
      ],
      ...[...chain.vmm.options, "-incoming", `file:${lab.path("state")}`],
    ]);
    await client.send(`migrate file:${lab.path("state")}\rinfo sta`);
    await client.take("\r\n");
    assert.match(await client.take("info sta"), /^\(qemu\) .*info sta$/s);
    await client.send("tus\r");
    assert.match(await client.take(PROMPT), /\r\nVM status: running\r\n\(qemu\) $/);
  },
);

kvmTest("a monitor with cpr=on goes on in the old VMM when its successor refuses", async () => {
  await using lab = await Laboratory.open();
  const { chain, client, options } = await begin(lab, "readline");
  using _client = client;
  await client.take(PROMPT);
  await client.send("info sta");
  await client.take("info sta\x1b[K");
  const { vmm, channels } = await startSuccessor(lab, "next", {
    options: [...options, "-smp", "2"],
  });
  await chain.qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  await chain.qmp.execute("migrate", { channels });
  await chain.qmp.logged("MIGRATION failed");
  await vmm.ended();
  assert.equal(client.text, "");
  await client.send("tus\r");
  assert.match(await client.take(PROMPT), /\r\nVM status: running\r\n\(qemu\) $/);
});
