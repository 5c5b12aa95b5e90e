import assert from "node:assert/strict";
import { OsError } from "../../ffi/errno.ts";
import {
  duplicate,
  fileStatus,
  isOpen,
  makePipe,
  type OwnedFd,
  pollFd,
  POLLIN,
  POLLOUT,
  readFd,
  writeFd,
} from "../../ffi/fd.ts";
import { libc } from "../../ffi/libc.ts";
import {
  accept,
  connectTcp,
  connectUnix,
  isListening,
  listenTcp,
  listenUnix,
  peerCredentials,
  sendNow,
  shutdownSocket,
  socketError,
  socketPair,
} from "../../ffi/socket.ts";
import { localAddress, peerAddress, resolveHost, UnixPathError } from "../../ffi/socket_address.ts";
import { MAX_MESSAGE_FDS, receiveMessage, sendMessage } from "../../ffi/socket_message.ts";
import { newlyOpen, openFiles } from "../processes.ts";

const hello = new TextEncoder().encode("hello");
const F_GETFD = 1;

function temporaryPath(): string {
  return `${Deno.makeTempDirSync()}/socket`;
}

Deno.test("listenUnix() and connectUnix() carry bytes both ways", () => {
  const path = temporaryPath();
  using listener = listenUnix(path, { nonblocking: true });
  assert.equal(accept(listener.fd), undefined);
  using client = connectUnix(path);
  using server = accept(listener.fd)!;
  const buffer = new Uint8Array(16);
  for (const [from, to] of [[client, server], [server, client]]) {
    assert.equal(writeFd(from.fd, hello), 5);
    assert.equal(readFd(to.fd, buffer), 5);
    assert.deepEqual(buffer.subarray(0, 5), hello);
  }
  assert.deepEqual(localAddress(server.fd), { type: "unix", path });
  assert.deepEqual(peerAddress(client.fd), { type: "unix", path });
  assert.deepEqual(localAddress(client.fd), { type: "unix", path: "" });
});

Deno.test("listenUnix() takes the place of a socket file that is already there", () => {
  const path = temporaryPath();
  listenUnix(path).close();
  using listener = listenUnix(path);
  using _client = connectUnix(path);
  using server = accept(listener.fd)!;
  assert.deepEqual(localAddress(server.fd), { type: "unix", path });
});

Deno.test("socket errors have QEMU's words", () => {
  const none = "/nonexistent/x";
  assert.throws(() => listenUnix(none), {
    message: "Failed to bind socket to /nonexistent/x: No such file or directory",
  });
  assert.throws(
    () => connectUnix(none),
    (error: Error) => {
      assert.equal(
        error.message,
        "Failed to connect to '/nonexistent/x': No such file or directory",
      );
      assert.equal((error.cause as OsError).code, "ENOENT");
      return true;
    },
  );
  const path = temporaryPath();
  listenUnix(path).close();
  assert.throws(() => connectUnix(path), {
    message: `Failed to connect to '${path}': Connection refused`,
  });
  const long = "/".padEnd(108, "x");
  assert.throws(
    () => connectUnix(long),
    (error) =>
      error instanceof UnixPathError &&
      error.message === `UNIX socket path '${long}' is too long` &&
      error.hint === "Path must be less than 108 bytes",
  );
  using listener = listenTcp("127.0.0.1", 0);
  const { port } = localAddress(listener.fd) as { port: number };
  assert.throws(() => listenTcp("127.0.0.1", port), {
    message: "Failed to find an available port: Address already in use",
  });
  listener.close();
  assert.throws(() => connectTcp("127.0.0.1", port), {
    message: `Failed to connect to '127.0.0.1:${port}': Connection refused`,
  });
  assert.throws(() => connectTcp("localhost", 1), {
    message: "Host 'localhost' is not an IP address",
  });
  assert.throws(() => listenTcp("127.0.0.1", 65536), RangeError);
});

Deno.test("a UNIX path of 107 bytes is not too long", () => {
  const directory = Deno.makeTempDirSync();
  const path = `${directory}/${"x".repeat(106 - directory.length)}`;
  assert.equal(path.length, 107);
  using listener = listenUnix(path);
  assert.deepEqual(localAddress(listener.fd), { type: "unix", path });
});

