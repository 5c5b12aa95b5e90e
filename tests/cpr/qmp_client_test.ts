/** Whom `update` takes for a VMM. */
import assert from "node:assert/strict";
import { QmpClient } from "../../cpr/update/qmp_client.ts";
import { Reactor } from "../../ffi/reactor.ts";

const peers: [who: string, text: string, message: string][] = [
  [
    "a human monitor",
    "Denovo 0.1.0 monitor - type 'help' for more information\r\n(qemu) ",
    "It is no QMP socket, perhaps a human monitor's: name one of -qmp",
  ],
  [
    "a socket of something else's JSON",
    '{"hello": 1}\n',
    "It is no QMP socket, perhaps a human monitor's: name one of -qmp",
  ],
  ["a socket that is closed at once", "", "The VMM has closed the QMP connection"],
];

for (const [who, text, message] of peers) {
  Deno.test(`QmpClient.connect() to ${who} says so`, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "denovo-qmp-" });
    const path = `${folder}/socket`;
    const reactor = new Reactor();
    try {
      using listener = Deno.listen({ transport: "unix", path });
      const connecting = QmpClient.connect({ family: "unix", path }, reactor);
      const refused = assert.rejects(connecting, { message });
      using peer = await listener.accept();
      await peer.write(new TextEncoder().encode(text));
      if (text === "") peer.close();
      await refused;
    } finally {
      await reactor.close();
      Deno.removeSync(folder, { recursive: true });
    }
  });
}
