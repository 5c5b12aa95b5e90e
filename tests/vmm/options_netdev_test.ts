import assert from "node:assert/strict";
import { parseNetdev } from "../../vmm/options/netdev.ts";
import { parseCommandLine } from "../../vmm/options/command_line.ts";
import { assertOptionError, testDevices, words } from "./options_fixture.ts";

Deno.test("`parseNetdev()` reads every kind of backend", () => {
  const cases: [string, unknown][] = [
    ["tap,id=n,ifname=tap0,script=no,downscript=no", { type: "tap", id: "n", ifname: "tap0" }],
    ["user,id=n,throttle-group=g", { type: "user", id: "n", hostfwd: [], throttleGroup: "g" }],
    ["tap,id=n,fd=7,cpr=off", { type: "tap", id: "n", fd: 7, cpr: false }],
    ["tap,id=n,vnet_hdr=off,vhost=off,queues=4", {
      ...{ type: "tap", id: "n", vnetHdr: false, queues: 4 },
    }],
    ["tap,id=n,fds=3:4", { type: "tap", id: "n", fds: [3, 4] }],
    ["tap,id=n,vhost=on", { type: "tap", id: "n", vhost: true }],
    ["tap,id=n,vhostforce=on", { type: "tap", id: "n", vhost: true }],
    ["tap,id=n,vhost=off,vhostforce=on", { type: "tap", id: "n" }],
    ["tap,id=n,fd=7,vhostfd=5", { type: "tap", id: "n", fd: 7, vhost: true, vhostfds: [5] }],
    ["tap,id=n,fds=3:4,vhost=on,vhostfds=5:6", {
      ...{ type: "tap", id: "n", fds: [3, 4], vhost: true, vhostfds: [5, 6] },
    }],
    [
      "stream,id=n,server=on,addr.type=unix,addr.path=/run/a,,b",
      { type: "stream", id: "n", server: true, addr: { type: "unix", path: "/run/a,b" } },
    ],
    [
      "type=stream,id=n,addr.type=inet,addr.host=::1,addr.port=80,reconnect-ms=10",
      {
        type: "stream",
        id: "n",
        server: false,
        addr: { type: "inet", host: "::1", port: 80 },
        reconnectMs: 10,
      },
    ],
    [
      "stream,id=n,addr.type=fd,addr.str=5",
      { type: "stream", id: "n", server: false, addr: { type: "fd", fd: 5 } },
    ],
    [
      "dgram,id=n,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b",
      {
        type: "dgram",
        id: "n",
        local: { type: "unix", path: "/a" },
        remote: { type: "unix", path: "/b" },
      },
    ],
    [
      "user,id=n,hostfwd=tcp:127.0.0.1:2222-:22",
      {
        type: "user",
        id: "n",
        hostfwd: [{ protocol: "tcp", host: "127.0.0.1", hostPort: 2222, guestPort: 22 }],
      },
    ],
    ["user,id=n", { type: "user", id: "n", hostfwd: [] }],
    [
      '{"type":"stream","id":"n","server":true,"addr":{"type":"unix","path":"/run/a"}}',
      { type: "stream", id: "n", server: true, addr: { type: "unix", path: "/run/a" } },
    ],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseNetdev(text), expected, text);
});

Deno.test("`parseNetdev()` refuses what makes no sense", () => {
  const cases: [string, string][] = [
    ["id=n", "Parameter 'type' is missing"],
    ["tap", "Parameter 'id' is missing"],
    ["nope,id=n", "Parameter 'type' does not accept value 'nope'"],
    ["socket,id=n", "Parameter 'type' does not accept value 'socket': say stream or dgram"],
    ["tap,id=n,foo=1", "Invalid parameter 'foo'"],
    ["tap,id=n,fd=x", "Parameter 'fd' expects integer"],
    [
      "tap,id=n,fd=3,ifname=a",
      "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are" +
      " invalid with fd=",
    ],
    [
      "tap,id=n,script=/etc/up",
      "Parameter 'script' does not accept value '/etc/up': no script is run: set the interface up" +
      " by ip(8), and say no",
    ],
    ["tap,id=n,vhost=off,vhostfd=5", "vhostfd(s)= is not valid without vhost"],
    ["tap,id=n,vhost=on,vhostfds=5:6", "expected 1 socket fds, got 2"],
    ["tap,id=n,queues=2,vhostfd=5", "expected 2 socket fds, got 1"],
    ["tap,id=n,fds=3:4,vhostfds=5", "expected 2 socket fds, got 1"],
    [
      "tap,id=n,queues=17",
      "you must specify 1 to 16 queues of a tap, not 17",
    ],
    ["tap,id=n,queues=0", "you must specify 1 to 16 queues of a tap, not 0"],
    ["tap,id=n,fds=3:x", "Parameter 'fds' expects integer"],
    [
      "tap,id=n,fds=3:4,queues=2",
      "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid" +
      " with fds=",
    ],
    ["stream,id=n", "Parameter 'addr' is missing"],
    ["stream,id=n,addr.path=a", "Parameter 'addr.type' is missing"],
    ["stream,id=n,addr.type=unix", "Parameter 'addr.path' is missing"],
    ["stream,id=n,addr.type=vsock", "Parameter 'addr.type' does not accept value 'vsock'"],
    [
      "stream,id=n,addr.type=inet,addr.host=a,addr.port=70000",
      "Parameter 'port' expects a port number, not '70000'",
    ],
    [
      "stream,id=n,addr.type=unix,addr.path=a,server=on,reconnect-ms=1",
      "'reconnect-ms' option is incompatible with socket in server listen mode",
    ],
    ["dgram,id=n", "dgram requires local= parameter: where frames come to"],
    ["dgram,id=n,local.type=unix,local.path=a", "dgram requires remote= parameter"],
    [
      "dgram,id=n,local.type=fd,local.str=3,remote.type=unix,remote.path=a",
      "don't set remote= with local.type=fd",
    ],
    [
      "dgram,id=n,local.type=unix,local.path=a,remote.type=inet,remote.host=a,remote.port=1",
      "'remote' and 'local' must be of the same type",
    ],
    [
      "dgram,id=n,local.type=inet,local.host=a,local.port=1,remote.type=inet," +
      "remote.host=230.0.0.1,remote.port=1",
      "Parameter 'remote.host' does not accept value '230.0.0.1': multicast",
    ],
    [
      "user,id=n,hostfwd=22",
      "Invalid host forwarding rule '22' (expected tcp:HOST:PORT-GUEST:PORT)",
    ],
  ];
  for (const [text, message] of cases) assertOptionError(() => parseNetdev(text), message, text);
});

Deno.test("-netdev comes once an id; -netdev help lists the kinds", () => {
  const two = words("-kernel k -netdev user,id=n -netdev user,id=n");
  assertOptionError(
    () => parseCommandLine(two, testDevices),
    "-netdev user,id=n: Duplicate ID 'n' for netdev",
  );
  assert.deepEqual(parseCommandLine(words("-netdev help"), testDevices).request, {
    kind: "netdev-help",
    text: "Available netdev backend types:\ntap\nstream\ndgram\nuser",
  });
});