Deno.test("failing calls leave no descriptor open", () => {
  const before = openFiles(Deno.pid);
  for (let i = 0; i < 3; i++) {
    assert.throws(() => listenUnix("/nonexistent/x"));
    assert.throws(() => connectUnix("/nonexistent/x"));
    assert.throws(() => connectTcp("127.0.0.1", 1));
  }
  assert.deepEqual(newlyOpen(before), []);
});

for (const host of ["127.0.0.1", "::1"]) {
  Deno.test(`listenTcp() and connectTcp() work with ${host}`, () => {
    using listener = listenTcp(host, 0, { nonblocking: true });
    const address = localAddress(listener.fd) as { type: "inet"; host: string; port: number };
    assert.equal(address.host, host);
    assert.notEqual(address.port, 0);
    assert.equal(isListening(listener.fd), true);
    using client = connectTcp(host, address.port);
    pollFd(listener.fd, POLLIN, -1);
    using server = accept(listener.fd, { nonblocking: true })!;
    assert.deepEqual(peerAddress(client.fd), address);
    assert.deepEqual(peerAddress(server.fd), localAddress(client.fd));
    assert.equal(isListening(server.fd), false);
    assert.equal(readFd(server.fd, new Uint8Array(1)), -1);
  });
}

Deno.test("connectTcp() with nonblocking reports its failure through socketError()", () => {
  using listener = listenTcp("127.0.0.1", 0);
  const { port } = localAddress(listener.fd) as { port: number };
  listener.close();
  let failure = "";
  try {
    using client = connectTcp("127.0.0.1", port, { nonblocking: true });
    pollFd(client.fd, POLLOUT, -1);
    failure = new OsError("connect", socketError(client.fd)).code;
    assert.equal(socketError(client.fd), 0);
  } catch (error) {
    // The loopback device may refuse at once.
    failure = ((error as Error).cause as OsError).code;
  }
  assert.equal(failure, "ECONNREFUSED");
});

Deno.test("resolveHost() gives literals for names and passes literals through", async () => {
  assert.deepEqual(await resolveHost("::1", 1), ["::1"]);
  assert.equal((await resolveHost("localhost", 1))[0], "127.0.0.1");
  for (const host of ["", "nosuch.invalid"]) {
    await assert.rejects(resolveHost(host, 7), {
      message: `address resolution failed for ${host}:7: Name or service not known`,
    });
  }
});

Deno.test("every descriptor of a socket function has CLOEXEC", () => {
  const path = temporaryPath();
  using listener = listenUnix(path);
  using client = connectUnix(path);
  using server = accept(listener.fd)!;
  const [a, b] = socketPair();
  sendMessage(a.fd, hello, [client.fd]);
  const [received] = receiveMessage(b.fd, new Uint8Array(8), 1)!.fds;
  for (const socket of [listener, client, server, a, b, received]) {
    assert.equal(libc.fcntl(socket.fd, F_GETFD, 0), 1);
  }
  for (const socket of [a, b, received]) socket.close();
});

Deno.test("peerCredentials() names the process at the other end", () => {
  const [a, b] = socketPair();
  const { pid, uid, gid } = peerCredentials(a.fd);
  assert.deepEqual([pid, uid, gid], [Deno.pid, Deno.uid(), Deno.gid()]);
  a.close();
  b.close();
});

Deno.test("sendNow() takes what fits, and fails when the peer is gone", () => {
  const [a, b] = socketPair();
  const chunk = new Uint8Array(65536);
  let n = 0;
  while ((n = sendNow(a.fd, chunk)) !== -1) assert.ok(n > 0);
  shutdownSocket(b.fd);
  shutdownSocket(b.fd);
  assert.throws(() => sendNow(a.fd, chunk), { code: "EPIPE" });
  a.close();
  b.close();
});

Deno.test("sendMessage() passes descriptors that refer to the same files", () => {
  const [a, b] = socketPair("seqpacket");
  const [r, w] = makePipe();
  assert.equal(sendMessage(a.fd, hello, [r.fd, w.fd]), 5);
  const buffer = new Uint8Array(16);
  const message = receiveMessage(b.fd, buffer, 4)!;
  assert.equal(message.length, 5);
  assert.equal(message.truncated, false);
  assert.equal(message.fds.length, 2);
  writeFd(message.fds[1].fd, hello);
  assert.equal(readFd(r.fd, buffer), 5);
  for (const fd of [a, b, r, w, ...message.fds]) fd.close();
});

