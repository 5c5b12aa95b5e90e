import assert from "node:assert/strict";
import { Channel } from "../../cpr/channel/channel.ts";
import { makePipe, O, openFile } from "../../ffi/fd.ts";
import { Reactor } from "../../ffi/reactor.ts";

const never = new AbortController().signal;
const byte = Uint8Array.of(1);

Deno.test("a channel whose file is full names the file", async () => {
  const reactor = new Reactor();
  using channel = new Channel(openFile("/dev/full", O.WRONLY), { file: "/var/state" });
  const message = "Unable to write to '/var/state': No space left on device";
  assert.throws(() => channel.sink(byte), { message });
  await assert.rejects(channel.send(byte, reactor, never), { message });
  await reactor.close();
});

Deno.test("a channel whose file cannot be read names the file", () => {
  using channel = new Channel(openFile("/tmp", O.RDONLY), { file: "/var/state" });
  const message = "Unable to read from '/var/state': Is a directory";
  assert.throws(() => channel.source(1), { message });
});

Deno.test("a channel without a name says what it is", () => {
  const [reader, writer] = makePipe();
  writer.close();
  using channel = new Channel(reader);
  const message = "Unable to write to fifo: Bad file descriptor";
  assert.throws(() => channel.sink(byte), { message });
});
