/**
 * QMP clients of all kinds: such that pass descriptors, and such that do not behave.
 */
import assert from "node:assert/strict";
import { testAccelerator } from "../needs_kvm.ts";
import { makePipe, type OwnedFd, readFd, writeAll } from "../../ffi/fd.ts";
import { connectUnix } from "../../ffi/socket.ts";
import { sendMessage } from "../../ffi/socket_message.ts";
import { openFiles } from "../processes.ts";
import { Bench, type Json, kvmTest, PassingClient, Qmp, sleep, until } from "./session.ts";

const encode = (text: string) => new TextEncoder().encode(text);

function pipeName(fd: OwnedFd): string {
  return Deno.readLinkSync(`/proc/self/fd/${fd.fd}`);
}

kvmTest("getfd, closefd, add-fd and remove-fd take descriptors over the socket", async () => {
  await using bench = await Bench.open("-S");
  bench.qmp[Symbol.dispose]();
  using client = await PassingClient.to(bench.qmpPath);
  const missing = "No file descriptor supplied via SCM_RIGHTS";
  assert.equal((await client.call("getfd", { fdname: "a" })).error.desc, missing);

  const [reader, writer] = makePipe();
  const name = pipeName(writer);
  const held = () => openFiles(bench.vmm.pid).filter((target) => target === name).length;
  assert.deepEqual(await client.call("getfd", { fdname: "a" }, [writer.fd]), { return: {} });
  assert.equal(held(), 1);
  // One command, one descriptor.
  assert.equal((await client.call("getfd", { fdname: "b" })).error.desc, missing);
  // The name moves on to another descriptor; the first is closed.
  assert.deepEqual(await client.call("getfd", { fdname: "a" }, [reader.fd]), { return: {} });
  assert.equal(held(), 1);
  assert.deepEqual(await client.call("closefd", { fdname: "a" }), { return: {} });
  assert.equal(held(), 0);
  assert.equal(
    (await client.call("closefd", { fdname: "a" })).error.desc,
    "File descriptor named 'a' not found",
  );
  assert.equal(
    (await client.call("getfd", { fdname: "1a" }, [writer.fd])).error.desc,
    "Parameter 'fdname' expects a name not starting with a digit",
  );
  assert.equal(held(), 0);

  const added = await client.call("add-fd", { "fdset-id": 7, opaque: "note" }, [writer.fd]);
  assert.equal(added.return["fdset-id"], 7);
  const { fd } = added.return;
  assert.equal(held(), 1);
  assert.deepEqual(await client.call("query-fdsets"), {
    return: [{ "fdset-id": 7, fds: [{ fd, opaque: "note" }] }],
  });
  assert.deepEqual(await client.call("remove-fd", { "fdset-id": 7, fd }), { return: {} });
  assert.equal(held(), 0);
  assert.equal(
    (await client.call("remove-fd", { "fdset-id": 7 })).error.desc,
    "File descriptor named 'fdset-id:7' not found",
  );

  // human-monitor-command takes the connection's descriptors, too.
  const line = { "command-line": "getfd h" };
  assert.deepEqual(await client.call("human-monitor-command", line, [writer.fd]), { return: "" });
  assert.equal(held(), 1);
  await client.call("closefd", { fdname: "h" });

  // What nobody took is closed with the connection.
  await client.call("query-status", {}, [writer.fd, writer.fd, writer.fd]);
  assert.equal(held(), 3);
  client[Symbol.dispose]();
  await until(() => held() === 0, () => "descriptors to be closed");
  reader.close();
  writer.close();
});

kvmTest("a descriptor that getfd has named becomes a character device", async () => {
  await using bench = await Bench.open("-S");
  bench.qmp[Symbol.dispose]();
  using client = await PassingClient.to(bench.qmpPath);
  const [reader, writer] = makePipe();
  writeAll(writer.fd, encode("x"));
  assert.equal(readFd(reader.fd, new Uint8Array(1)), 1);
  await client.call("getfd", { fdname: "pipe" }, [writer.fd]);
  const addr = { type: "fd", data: { str: "pipe" } };
  const backend = { type: "socket", data: { addr } };
  const { error } = await client.call("chardev-add", { id: "c", backend });
  assert.match(error.desc, /is not a socket$/);
  reader.close();
  writer.close();
});