Deno.test("sendMessage() passes 253 descriptors and refuses 254", () => {
  const [a, b] = socketPair();
  const [r, w] = makePipe();
  sendMessage(a.fd, hello, new Array(MAX_MESSAGE_FDS).fill(r.fd));
  const { fds } = receiveMessage(b.fd, new Uint8Array(8), MAX_MESSAGE_FDS)!;
  assert.equal(fds.length, 253);
  assert.equal(fileStatus(fds[252].fd).ino, fileStatus(r.fd).ino);
  assert.throws(() => sendMessage(a.fd, hello, new Array(254).fill(r.fd)), RangeError);
  assert.throws(() => sendMessage(a.fd, new Uint8Array(0), [r.fd]), RangeError);
  for (const fd of [a, b, r, w, ...fds]) fd.close();
});

for (const [sent, expected] of [[2, 1], [3, 0], [253, 252], [4, 2]]) {
  Deno.test(`receiveMessage() refuses ${sent} descriptors when ${expected} are expected, and keeps none`, () => {
    const [a, b] = socketPair("seqpacket");
    const before = openFiles(Deno.pid);
    sendMessage(a.fd, hello, new Array(sent).fill(a.fd));
    assert.throws(() => receiveMessage(b.fd, new Uint8Array(8), expected), {
      name: "RangeError",
      message: `Message carries more file descriptors than the ${expected} expected`,
    });
    assert.deepEqual(newlyOpen(before), []);
    // The connection is still in order.
    sendMessage(a.fd, hello);
    assert.equal(receiveMessage(b.fd, new Uint8Array(8), 0)!.length, 5);
    a.close();
    b.close();
  });
}

Deno.test("receiveMessage() closes what arrived when the process may open no more", () => {
  const [a, b] = socketPair("seqpacket");
  sendMessage(a.fd, hello, new Array(20).fill(a.fd));
  const before = openFiles(Deno.pid);
  const RLIMIT_NOFILE = 7;
  const limits = Deno.dlopen("libc.so.6", {
    getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
    setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  });
  const limit = new BigUint64Array(2);
  limits.symbols.getrlimit(RLIMIT_NOFILE, limit);
  // Descriptors get the lowest numbers that are free: no more than three fit now.
  const lowest = duplicate(a.fd);
  const few = new BigUint64Array([BigInt(lowest.fd + 3), limit[1]]);
  lowest.close();
  limits.symbols.setrlimit(RLIMIT_NOFILE, few);
  try {
    assert.throws(() => receiveMessage(b.fd, new Uint8Array(8), 20), RangeError);
  } finally {
    limits.symbols.setrlimit(RLIMIT_NOFILE, limit);
    limits.close();
  }
  assert.deepEqual(newlyOpen(before), []);
  a.close();
  b.close();
});

Deno.test("receiveMessage() tells when a message was longer than the buffer", () => {
  const [a, b] = socketPair("seqpacket");
  sendMessage(a.fd, hello);
  const message = receiveMessage(b.fd, new Uint8Array(3), 0)!;
  assert.deepEqual([message.length, message.truncated], [3, true]);
  a.close();
  b.close();
});

Deno.test("receiveMessage() returns undefined without a message, and length 0 at the end", () => {
  const [a, b] = socketPair("seqpacket", { nonblocking: true });
  assert.equal(receiveMessage(b.fd, new Uint8Array(8), 1), undefined);
  a.close();
  assert.deepEqual(receiveMessage(b.fd, new Uint8Array(8), 1), {
    length: 0,
    fds: [],
    truncated: false,
  });
  b.close();
});

Deno.test("a descriptor that was sent stays open for its receiver after the sender closed it", () => {
  const [a, b] = socketPair();
  const [r, w] = makePipe();
  sendMessage(a.fd, hello, [w.fd]);
  w.close();
  a.close();
  const [received]: OwnedFd[] = receiveMessage(b.fd, new Uint8Array(8), 1)!.fds;
  assert.ok(isOpen(received.fd));
  writeFd(received.fd, hello);
  assert.equal(readFd(r.fd, new Uint8Array(8)), 5);
  for (const fd of [b, r, received]) fd.close();
});
