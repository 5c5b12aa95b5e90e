import assert from "node:assert/strict";
import { awaitAnswer, Channel, sendIfThere } from "../../cpr/channel/channel.ts";
import { ChannelClosed } from "../../cpr/channel/errors.ts";
import { checkNamed, openIncoming, openOutgoing, opensAtOnce } from "../../cpr/channel/open.ts";
import type { MigrationAddress } from "../../cpr/channel/address.ts";
import { makePipe, O, openFile, type OwnedFd } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";
import { accept, socketPair } from "../../ffi/socket.ts";
import { FdRegistry } from "../../vmm/monitor/fd_registry.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const never = new AbortController().signal;

/** A folder, an event loop and the descriptors of a monitor. */
class Stage implements AsyncDisposable {
  readonly reactor = new Reactor();
  readonly fds = new FdRegistry();
  readonly waiting = { reactor: this.reactor, abort: never };

  private constructor(readonly folder: string) {}

  static async open(): Promise<Stage> {
    return new Stage(await Deno.makeTempDir({ prefix: "denovo-channel-" }));
  }

  file(name: string, offset = 0): MigrationAddress {
    return { transport: "file", filename: `${this.folder}/${name}`, offset };
  }

  unix(name: string): MigrationAddress {
    return { transport: "socket", type: "unix", path: `${this.folder}/${name}` };
  }

  exec(script: string): MigrationAddress {
    return { transport: "exec", args: ["/bin/sh", "-c", script] };
  }

  /** A channel to write to. */
  out(address: MigrationAddress): Promise<Channel> {
    return openOutgoing(address, this.fds, this.waiting);
  }

