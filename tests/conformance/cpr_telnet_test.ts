/** A telnet client of the serial port, through live updates. */
import assert from "node:assert/strict";
import { kvmTest, Laboratory, listens, until } from "./program.ts";
import { Chain, modes } from "./updates.ts";

for (const mode of modes) {
  if (mode === "cpr-reboot") continue; // It ends connections, as it ends the process.
  kvmTest(`a telnet command that is half sent goes on after ${mode}`, async () => {
    await using lab = await Laboratory.open();
    const path = lab.path("console");
    const chain = await Chain.start(lab, { serial: `unix:${path},server=on,wait=off,telnet=on` });
    await listens(path);
    using client = await Deno.connect({ transport: "unix", path });
    const received: number[] = [];
    const reading = (async () => {
      const buffer = new Uint8Array(4096);
      for (let n; (n = await client.read(buffer)) !== null;) {
        received.push(...buffer.subarray(0, n));
      }
    })();
    const text = () => String.fromCharCode(...received.slice(12)).replaceAll("\r", "");
    await until(() => received.length >= 12, () => "telnet's greeting");
    assert.deepEqual(received.slice(0, 12), [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0]);
    const send = (...bytes: number[]) => client.write(Uint8Array.from(bytes));
    await send(...new TextEncoder().encode("hel"), 255, 250, 31, 0);
    await chain.update(mode);
    // The rest of the command, a byte that is doubled among it, and of the line.
    await send(80, 255, 255, 255, 240, ...new TextEncoder().encode("lo\r"));
    await until(() => text().includes("you said: HELLO\n"), () => `the answer in ${text()}`);
    await chain.qmp.execute("quit");
    await reading;
    assert.equal(received.filter((byte) => byte === 255).length, 4, "it was greeted twice");
  });
}
