import assert from "node:assert/strict";
import { isOpen, makePipe, type OwnedFd } from "../../ffi/fd.ts";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { HmpSession } from "../../vmm/monitor/hmp.ts";
import { QmpSession } from "../../vmm/monitor/qmp.ts";
import { FakeMachine, FakeTransport, latin1 } from "./monitor_fake_machine.ts";

/** A descriptor to pass, and its number. */
function passed(): { owned: OwnedFd; fd: number } {
  const [owned, other] = makePipe();
  other.close();
  return { owned, fd: owned.fd };
}

async function connect() {
  const machine = new FakeMachine();
  const transport = new FakeTransport();
  const session = new QmpSession(machine, builtinCommands(), transport);
  const send = async (command: string, args: unknown, fds: OwnedFd[] = []) => {
    transport.take();
    await session.receive(latin1(JSON.stringify({ execute: command, arguments: args })), fds);
    const reply = JSON.parse(transport.take());
    return reply.error?.desc ?? reply.return;
  };
  await send("qmp_capabilities", {});
  return { machine, session, transport, send };
}

Deno.test("getfd names a descriptor, closefd closes it", async () => {
  const { machine, send } = await connect();
  const first = passed(), second = passed();
  assert.equal(
    await send("getfd", { fdname: "x" }),
    "No file descriptor supplied via SCM_RIGHTS",
  );
  assert.deepEqual(await send("getfd", { fdname: "x" }, [first.owned]), {});
  assert.equal(machine.fds.named.get("x")?.fd, first.fd);
  await send("getfd", { fdname: "x" }, [second.owned]);
  assert.equal(isOpen(first.fd), false);
  assert.deepEqual(await send("closefd", { fdname: "x" }), {});
  assert.equal(isOpen(second.fd), false);
  assert.equal(await send("closefd", { fdname: "x" }), "File descriptor named 'x' not found");
});

Deno.test("getfd refuses a name that could be a number", async () => {
  const { send } = await connect();
  const { owned, fd } = passed();
  assert.equal(
    await send("getfd", { fdname: "9x" }, [owned]),
    "Parameter 'fdname' expects a name not starting with a digit",
  );
  assert.equal(isOpen(fd), false);
});

Deno.test("add-fd makes sets, remove-fd takes them apart", async () => {
  const { send } = await connect();
  const [a, b, c] = [passed(), passed(), passed()];
  assert.deepEqual(await send("add-fd", { opaque: "rdonly" }, [a.owned]), {
    "fdset-id": 0,
    fd: a.fd,
  });
  assert.deepEqual(await send("add-fd", {}, [b.owned]), { "fdset-id": 1, fd: b.fd });
  assert.deepEqual(await send("add-fd", { "fdset-id": 0 }, [c.owned]), {
    "fdset-id": 0,
    fd: c.fd,
  });
  assert.deepEqual(await send("query-fdsets", {}), [
    { "fdset-id": 0, fds: [{ fd: a.fd, opaque: "rdonly" }, { fd: c.fd }] },
    { "fdset-id": 1, fds: [{ fd: b.fd }] },
  ]);
  assert.deepEqual(await send("remove-fd", { "fdset-id": 0, fd: c.fd }), {});
  assert.equal(isOpen(c.fd), false);
  assert.equal(
    await send("remove-fd", { "fdset-id": 0, fd: c.fd }),
    `File descriptor named 'fdset-id:0, fd:${c.fd}' not found`,
  );
  assert.deepEqual(await send("remove-fd", { "fdset-id": 0 }), {});
  assert.equal(
    await send("remove-fd", { "fdset-id": 0 }),
    "File descriptor named 'fdset-id:0' not found",
  );
  assert.deepEqual(await send("remove-fd", { "fdset-id": 1 }), {});
  assert.equal(isOpen(a.fd) || isOpen(b.fd), false);
});

Deno.test("add-fd refuses a negative set, and closes the descriptor", async () => {
  const { send } = await connect();
  const { owned, fd } = passed();
  assert.equal(
    await send("add-fd", { "fdset-id": -1 }, [owned]),
    "Parameter 'fdset-id' expects a non-negative value",
  );
  assert.equal(isOpen(fd), false);
});

Deno.test("Sessions close descriptors that nobody has taken", async () => {
  const { session, transport } = await connect();
  const early = passed(), late = passed();
  await session.receive(latin1(" "), [early.owned]);
  assert.equal(isOpen(early.fd), true);
  session.close();
  assert.equal(isOpen(early.fd), false);
  await session.receive(latin1('{"execute":"stop"}'), [late.owned]);
  assert.equal(isOpen(late.fd), false);
  assert.equal(transport.take(), "");
});

Deno.test("human-monitor-command and HMP take descriptors too", async () => {
  const { machine, send } = await connect();
  const first = passed(), second = passed();
  await send("human-monitor-command", { "command-line": "getfd a" }, [first.owned]);
  assert.equal(machine.fds.take("a")?.fd, first.fd);
  const hmp = new HmpSession(machine, builtinCommands(), new FakeTransport());
  await hmp.receive(latin1("getfd b\r"), [second.owned]);
  assert.equal(machine.fds.named.get("b")?.fd, second.fd);
  machine.fds.closeAll();
  assert.equal(isOpen(second.fd), false);
  first.owned.close();
});
