import assert from "node:assert/strict";
import { parseIncoming } from "../../cpr/channel/incoming_options.ts";

const cpr = { transport: "socket", type: "unix", path: "/c" };
const cprJson = JSON.stringify({ "channel-type": "cpr", addr: cpr });
const cprKeys = "channel-type=cpr,addr.transport=socket,addr.type=unix,addr.path=/c";
const main = { transport: "socket", type: "unix", path: "/m" };

Deno.test("`parseIncoming()` takes URIs, defer, JSON channels and dotted keys", async () => {
  assert.equal(await parseIncoming([]), undefined);
  assert.deepEqual(await parseIncoming(["defer"]), { main: "defer" });
  assert.deepEqual(await parseIncoming(["unix:/m"]), { main, argument: "unix:/m" });
  for (const channel of [cprJson, cprKeys]) {
    assert.deepEqual(await parseIncoming(["unix:/m", channel]), { main, cpr, argument: "unix:/m" });
    assert.deepEqual(await parseIncoming([channel]), { main: "defer", cpr });
  }
  const argument = "channel-type=main,addr.transport=file,addr.filename=f,addr.offset=8";
  const file = { transport: "file", filename: "f", offset: 8 };
  assert.deepEqual(await parseIncoming([argument]), { main: file, argument });
});

Deno.test("`parseIncoming()` lets the last of a channel type count", async () => {
  assert.deepEqual(await parseIncoming(["defer", "unix:/m"]), { main, argument: "unix:/m" });
  assert.deepEqual(await parseIncoming(["unix:/m", "defer"]), { main: "defer" });
  assert.deepEqual(await parseIncoming([cprJson.replace("/c", "/d"), "unix:/m", cprJson]), {
    main,
    argument: "unix:/m",
    cpr,
  });
});

Deno.test("`parseIncoming()` refuses what is none of these, naming the option", async () => {
  for (const bad of ["{", "pigeon:x", "unix:", "{}", '{"channel-type":"tea"}', "a=b"]) {
    await assert.rejects(parseIncoming([bad]), (error: Error) => {
      assert.ok(error.message.startsWith(`-incoming ${bad}: `), error.message);
      return true;
    });
  }
});

Deno.test("`parseIncoming()` refuses a cpr channel that cannot pass descriptors", async () => {
  for (
    const addr of [
      { transport: "file", filename: "f", offset: 0 },
      { transport: "exec", args: ["true"] },
      { transport: "socket", type: "inet", host: "h", port: "1" },
    ]
  ) {
    const channel = JSON.stringify({ "channel-type": "cpr", addr });
    await assert.rejects(parseIncoming([channel]), {
      message: "bad cpr channel socket type; must be unix",
    });
  }
});
