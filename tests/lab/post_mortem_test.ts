/** What is told of a QEMU that stands still: by a fake of its monitor. */
import assert from "node:assert/strict";
import { stateOfQemu } from "./post_mortem.ts";

/** A monitor that answers some commands and then no more. */
async function withMonitor(answers: readonly unknown[], use: (path: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "denovo-" });
  const path = `${folder}/monitor`;
  const listener = Deno.listen({ transport: "unix", path });
  const served = (async () => {
    using connection = await listener.accept();
    const send = (message: unknown) =>
      connection.write(new TextEncoder().encode(`${JSON.stringify(message)}\n`));
    await send({ QMP: { version: {}, capabilities: [] } });
    const left = [...answers];
    const bytes = new Uint8Array(1000);
    while (await connection.read(bytes) !== null) {
      if (left.length === 0) continue;
      await send({ event: "RTC_CHANGE", data: { offset: 1 } });
      await send(left.shift());
    }
  })();
  try {
    await use(path);
    await served;
  } finally {
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("stateOfQemu() tells what threads do, and what the monitor answers", async () => {
  const answers = [
    { return: {} },
    { return: "VM status: paused (io-error)\r\n" },
    { return: "CPU#0\r\nRIP=1234\r\nFCW=037f FSW=0000\r\nXMM00=00\r\n" },
    { error: { class: "GenericError", desc: "No local APIC" } },
    { return: "ISR (none)\r\n" },
  ];
  await withMonitor(answers, async (path) => {
    const text = await stateOfQemu(Deno.pid, path);
    assert.match(text, /^QEMU's thread \d+ \S+: \w, \d+ of 1000 ms on a processor$/m);
    assert.match(
      text,
      /info status: VM status: paused \(io-error\)\n.*CPU#0\nRIP=1234\n.*No local APIC\n.*ISR/,
    );
    assert.doesNotMatch(text, /FCW|XMM/);
  });
});

Deno.test("stateOfQemu() says what cannot be had when the monitor falls silent, or QEMU has ended", async () => {
  await withMonitor([{ return: {} }, { return: "VM status: running" }], async (path) => {
    const text = await stateOfQemu(Deno.pid, path, 500);
    assert.match(text, /QEMU's monitor: it has said nothing for 0\.5 s$/);
  });
  const gone = await stateOfQemu(2 ** 31 - 1, "/nonexistent/monitor");
  assert.match(gone, /^QEMU: .*\/proc\/2147483647\/task.*\nQEMU: /);
});
