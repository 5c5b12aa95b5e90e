import assert from "node:assert/strict";
import { describeAddress, parseUri } from "../../cpr/channel/address.ts";

const good = {
  "unix:/run/main.sock": { transport: "socket", type: "unix", path: "/run/main.sock" },
  "tcp:localhost:4444": { transport: "socket", type: "inet", host: "localhost", port: "4444" },
  "tcp::4444": { transport: "socket", type: "inet", host: "", port: "4444" },
  "tcp:[::1]:4444": { transport: "socket", type: "inet", host: "::1", port: "4444" },
  "fd:main": { transport: "socket", type: "fd", str: "main" },
  "fd:7": { transport: "socket", type: "fd", str: "7" },
  "exec:gzip > x": { transport: "exec", args: ["/bin/sh", "-c", "gzip > x"] },
  "file:/tmp/a:b": { transport: "file", filename: "/tmp/a:b", offset: 0 },
  "file:state,offset=4096": { transport: "file", filename: "state", offset: 4096 },
  "file:state,offset=0x1000": { transport: "file", filename: "state", offset: 4096 },
};

const bad = {
  "": "unknown migration protocol: ",
  "pigeon:x": "unknown migration protocol: pigeon:x",
  "UNIX:x": "unknown migration protocol: UNIX:x",
  "unix:": "invalid Unix socket address",
  "tcp:": "error parsing address ''",
  "tcp:localhost": "error parsing address 'localhost'",
  "tcp:localhost:": "error parsing address 'localhost:'",
  "file:state,offset=": "file URI has bad offset ",
  "file:state,offset=-1": "file URI has bad offset -1",
  "file:state,offset=1.5": "file URI has bad offset 1.5",
  "file:state,offset=x": "file URI has bad offset x",
};

Deno.test("`parseUri()` gives QAPI's address when the URI is good", () => {
  for (const [uri, address] of Object.entries(good)) assert.deepEqual(parseUri(uri), address, uri);
});

Deno.test("`parseUri()` refuses in QEMU's words when the URI is bad", () => {
  for (const [uri, message] of Object.entries(bad)) assert.throws(() => parseUri(uri), { message });
});

Deno.test("`describeAddress()` names an address as messages do", () => {
  const texts = ["unix:/a", "tcp:h:1", "fd:n", "exec:true", "file:f,offset=1"];
  assert.deepEqual(
    texts.map((uri) => describeAddress(parseUri(uri))),
    ["/a", "h:1", "n", "/bin/sh -c true", "f"],
  );
});
