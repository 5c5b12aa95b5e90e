/** Telnet and WebSocket on sockets: what is taken out of the bytes, and what is put around them. */
import assert from "node:assert/strict";
import type { CharacterBackend, KeptChardev } from "../../devices/chardev/backend.ts";
import type { ChardevConfig } from "../../devices/chardev/config.ts";
import { encode as encodeBytes, Encoding } from "../../devices/chardev/encoding.ts";
import { openChardev } from "../../devices/chardev/open.ts";
import { type DecodedInput, TelnetDecoder } from "../../devices/chardev/telnet.ts";
import { WebSocketDecoder, websocketFrame } from "../../devices/chardev/websocket.ts";
import { answerUpgrade } from "../../devices/chardev/websocket_handshake.ts";
import { duplicate, pollFd, POLLIN, readFd, writeFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { connectUnix } from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import { encode, Recorder, RecordingHost, until } from "./chardev_testing.ts";

const host = new RecordingHost();

/** Everything that came out of a decoder. */
class Decoded implements DecodedInput {
  readonly bytes: number[] = [];
  readonly answers: number[][] = [];
  ends = 0;

  data(bytes: Uint8Array): void {
    for (const byte of bytes) this.bytes.push(byte);
  }

  break(): void {
    this.bytes.push(-1);
  }

  answer(bytes: Uint8Array<ArrayBuffer>): void {
    this.answers.push([...bytes]);
  }

  end(): void {
    this.ends++;
  }
}

interface Decoder {
  decode(bytes: Uint8Array, out: DecodedInput): void;
  save(): string;
  restore(text: string): void;
}

/** Decodes bytes in one piece, in two pieces cut anywhere, and by a new decoder after each byte. */
function decodedInAnyPieces(
  make: () => Decoder,
  bytes: readonly number[],
  check: (out: Decoded) => void,
): void {
  for (let cut = 0; cut <= bytes.length; cut++) {
    const [decoder, out] = [make(), new Decoded()];
    decoder.decode(Uint8Array.from(bytes.slice(0, cut)), out);
    decoder.decode(Uint8Array.from(bytes.slice(cut)), out);
    check(out);
  }
  let decoder = make();
  const out = new Decoded();
  for (const byte of bytes) {
    decoder.decode(Uint8Array.of(byte), out);
    if (out.ends > 0) break;
    const next = make();
    next.restore(decoder.save());
    decoder = next;
  }
  check(out);
}

Deno.test("TelnetDecoder takes commands out, wherever the bytes are cut", () => {
  const cases: [bytes: number[], data: number[]][] = [
    [[1, 2, 0, 3], [1, 2, 0, 3]],
    [[1, 255, 255, 2], [1, 255, 2]],
    [[255, 253, 1, 65, 255, 251, 31, 66], [65, 66]],
    [[255, 241, 65, 255, 249, 66], [65, 66]],
    [[65, 255, 243, 66], [65, -1, 66]],
    [[255, 250, 31, 0, 80, 255, 255, 24, 255, 240, 65], [65]],
    [[255, 253, 255, 65], [65]],
  ];
  for (const [bytes, data] of cases) {
    decodedInAnyPieces(() => new TelnetDecoder(), bytes, (out) => {
      assert.deepEqual(out.bytes, data, `${bytes}`);
      assert.deepEqual([out.answers, out.ends], [[], 0]);
    });
  }
});

const MASK = [0x11, 0x22, 0x33, 0x44];

/** A client's frame. */
function frame(opcode: number, payload: readonly number[], first = 0x80): number[] {
  const { length } = payload;
  const size = length < 126
    ? [length]
    : length < 65536
    ? [126, length >> 8, length & 255]
    : [127, 0, 0, 0, 0, 0, length >> 16, (length >> 8) & 255, length & 255];
  const [head, ...rest] = size;
  return [first | opcode, 0x80 | head, ...rest, ...MASK, ...payload.map((b, i) => b ^ MASK[i & 3])];
}

const text = (value: string) => [...encode(value)];

Deno.test("WebSocketDecoder takes data out of frames, wherever the bytes are cut", () => {
  const long = Array.from({ length: 300 }, (_, i) => i & 255);
  const cases: [bytes: number[], data: number[], answers: number[][]][] = [
    [frame(2, text("hello")), text("hello"), []],
    [frame(1, text("typed")), text("typed"), []],
    [[...frame(2, text("a"), 0), ...frame(0, text("bc"))], text("abc"), []],
    [[...frame(2, []), ...frame(2, long)], long, []],
    [[...frame(2, text("x")), ...frame(9, text("ping")), ...frame(2, text("y"))], text("xy"), [
      [0x8a, 4, ...text("ping")],
    ]],
    [[...frame(10, text("pong")), ...frame(2, [7])], [7], []],
  ];
  for (const [bytes, data, answers] of cases) {
    decodedInAnyPieces(() => new WebSocketDecoder(), bytes, (out) => {
      assert.deepEqual(out.bytes, data);
      assert.deepEqual(out.answers, answers);
      assert.equal(out.ends, 0);
    });
  }
  const [decoder, out] = [new WebSocketDecoder(), new Decoded()];
  decoder.decode(Uint8Array.from(frame(2, new Array(70_000).fill(1))), out);
  assert.equal(out.bytes.length, 70_000);
});

Deno.test("WebSocketDecoder ends at a close, and at what is no frame of a client's", () => {
  const refused = [0x88, 2, 0x03, 0xea];
  const cases: [bytes: number[], answer: number[]][] = [
    [frame(8, [3, 0xe8, 65]), [0x88, 2, 3, 0xe8]],
    [frame(8, []), [0x88, 0]],
    [[0x82, 0x01, ...MASK, 65], refused],
    [frame(3, [1]), refused],
    [frame(11, []), refused],
    [frame(2, [1], 0xc0), refused],
    [frame(9, text("x"), 0), refused],
    [frame(9, new Array(126).fill(1)), refused],
  ];
  for (const [bytes, answer] of cases) {
    decodedInAnyPieces(() => new WebSocketDecoder(), [...frame(2, [9]), ...bytes], (out) => {
      assert.deepEqual(out.bytes, [9]);
      assert.deepEqual(out.answers, [answer], `${bytes}`);
      assert.equal(out.ends, 1);
    });
  }
});

Deno.test("decoders bear any saved state", () => {
  for (
    const state of ["", "9", "-1", "x", "ff", "82,5,0,", "8285,99999999999999999999,3,", "82,1,9,"]
  ) {
    for (const decoder of [new TelnetDecoder(), new WebSocketDecoder()]) {
      decoder.restore(state);
      decoder.decode(Uint8Array.from(frame(2, text("any"))), new Decoded());
    }
  }
});

Deno.test("encode() doubles telnet's byte and puts frames around the rest", () => {
  const bytes = Uint8Array.of(1, 255, 2);
  assert.deepEqual([...encodeBytes(Encoding.TELNET, bytes).bytes], [1, 255, 255, 2]);
  assert.deepEqual([...encodeBytes(Encoding.WEBSOCKET, bytes).bytes], [0x82, 3, 1, 255, 2]);
  assert.equal(encodeBytes(Encoding.WEBSOCKET, new Uint8Array(500)).taken, 125);
  assert.deepEqual([...websocketFrame(Uint8Array.of(7), 10)], [0x8a, 1, 7]);
});

const REQUEST = [
  "GET /chat HTTP/1.1",
  "Host: server.example.com",
  "Upgrade: websocket",
  "Connection: keep-alive, Upgrade",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
  "Sec-WebSocket-Version: 13",
];

Deno.test("answerUpgrade() answers the example of RFC 6455", async () => {
  assert.equal(
    await answerUpgrade(REQUEST.join("\r\n")),
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
  );
  const protocol = [...REQUEST, "Sec-WebSocket-Protocol: chat, binary"].join("\r\n");
  assert.match((await answerUpgrade(protocol))!, /\r\nSec-WebSocket-Protocol: binary\r\n\r\n$/);
});

Deno.test("answerUpgrade() refuses what asks for no WebSocket", async () => {
  const change = (from: RegExp, to: string) => REQUEST.join("\r\n").replace(from, to);
  for (
    const request of [
      "",
      change(/^GET/, "POST"),
      change(/1\.1/, "1.0"),
      change(/Host:.*\r\n/, ""),
      change(/websocket/, "h2c"),
      change(/keep-alive, Upgrade/, "close"),
      change(/13/, "8"),
      change(/==/, ""),
      change(/\r\nUpgrade/, "\r\nno colon\r\nUpgrade"),
      `${REQUEST.join("\r\n")}\r\nSec-WebSocket-Protocol: chat`,
    ]
  ) assert.equal(await answerUpgrade(request), undefined, request);
});

type Protocol = "telnet" | "websocket";

const server = (protocol: Protocol, path: string): ChardevConfig => ({
  backend: "socket",
  id: "c",
  family: "unix",
  path,
  server: true,
  wait: false,
  protocol,
});

/** So many bytes, or fewer if the peer ends before. */
async function take(fd: number, wanted: number): Promise<number[]> {
  const bytes: number[] = [];
  const buffer = new Uint8Array(65536);
  let ended = false;
  await until(() => {
    while (!ended && bytes.length < wanted && pollFd(fd, POLLIN, 0)) {
      const length = readFd(fd, buffer);
      if (length <= 0) ended = true;
      else bytes.push(...buffer.subarray(0, length));
    }
    return ended || bytes.length >= wanted;
  });
  return bytes;
}

const send = (fd: number, bytes: readonly number[]) =>
  assert.equal(writeFd(fd, Uint8Array.from(bytes)), bytes.length);

const GREETING = [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0];

function handOver(backend: CharacterBackend): KeptChardev {
  const fds = new Map(backend.keptFds().map(({ name, fd }) => [name, duplicate(fd)]));
  return { fds, state: JSON.parse(JSON.stringify(backend.saveState())) };
}

/** A server, and what a test needs with it. */
async function withServer(
  protocol: Protocol,
  test: (
    path: string,
    backend: CharacterBackend,
    frontend: Recorder,
    reactor: Reactor,
  ) => Promise<void>,
): Promise<void> {
  const path = `${Deno.makeTempDirSync()}/s`;
  const reactor = new Reactor();
  const backend = openChardev(server(protocol, path), host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  try {
    await test(path, backend, frontend, reactor);
  } finally {
    backend.close();
    await reactor.close();
  }
}

Deno.test("a telnet server greets, and speaks telnet in both directions", () =>
  withServer("telnet", async (path, backend, frontend) => {
    using client = connectUnix(path);
    assert.deepEqual(await take(client.fd, GREETING.length), GREETING);
    await until(() => backend.connected);
    send(client.fd, [255, 253, 1, ...text("ls"), 255, 243, 255, 255, 13]);
    await until(() => frontend.bytes.length === 4);
    assert.deepEqual(frontend.bytes, [...text("ls"), 255, 13]);
    assert.deepEqual(frontend.events.at(-1), "break");
    assert.equal(backend.write(Uint8Array.of(1, 255, 2)), 3);
    assert.deepEqual(await take(client.fd, 4), [1, 255, 255, 2]);
  }));

for (const protocol of ["telnet", "websocket"] as const) {
  Deno.test(`a ${protocol} client that reads slowly gets every byte`, () =>
    withServer(protocol, async (path, backend, frontend) => {
      using client = connectUnix(path);
      if (protocol === "websocket") send(client.fd, text(`${REQUEST.join("\r\n")}\r\n\r\n`));
      await until(() => backend.connected);
      // Writes are as uneven as a guest's, and end in the middle of pairs and frames.
      const sent: number[] = [];
      const fill = () => {
        for (let length = 1;; length = length % 1000 + 37) {
          const data = Uint8Array.from({ length }, (_, i) => (i % 3 === 0 ? 255 : i));
          const taken = backend.write(data);
          sent.push(...data.subarray(0, taken));
          if (taken < length) return;
        }
      };
      fill();
      const received: number[] = [];
      const buffer = new Uint8Array(5000);
      for (let round = 0; round < 20; round++) {
        const calls = frontend.writableCalls;
        while (pollFd(client.fd, POLLIN, 0) && frontend.writableCalls === calls) {
          const length = readFd(client.fd, buffer);
          received.push(...buffer.subarray(0, length));
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
        await until(() => frontend.writableCalls > calls);
        fill();
      }
      const decode = () => protocol === "telnet" ? untelnet(received) : unframe(received);
      for (let i = 0; i < 10_000 && decode().length < sent.length; i++) {
        if (!pollFd(client.fd, POLLIN, 1)) await new Promise((resolve) => setTimeout(resolve, 1));
        else received.push(...buffer.subarray(0, readFd(client.fd, buffer)));
      }
      assert.deepEqual(decode(), sent);
    }));
}

/** What a telnet client makes of a server's bytes. */
function untelnet(bytes: readonly number[]): number[] {
  const out = new Decoded();
  new TelnetDecoder().decode(Uint8Array.from(bytes), out);
  return out.bytes;
}

/** What a WebSocket client makes of a server's bytes, behind the answer to its request. */
function unframe(bytes: readonly number[]): number[] {
  const all = String.fromCharCode(...bytes.slice(0, 1000));
  let at = all.indexOf("\r\n\r\n") + 4;
  const data: number[] = [];
  while (at + 1 < bytes.length) {
    const [first, length] = [bytes[at], bytes[at + 1]];
    assert.ok(length <= 125, `a frame of ${length}`);
    if (first === 0x82) data.push(...bytes.slice(at + 2, at + 2 + length));
    at += 2 + length;
  }
  return data;
}

Deno.test("a successor goes on in the middle of a telnet command", () =>
  withServer("telnet", async (path, backend, frontend, reactor) => {
    using client = connectUnix(path);
    await take(client.fd, GREETING.length);
    await until(() => backend.connected);
    send(client.fd, [...text("a"), 255, 250, 31]);
    await until(() => frontend.text === "a");
    backend.held = "everything";
    const successor = openChardev(server("telnet", path), host, handOver(backend));
    const next = new Recorder();
    successor.attach(reactor, next);
    backend.release();
    send(client.fd, [1, 2, 255, 240, ...text("b")]);
    await until(() => next.text === "b");
    successor.write(encode("out"));
    assert.deepEqual(await take(client.fd, 3), text("out"));
    successor.close();
  }));

Deno.test("a successor writes what of a frame is left", () =>
  withServer("websocket", async (path, backend, _frontend, reactor) => {
    using client = connectUnix(path);
    send(client.fd, text(`${REQUEST.join("\r\n")}\r\n\r\n`));
    await until(() => backend.connected);
    let length = 0;
    for (let taken; (taken = backend.write(new Uint8Array(777))) > 0;) length += taken;
    backend.held = "everything";
    const kept = handOver(backend);
    assert.equal(typeof kept.state.unsent, "string");
    const successor = openChardev(server("websocket", path), host, kept);
    const next = new Recorder();
    successor.attach(reactor, next);
    backend.release();
    const received: number[] = [];
    const buffer = new Uint8Array(65536);
    while (pollFd(client.fd, POLLIN, 0)) {
      received.push(...buffer.subarray(0, readFd(client.fd, buffer)));
    }
    await until(() => next.writableCalls > 0);
    successor.write(Uint8Array.of(1, 2, 3));
    await until(() => {
      if (pollFd(client.fd, POLLIN, 0)) {
        received.push(...buffer.subarray(0, readFd(client.fd, buffer)));
      }
      return unframe(received).length === length + 3;
    });
    assert.deepEqual(unframe(received).slice(-4), [0, 1, 2, 3]);
    successor.close();
  }));

Deno.test("a browser's WebSocket talks to a server, and the next one after it", async () => {
  const reactor = new Reactor();
  const config: ChardevConfig = {
    backend: "socket",
    id: "c",
    family: "tcp",
    host: "127.0.0.1",
    port: 0,
    server: true,
    wait: false,
    protocol: "websocket",
  };
  const backend = openChardev(config, host);
  const frontend = new Recorder();
  backend.attach(reactor, frontend);
  const { fd } = backend.keptFds().find(({ name }) => name === "listener")!;
  const address = localAddress(fd);
  assert.ok(address?.type === "inet");
  assert.equal(backend.filename, `disconnected:websocket:127.0.0.1:${address.port},server=on`);
  for (const word of ["one", "two"]) {
    const socket: WebSocket = new WebSocket(`ws://127.0.0.1:${address.port}`, "binary");
    socket.binaryType = "arraybuffer";
    const opened = Promise.withResolvers<void>();
    const answered = Promise.withResolvers<Uint8Array>();
    const closed = Promise.withResolvers<void>();
    socket.onopen = () => opened.resolve();
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer>) =>
      answered.resolve(new Uint8Array(data));
    socket.onclose = () => closed.resolve();
    await opened.promise;
    assert.equal(socket.protocol, "binary");
    socket.send(encode(word));
    await until(() => frontend.text.endsWith(word));
    assert.match(backend.filename, /^websocket:127\.0\.0\.1:\d+,server=on <-> 127\.0\.0\.1:\d+$/);
    backend.write(encode("answer"));
    assert.deepEqual(await answered.promise, encode("answer"));
    socket.close();
    await closed.promise;
    await until(() => !backend.connected);
  }
  backend.close();
  await reactor.close();
});

Deno.test("a client that asks for no WebSocket is told so, and the next is served", () =>
  withServer("websocket", async (path, backend) => {
    for (const request of ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(4096)]) {
      using client = connectUnix(path);
      send(client.fd, text(request));
      const answer = String.fromCharCode(...await take(client.fd, 1000));
      if (request.startsWith("GET")) assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/);
      else assert.equal(answer, "");
      assert.equal(backend.connected, false);
    }
    using gone = connectUnix(path);
    send(gone.fd, text("GET /"));
    gone.close();
    using client = connectUnix(path);
    send(client.fd, text(`${REQUEST.join("\r\n")}\r\n\r\n`));
    await until(() => backend.connected);
  }));
