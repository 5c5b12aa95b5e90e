import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Mux } from "../../devices/chardev/mux.ts";
import { openChardev, resolveChardev, waitForClient } from "../../devices/chardev/open.ts";
import type { ChardevConfig, SocketEndpoint } from "../../devices/chardev/config.ts";
import { isOpen, pollFd, POLLIN, readFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import {
  accept,
  connectTcp,
  connectUnix,
  listenTcp,
  listenUnix,
  shutdownSocket,
  socketPair,
} from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import { encode, hear, Recorder, RecordingHost, say, until } from "./chardev_testing.ts";
import { freePort } from "../ports.ts";
import { newlyOpen, openFiles } from "../processes.ts";
import { handOver, host, reconnecting, unixServer, withServer } from "./chardev_socket_testing.ts";

Deno.test("a socket server carries bytes both ways and says so in its file name", () =>
  withServer(async (path, frontend, backend) => {
    assert.equal(backend.filename, `disconnected:unix:${path},server=on`);
    assert.equal(backend.connected, false);
    using client = connectUnix(path);
    await until(() => backend.connected);
    assert.equal(backend.filename, `unix:${path},server=on`);
    assert.deepEqual(frontend.events, ["opened"]);
    say(client.fd, "ping");
    await until(() => frontend.text === "ping");
    assert.equal(backend.write(encode("pong")), 4);
    assert.equal(hear(client.fd, 4), "pong");
    client.close();
    await until(() => !backend.connected);
    assert.deepEqual(frontend.events, ["opened", "closed"]);
    assert.equal(backend.filename, `disconnected:unix:${path},server=on`);
  }));

Deno.test("a socket server drops output while nobody is connected", () =>
  withServer(async (path, _frontend, backend) => {
    assert.equal(backend.write(new Uint8Array(1 << 20)), 1 << 20);
    using client = connectUnix(path);
    await until(() => backend.connected);
    backend.write(encode("new"));
    assert.equal(hear(client.fd, 3), "new");
  }));

Deno.test("a second client is served when the first has hung up", () =>
  withServer(async (path, frontend, backend) => {
    using first = connectUnix(path);
    await until(() => backend.connected);
    using second = connectUnix(path);
    say(second.fd, "second");
    say(first.fd, "first,");
    await until(() => frontend.text === "first,");
    first.close();
    await until(() => frontend.text === "first,second");
    assert.deepEqual(frontend.events, ["opened", "closed", "opened"]);
  }));

Deno.test("input is read only as far as the frontend has room", () =>
  withServer(async (path, frontend, backend) => {
    frontend.room = 3;
    using client = connectUnix(path);
    say(client.fd, "abcdefgh");
    await until(() => frontend.text === "abc");
    frontend.room = 2;
    backend.acceptInput();
    await until(() => frontend.text === "abcde");
    frontend.room = 10;
    backend.acceptInput();
    await until(() => frontend.text === "abcdefgh");
  }));

Deno.test("input of a client that has hung up is not lost while the frontend has no room", () =>
  withServer(async (path, frontend, backend) => {
    frontend.room = 1;
    const client = connectUnix(path);
    say(client.fd, "all of it");
    client.close();
    await until(() => frontend.text === "a");
    await until(() => !backend.connected);
    assert.equal(backend.write(encode("nobody hears this")), 17);
    frontend.room = 100;
    backend.acceptInput();
    await until(() => frontend.text === "all of it");
    await until(() => frontend.events.at(-1) === "closed");
    using next = connectUnix(path);
    say(next.fd, "!");
    await until(() => frontend.text === "all of it!");
  }));

Deno.test("a new client does not wait for a guest that never reads", () =>
  withServer(async (path, frontend, backend) => {
    frontend.room = 0;
    const client = connectUnix(path);
    say(client.fd, "unread");
    client.close();
    using next = connectUnix(path);
    await until(() => frontend.events.length === 3);
    assert.deepEqual(frontend.events, ["opened", "closed", "opened"]);
    backend.write(encode("for the next"));
    assert.equal(hear(next.fd, 12), "for the next");
  }));

Deno.test("a peer that hung up without its input being read costs no processor time", () =>
  withServer(async (path, frontend, backend, reactor) => {
    frontend.room = 0;
    const client = connectUnix(path);
    say(client.fd, "unread");
    client.close();
    await until(() => frontend.events.length === 1 && !backend.connected);
    const asked = frontend.roomCalls;
    for (let i = 0; i < 5; i++) reactor.poll(0);
    assert.equal(frontend.roomCalls, asked, "the dead peer is visited again and again");
  }));

Deno.test("no byte is lost or doubled when a peer stops reading and then goes on", () =>
  withServer(async (path, frontend, backend) => {
    using client = connectUnix(path);
    await until(() => backend.connected);
    const total = 3_000_000;
    const data = Uint8Array.from({ length: total }, (_, i) => (i * 7) ^ (i >> 11));
    let sent = 0;
    const push = () => {
      for (let n = 1; n > 0 && sent < total; sent += n) {
        n = backend.write(data.subarray(sent, sent + 1000));
      }
    };
    frontend.onWritable = push;
    push();
    assert.ok(sent < total, "the socket takes it all at once: nothing is tested");
    const received = new Uint8Array(total);
    let length = 0;
    while (length < total) {
      if (pollFd(client.fd, POLLIN, 0)) length += readFd(client.fd, received.subarray(length));
      else await new Promise((resolve) => setTimeout(resolve, 0));
    }
    assert.equal(sent, total);
    assert.equal(Buffer.compare(received, data), 0);
    assert.equal(pollFd(client.fd, POLLIN, 0), 0);
  }));

Deno.test("a frontend that waits to write is told when the peer hangs up", () =>
  withServer(async (path, frontend, backend) => {
    const client = connectUnix(path);
    await until(() => backend.connected);
    while (backend.write(new Uint8Array(4096)) === 4096);
    const before = frontend.writableCalls;
    client.close();
    await until(() => frontend.writableCalls > before);
    assert.equal(backend.write(new Uint8Array(4096)), 4096);
  }));

Deno.test("worker threads write while clients come and go", () =>
  withServer(async (path, _frontend, backend) => {
    const worker = new Worker(new URL("./chardev_writer.ts", import.meta.url), { type: "module" });
    const progress = new Int32Array(new SharedArrayBuffer(8));
    worker.postMessage({ sink: backend.sink, progress });
    await until(() => Atomics.load(progress, 0) > 0);
    const before = openFiles(Deno.pid);
    for (let i = 0; i < 50; i++) {
      const client = connectUnix(path);
      await until(() => backend.connected);
      // Only whole lines of the writer's may arrive: never anything from another descriptor.
      const text = hear(client.fd, 64);
      assert.match(text, /^[a-z\n]*$/);
      client.close();
      await until(() => !backend.connected);
    }
    Atomics.store(progress, 1, 1);
    await until(() => Atomics.load(progress, 1) === 2);
    await until(() => newlyOpen(before).length === 0);
    worker.terminate();
  }));

Deno.test("closing a backend while a worker thread writes is safe", async () => {
  const reactor = new Reactor();
  const worker = new Worker(new URL("./chardev_writer.ts", import.meta.url), { type: "module" });
  const progress = new Int32Array(new SharedArrayBuffer(8));
  const path = `${Deno.makeTempDirSync()}/s`;
  const backend = openChardev(unixServer(path), host);
  backend.attach(reactor, new Recorder());
  using client = connectUnix(path);
  await until(() => backend.connected);
  worker.postMessage({ sink: backend.sink, progress });
  await until(() => Atomics.load(progress, 0) > 0);
  const [connection] = backend.keptFds().filter(({ name }) => name === "connection");
  backend.close();
  assert.equal(isOpen(connection.fd), false);
  // Whoever gets the number next must not see the writer's bytes.
  const pair = socketPair();
  const count = Atomics.load(progress, 0);
  await until(() => Atomics.load(progress, 0) > count + 1000);
  for (const fd of pair) assert.equal(pollFd(fd.fd, POLLIN, 0), 0);
  Atomics.store(progress, 1, 1);
  await until(() => Atomics.load(progress, 1) === 2);
  worker.terminate();
  for (const fd of [...pair, client]) fd.close();
  await reactor.close();
});

Deno.test("a worker thread that the host takes nothing from is told through the main thread", () =>
  withServer(async (path, frontend, backend) => {
    using client = connectUnix(path);
    await until(() => backend.connected);
    await until(() => frontend.writableCalls === 1);
    const worker = new Worker(new URL("./chardev_writer.ts", import.meta.url), { type: "module" });
    const progress = new Int32Array(new SharedArrayBuffer(8));
    worker.postMessage({ sink: backend.sink, progress, untilBlocked: true });
    await until(() => Atomics.load(progress, 1) === 2);
    worker.terminate();
    assert.equal(frontend.writableCalls, 1);
    const buffer = new Uint8Array(65536);
    while (pollFd(client.fd, POLLIN, 0)) readFd(client.fd, buffer);
    await until(() => frontend.writableCalls === 2);
  }));

for (const family of ["unix", "tcp"] as const) {
  Deno.test(`a ${family} client with reconnect-ms connects whenever the server is there`, async () => {
    const path = `${Deno.makeTempDirSync()}/s`;
    const port = freePort();
    const endpoint: SocketEndpoint = family === "unix"
      ? { family, path }
      : { family, host: "127.0.0.1", port };
    const listenAgain = () => family === "unix" ? listenUnix(path) : listenTcp("127.0.0.1", port);
    const reactor = new Reactor();
    const backend = openChardev(reconnecting(endpoint), host);
    const frontend = new Recorder();
    backend.attach(reactor, frontend);
    assert.equal(backend.connected, false);
    for (const greeting of ["hi", "hi again"]) {
      using listener = listenAgain();
      await until(() => backend.connected);
      using peer = accept(listener.fd)!;
      say(peer.fd, greeting);
      await until(() => frontend.text.endsWith(greeting));
      backend.write(encode("you too"));
      assert.equal(hear(peer.fd, 7), "you too");
      shutdownSocket(peer.fd);
      await until(() => !backend.connected);
    }
    const name = family === "unix" ? `unix:${path}` : `tcp:127.0.0.1:${port}`;
    assert.equal(backend.filename, `disconnected:${name}`);
    backend.close();
    using listener = listenAgain();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(pollFd(listener.fd, POLLIN, 0), 0, "it goes on trying after it was closed");
    await reactor.close();
  });
}

Deno.test("a socket client connects at once and stays away after the server hangs up", async () => {
  const path = `${Deno.makeTempDirSync()}/s`;
  using listener = listenUnix(path);
  const config: ChardevConfig = {
    backend: "socket",
    id: "c",
    family: "unix",
    path,
    server: false,
    wait: false,
  };
  const reactor = new Reactor();
  const backend = openChardev(config, host);
  const frontend = new Recorder();
  assert.equal(backend.filename, "unix:");
  backend.attach(reactor, frontend);
  const peer = accept(listener.fd)!;
  say(peer.fd, "hi");
  await until(() => frontend.text === "hi");
  peer.close();
  await until(() => !backend.connected);
  assert.equal(backend.filename, `disconnected:unix:${path}`);
  assert.deepEqual(backend.keptFds(), []);
  // A successor does not connect again either.
  const successor = openChardev(config, host, handOver(backend));
  assert.equal(successor.connected, false);
  successor.close();
  backend.close();
  await reactor.close();
});

Deno.test("a TCP server names both ends of its connection", async () => {
  const reactor = new Reactor();
  const backend = openChardev({
    backend: "socket",
    id: "t",
    family: "tcp",
    host: "::1",
    port: 0,
    server: true,
    wait: false,
  }, host);
  const port = Number(/^disconnected:tcp:::1:(\d+),server=on$/.exec(backend.filename)![1]);
  backend.attach(reactor, new Recorder());
  using client = connectTcp("::1", port);
  await until(() => backend.connected);
  const local = localAddress(client.fd) as { port: number };
  assert.equal(backend.filename, `tcp:[::1]:${port},server=on <-> [::1]:${local.port}`);
  backend.close();
  await reactor.close();
});

Deno.test("resolveChardev() replaces a host name by an address", async () => {
  const config = {
    backend: "socket",
    id: "t",
    family: "tcp",
    port: 0,
    server: true,
    wait: false,
  } as const;
  const resolved = await resolveChardev({ ...config, host: "localhost" });
  assert.deepEqual(resolved, { ...config, host: "127.0.0.1" });
  const wildcard = openChardev(await resolveChardev({ ...config, host: "" }), host);
  assert.match(wildcard.filename, /^disconnected:tcp:0\.0\.0\.0:\d+,server=on$/);
  wildcard.close();
  await assert.rejects(resolveChardev({ ...config, host: "nosuch.invalid", port: 1 }), {
    message: "address resolution failed for nosuch.invalid:1: Name or service not known",
  });
});

Deno.test("waitForClient() waits for the first client of a server with wait=on", async () => {
  const reactor = new Reactor();
  const path = `${Deno.makeTempDirSync()}/s`;
  const waiting = new RecordingHost();
  const backend = openChardev(unixServer(path, true), waiting);
  let ready = false;
  const wait = waitForClient(backend, reactor, waiting).then(() => ready = true);
  assert.deepEqual(waiting.notices, [
    `info: QEMU waiting for connection on: disconnected:unix:${path},server=on`,
  ]);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(ready, false);
  using client = connectUnix(path);
  await wait;
  assert.equal(backend.connected, true);
  const frontend = new Recorder();
  say(client.fd, "early");
  backend.attach(reactor, frontend);
  await until(() => frontend.text === "early");
  assert.deepEqual(frontend.events, ["opened"]);
  backend.close();
  await reactor.close();
});

Deno.test("waitForClient() fails when the backend is closed, and waits for no other backend", async () => {
  const reactor = new Reactor();
  const backend = openChardev(unixServer(undefined, true), host);
  const wait = waitForClient(backend, reactor, host);
  backend.close();
  await assert.rejects(wait, { message: "Chardev 'c' was closed" });
  await waitForClient(openChardev({ backend: "null", id: "n" }, host), reactor, host);
  await reactor.close();
});

Deno.test("a backend has one frontend", () =>
  withServer(async (_path, _frontend, backend, reactor) => {
    assert.equal(backend.frontendOpen, true);
    assert.equal(backend instanceof Mux, false);
    assert.throws(() => backend.attach(reactor, new Recorder()), {
      message: "chardev 'c' is already in use",
    });
    await Promise.resolve();
  }));