kvmTest("pipelined commands are answered in order, pretty or not", async () => {
  await using bench = await Bench.open("-S");
  const { connection } = bench.qmp;
  const commands = Array.from({ length: 200 }, (_, id) => `{"execute":"query-status","id":${id}}`);
  await connection.send(commands.join(""));
  for (let id = 0; id < 200; id++) assert.equal((await bench.qmp.line()).id, id);
  // In pieces, and with spaces all over.
  for (const piece of [' {"exe', 'cute"\n:"query', '-kvm" , "id" : "\\u00', 'e4" }\r\n\t ']) {
    await connection.send(piece);
  }
  assert.deepEqual(await bench.qmp.line(), {
    return: { enabled: testAccelerator === "kvm", present: true },
    id: "ä",
  });
});

kvmTest("malformed input is refused, and the next command is executed", async () => {
  await using bench = await Bench.open("-S");
  const { qmp } = bench;
  for (const text of ["nonsense\n", "{]\n", '{"execute": 5}\n', "[]\n", '"x"\n', "\x01\n", "}\n"]) {
    await qmp.connection.send(text);
    assert.equal((await qmp.reply()).error.class, "GenericError", text);
    // An error in the middle of a value may cost what follows on the line, and no more.
    await qmp.connection.send("\n");
    const { error } = await resynchronize(qmp);
    assert.equal(error, undefined, text);
  }
});

/** Executes a command until it is understood, as a client does that has lost its place. */
async function resynchronize(qmp: Qmp): Promise<Json> {
  for (let tries = 0; tries < 5; tries++) {
    await qmp.connection.send('{"execute": "query-status", "id": "sync"}\n');
    for (;;) {
      const reply = await qmp.reply();
      if (reply.id === "sync") return reply;
      if (reply.error) break;
    }
  }
  assert.fail("The session has lost its place");
}

kvmTest("a mebibyte without a newline does no harm", async () => {
  await using bench = await Bench.open();
  const { qmp } = bench;
  await qmp.connection.send('"' + "x".repeat(1 << 20));
  await qmp.connection.send('"\n{"execute": "query-status", "id": "after"}\n');
  let reply;
  do reply = await qmp.reply(); while (reply.id !== "after");
  assert.equal(reply.return.status, "running");
  // Nor do open brackets without end.
  await qmp.connection.send("[".repeat(1 << 20));
  assert.ok((await qmp.reply()).error);
  qmp[Symbol.dispose]();
  using next = await Qmp.to(bench.qmpPath);
  assert.equal((await next.execute("query-status")).status, "running");
});

kvmTest(
  "a client that disconnects in the middle of a command leaves the monitor usable",
  async () => {
    await using bench = await Bench.open();
    await bench.qmp.connection.send('{"execute": "query-qmp-sch');
    bench.qmp[Symbol.dispose]();
    {
      using hasty = await Qmp.to(bench.qmpPath);
      await hasty.connection.send('{"execute": "query-qmp-schema"}\n'.repeat(20));
    }
    using next = await Qmp.to(bench.qmpPath);
    assert.equal((await next.execute("query-status")).status, "running");
  },
);

kvmTest("a client that never reads neither stops the VM nor fills its memory", async () => {
  await using bench = await Bench.open();
  bench.qmp[Symbol.dispose]();
  const socket = connectUnix(bench.qmpPath, { nonblocking: true });
  const command = encode('{"execute": "query-qmp-schema"}\n'.repeat(100));
  assert.ok(sendMessage(socket.fd, encode('{"execute": "qmp_capabilities"}\n')) > 0);
  /** Sends until the socket takes nothing; gives how many bytes it has taken. */
  const fill = () => {
    let taken = 0;
    for (let n; (n = sendMessage(socket.fd, command)) !== -1;) taken += n;
    return taken;
  };
  // It is not read from any more once its replies wait: then the socket takes nothing. Whatever it
  // has taken until then is a few times what it holds.
  let taken = fill();
  const most = 8 * taken;
  for (let quiet = 0; quiet < 10; quiet++) {
    await sleep(30);
    const more = fill();
    if (more > 0) quiet = 0;
    taken += more;
    assert.ok(taken < most, "the VMM goes on reading");
  }
  socket.close();
  using qmp = await Qmp.to(bench.qmpPath);
  assert.equal((await qmp.execute("query-status")).status, "running");
  const text = await qmp.hmp("xp /1gx 0x200000");
  while (await qmp.hmp("xp /1gx 0x200000") === text);
});
