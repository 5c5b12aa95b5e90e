import assert from "node:assert/strict";
import { connectUnix } from "../../ffi/socket.ts";
import { readFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { ChardevSet } from "../../vmm/chardev_set.ts";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { openMonitors } from "../../vmm/monitor/monitors.ts";
import { RecordingHost, say, until } from "../devices/chardev_testing.ts";
import { FakeMachine } from "./monitor_fake_machine.ts";

Deno.test("a QMP client that never reads is hung up on when 16 MiB of events wait for it", async () => {
  const folder = await Deno.makeTempDir();
  const path = `${folder}/qmp`;
  const reactor = new Reactor();
  const chardevs = new ChardevSet(reactor, new RecordingHost());
  await chardevs.open([
    { backend: "socket", family: "unix", id: "q", path, server: true, wait: false },
  ], []);
  const machine = new FakeMachine();
  const monitor = { mode: "control", chardev: "q", pretty: false } as const;
  openMonitors([monitor], { chardevs, machine, table: builtinCommands() });
  const client = connectUnix(path, { nonblocking: true });
  const buffer = new Uint8Array(65536);
  let length = 0;
  const receive = () => (length = readFd(client.fd, buffer)) > 0;
  await until(receive);
  say(client.fd, '{"execute": "qmp_capabilities"}');
  await until(receive);
  assert.equal(new TextDecoder().decode(buffer.subarray(0, length)), '{"return": {}}\r\n');

  const backend = chardevs.get("q");
  const data = { text: "x".repeat(1 << 20) };
  for (let i = 0; i < 15; i++) machine.events.emit("NOISE", data);
  assert.ok(backend.connected);
  for (let i = 0; i < 3; i++) machine.events.emit("NOISE", data);
  assert.ok(!backend.connected);
  // What the kernel had taken can still be read; then comes the end.
  await until(() => (length = readFd(client.fd, buffer)) === 0);
  client.close();
  // The next client is welcome.
  const next = connectUnix(path, { nonblocking: true });
  await until(() => (length = readFd(next.fd, buffer)) > 0);
  assert.match(new TextDecoder().decode(buffer.subarray(0, length)), /^\{"QMP"/);
  next.close();
  chardevs.close();
  await reactor.close();
  await Deno.remove(folder, { recursive: true });
});
