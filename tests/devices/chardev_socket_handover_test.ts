import assert from "node:assert/strict";
import { openChardev } from "../../devices/chardev/open.ts";
import { isOpen, pollFd, POLLHUP, POLLIN } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { accept, connectUnix, listenUnix, shutdownSocket, socketPair } from "../../ffi/socket.ts";
import { newlyOpen, openFiles } from "../processes.ts";
import { encode, hear, Recorder, say, until } from "./chardev_testing.ts";
import { handOver, host, reconnecting, unixServer } from "./chardev_socket_testing.ts";

Deno.test("a successor of a client with reconnect-ms goes on with the connection, and after it", async () => {
  const path = `${Deno.makeTempDirSync()}/s`;
  using listener = listenUnix(path);
  const config = reconnecting({ family: "unix", path });
  const reactor = new Reactor();
  const backend = openChardev(config, host);
  backend.attach(reactor, new Recorder());
  await until(() => backend.connected);
  using peer = accept(listener.fd)!;
  backend.held = "everything";
  const successor = openChardev(config, host, handOver(backend));
  const frontend = new Recorder();
  successor.attach(reactor, frontend);
  backend.release();
  say(peer.fd, "on");
  await until(() => frontend.text === "on");
  shutdownSocket(peer.fd);
  await until(() => !successor.connected);
  await until(() => successor.connected);
  using next = accept(listener.fd)!;
  say(next.fd, "ward");
  await until(() => frontend.text === "onward");
  // While it is held back it connects to nobody.
  successor.held = "peers";
  shutdownSocket(next.fd);
  await until(() => !successor.connected);
  await new Promise((resolve) => setTimeout(resolve, 60));
  assert.equal(successor.connected, false);
  successor.held = "nothing";
  await until(() => successor.connected);
  successor.close();
  await reactor.close();
});

Deno.test("close() removes the socket file, release() leaves it and the connection", async () => {
  const reactor = new Reactor();
  const path = `${Deno.makeTempDirSync()}/s`;
  const old = openChardev(unixServer(path), host);
  old.attach(reactor, new Recorder());
  using client = connectUnix(path);
  await until(() => old.connected);
  using waiting = connectUnix(path);
  const kept = handOver(old);
  assert.deepEqual([...kept.fds.keys()].sort(), ["connection", "listener"]);
  say(client.fd, "before");
  const next = openChardev(unixServer(path), host, kept);
  old.release();
  assert.equal(next.filename, `unix:${path},server=on`);
  const frontend = new Recorder();
  next.attach(reactor, frontend);
  // Whether or not the predecessor has read it before it was released, nothing else is missing.
  say(client.fd, "after");
  await until(() => frontend.text.endsWith("after"));
  next.write(encode("same connection"));
  assert.equal(hear(client.fd, 15), "same connection");
  client.close();
  say(waiting.fd, ", next client");
  await until(() => frontend.text.endsWith("after, next client"));
  next.close();
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
  assert.ok(pollFd(waiting.fd, POLLIN, 60_000) & POLLHUP);
  await reactor.close();
});

Deno.test("a successor reads nothing before a frontend is attached", async () => {
  const reactor = new Reactor();
  const path = `${Deno.makeTempDirSync()}/s`;
  const old = openChardev(unixServer(path), host);
  const oldFrontend = new Recorder();
  old.attach(reactor, oldFrontend);
  using client = connectUnix(path);
  await until(() => old.connected);
  const next = openChardev(unixServer(path), host, handOver(old));
  say(client.fd, "still for the old one");
  await until(() => oldFrontend.text === "still for the old one");
  // The update fails: the successor gives up.
  next.release();
  say(client.fd, "!");
  await until(() => oldFrontend.text.endsWith("!"));
  using _second = connectUnix(path);
  old.close();
  await reactor.close();
});

Deno.test("cpr=off keeps no descriptors, unknown ones are refused and closed", () => {
  const backend = openChardev({ ...unixServer(), cpr: false }, host);
  assert.deepEqual(backend.keptFds(), []);
  backend.close();
  const before = openFiles(Deno.pid);
  const [a, b] = socketPair();
  b.close();
  assert.throws(
    () => openChardev(unixServer(), host, { fds: new Map([["master", a]]), state: {} }),
    { message: "Chardev 'c' does not know a file descriptor named 'master'" },
  );
  assert.deepEqual(newlyOpen(before), []);
});

Deno.test("an inherited socket is used as it is: connected or listening", async () => {
  const reactor = new Reactor();
  const [a, b] = socketPair();
  const connected = openChardev({ backend: "fd", id: "f", fd: a.release() }, host);
  const frontend = new Recorder();
  connected.attach(reactor, frontend);
  assert.equal(connected.filename, "unix:");
  say(b.fd, "x");
  await until(() => frontend.text === "x");
  shutdownSocket(b.fd);
  await until(() => !connected.connected);
  connected.close();
  b.close();

  const path = `${Deno.makeTempDirSync()}/s`;
  const listening = openChardev({ backend: "fd", id: "l", fd: listenUnix(path).release() }, host);
  listening.attach(reactor, frontend);
  assert.equal(listening.filename, `disconnected:unix:${path},server=on`);
  using _client = connectUnix(path);
  await until(() => listening.connected);
  listening.close();
  await reactor.close();
});

Deno.test("an inherited descriptor that is no socket is refused", () => {
  for (const fd of [99_999, 0]) {
    if (fd === 0 && Deno.statSync("/proc/self/fd/0").isSocket) continue;
    assert.throws(() => openChardev({ backend: "fd", id: "f", fd }, host), {
      message: `File descriptor '${fd}' is not a socket`,
    });
  }
});

Deno.test("a socket server that ends leaves the file alone that a successor has put in its place", async () => {
  const path = `${Deno.makeTempDirSync()}/s`;
  const old = openChardev(unixServer(path), host);
  const successor = openChardev(unixServer(path), host);
  old.close();
  using client = connectUnix(path);
  assert.ok(isOpen(client.fd));
  successor.close();
  assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
  await Deno.remove(path.slice(0, -2));
});