  /** A channel to read from that is open at once. */
  async in(address: MigrationAddress): Promise<Channel> {
    const end = await openIncoming(address, this.fds);
    assert.equal(end.kind, "open");
    return (end as { channel: Channel }).channel;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.fds.closeAll();
    await this.reactor.close();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Two channels that are connected. */
function pair(): [Channel, Channel] {
  const [a, b] = socketPair();
  return [new Channel(a), new Channel(b)];
}

Deno.test("a channel gives exactly what was asked for, or less at the end", () => {
  const [near, far] = pair();
  using _near = near;
  far.sink(encode("abcdef"));
  far.sink(encode("gh"));
  assert.equal(decode(near.source(4)), "abcd");
  near.awaitData();
  assert.ok(near.ahead.length >= 2);
  const kept = near.source(3);
  far[Symbol.dispose]();
  assert.equal(decode(near.source(9)), "h");
  assert.equal(near.source(1).length, 0);
  // Nobody writes where somebody still reads.
  assert.equal(decode(kept), "efg");
});

Deno.test("a channel reads what is larger than its buffer, and keeps what it gave", async () => {
  await using stage = await Stage.open();
  const bytes = Uint8Array.from({ length: 700_000 }, (_, i) => i * 31 >> 3);
  Deno.writeFileSync(`${stage.folder}/large`, bytes);
  using channel = await stage.in(stage.file("large"));
  assert.equal(channel.duplex, false);
  const first = channel.source(10);
  const second = channel.source(600_000);
  assert.deepEqual(second, bytes.slice(10, 600_010));
  assert.deepEqual(first, bytes.slice(0, 10));
  assert.deepEqual(channel.rest(1 << 20), bytes.slice(600_010));
});

Deno.test("a channel to a file begins at its offset, and ends the file there", async () => {
  await using stage = await Stage.open();
  const address = stage.file("state", 5);
  Deno.writeTextFileSync(`${stage.folder}/state`, "HEAD-and a long tail");
  using channel = await stage.out(address);
  channel.sink(encode("data"));
  await channel.finish(stage.reactor, never);
  assert.equal(Deno.readTextFileSync(`${stage.folder}/state`), "HEAD-data");
  using incoming = await stage.in(address);
  await incoming.begun(stage.reactor, never);
  assert.equal(decode(incoming.source(99)), "data");
});

Deno.test("a file that is being written is nobody else's, and a FIFO needs a reader", async () => {
  await using stage = await Stage.open();
  using _writer = await stage.out(stage.file("state"));
  const path = `${stage.folder}/state`;
  const busy = "Resource temporarily unavailable";
  await assert.rejects(stage.out(stage.file("state")), {
    message: `Could not create '${path}': ${busy}`,
  });
  await assert.rejects(stage.in(stage.file("state")), {
    message: `Could not open '${path}': ${busy}`,
  });
  await assert.rejects(stage.in(stage.file("none")), {
    message: `Could not open '${stage.folder}/none': No such file or directory`,
  });
  const { success } = await new Deno.Command("mkfifo", { args: [`${stage.folder}/fifo`] }).output();
  assert.ok(success);
  await assert.rejects(stage.out(stage.file("fifo")), /Could not create .*No such device or addr/);
});

Deno.test("a command behind a channel must end well", async () => {
  await using stage = await Stage.open();
  const kept = `${stage.folder}/kept`;
  using good = await stage.out(stage.exec(`cat > ${kept}`));
  await good.send(encode("state"), stage.reactor, never);
  await good.finish(stage.reactor, never);
  assert.equal(Deno.readTextFileSync(kept), "state");
  using bad = await stage.out(stage.exec("exec 0<&-; exit 3"));
  await assert.rejects(bad.finish(stage.reactor, never), {
    message: "Command exited with status 3",
  });
  using killed = await stage.out(stage.exec("kill -9 $$"));
  assert.throws(() => killed.finishNow(), { message: "Command was killed by signal 9" });
  using incoming = await stage.in(stage.exec("printf 'from a command'"));
  await incoming.begun(stage.reactor, never);
  assert.equal(decode(incoming.source(100)), "from a command");
  await incoming.finish(stage.reactor, never);
});

Deno.test("a channel that is closed early kills the command behind it", async () => {
  await using stage = await Stage.open();
  const channel = await stage.in(stage.exec("exec sleep 1000"));
  channel[Symbol.dispose]();
});

Deno.test("a channel whose peer has gone says so, but to who does not care", () => {
  const [near, far] = pair();
  far[Symbol.dispose]();
  assert.throws(() => near.sink(encode("x")), (error: Error) => {
    assert.ok(error instanceof ChannelClosed);
    assert.equal(error.message, "Peer has closed the migration channel");
    return true;
  });
  sendIfThere(near, encode("x"));
  awaitAnswer(near);
  assert.equal(near.source(1).length, 0);
  near[Symbol.dispose]();
  assert.throws(() => sendIfThere(near, encode("x")), { message: /Bad file descriptor$/ });
});

Deno.test("sending waits on the event loop for who reads slowly, and ends by its signal", async () => {
  await using stage = await Stage.open();
  const [near, far] = pair();
  using _near = near;
  using _far = far;
  const bytes = new Uint8Array(4 << 20).fill(7);
  const sent = near.send(bytes, stage.reactor, never);
  let read = 0;
  while (read < bytes.length) {
    // Reading blocks: only what is there.
    await far.begun(stage.reactor, never);
    far.awaitData();
    read += far.source(far.ahead.length).length;
  }
  await sent;
  assert.equal(read, bytes.length);
  const end = new AbortController();
  const stuck = near.send(bytes, stage.reactor, end.signal);
  end.abort(new Error("cancelled"));
  await assert.rejects(stuck, { message: "cancelled" });
  const nothing = near.begun(stage.reactor, end.signal);
  await assert.rejects(nothing, { message: "cancelled" });
});

Deno.test("a descriptor that a monitor has named is a channel once", async () => {
  await using stage = await Stage.open();
  const [reader, writer] = makePipe();
  stage.fds.set("state", writer);
  const address = { transport: "socket", type: "fd", str: "state" } as const;
  checkNamed(address, stage.fds);
  using channel = await stage.out(address);
  channel.sink(encode("x"));
  const missing = { message: "File descriptor named 'state' has not been found" };
  assert.throws(() => checkNamed(address, stage.fds), missing);
  await assert.rejects(stage.out(address), missing);
  await assert.rejects(openIncoming(address, stage.fds), missing);
  using incoming = await stage.in({ transport: "socket", type: "fd", str: `${reader.fd}` });
  assert.equal(decode(incoming.source(1)), "x");
  reader.close();
  await assert.rejects(
    openIncoming({ transport: "socket", type: "fd", str: "99999" }, stage.fds),
    /^Error: Cannot use file descriptor .*: Bad file descriptor$/,
  );
});

Deno.test("a UNIX socket is listened on by who reads, and connected to by who writes", async () => {
  await using stage = await Stage.open();
  const address = stage.unix("socket");
  const end = await openIncoming(address, stage.fds);
  assert.equal(end.kind, "listener");
  const { listener } = end as { listener: OwnedFd };
  using channel = await stage.out(address);
  assert.equal(channel.duplex, true);
  using other = new Channel(accept(listener.fd)!);
  channel.sink(encode("hello"));
  assert.equal(decode(other.source(5)), "hello");
  await assert.rejects(openIncoming(address, stage.fds), /Address already in use$/);
  listener.close();
  await assert.rejects(stage.out(stage.unix("nobody")), /^Error: Failed to connect to '/);
  for (const port of ["x", "65536", "-1"]) {
    const inet = { transport: "socket", type: "inet", host: "localhost", port } as const;
    await assert.rejects(openIncoming(inet, stage.fds), /Servname not supported for ai_socktype$/);
  }
});

Deno.test("what can fail at once is known", async () => {
  await using stage = await Stage.open();
  assert.equal(opensAtOnce(stage.file("x")), true);
  assert.equal(opensAtOnce(stage.exec("x")), true);
  assert.equal(opensAtOnce({ transport: "socket", type: "fd", str: "x" }), true);
  assert.equal(opensAtOnce(stage.unix("x")), false);
});

Deno.test("`/dev/fdset/N` is the descriptor of the set whose access mode fits", async () => {
  await using stage = await Stage.open();
  const path = `${stage.folder}/state`;
  Deno.writeTextFileSync(path, "old");
  const reader = openFile(path, O.RDONLY);
  const { fdsetId } = stage.fds.add(reader);
  const address = { transport: "file", filename: `/dev/fdset/${fdsetId}`, offset: 0 } as const;
  using channel = await stage.in(address);
  assert.equal(decode(channel.source(9)), "old");
  await assert.rejects(stage.out(address), {
    message: `Could not create '/dev/fdset/${fdsetId}': Permission denied`,
  });
  await assert.rejects(stage.in({ ...address, filename: "/dev/fdset/77" }), {
    message: "Could not open '/dev/fdset/77': No such file or directory",
  });
});
