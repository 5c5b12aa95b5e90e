import assert from "node:assert/strict";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { defineCommand } from "../../vmm/monitor/command.ts";
import { QmpSession } from "../../vmm/monitor/qmp.ts";
import { FakeMachine, FakeTransport, latin1 } from "./monitor_fake_machine.ts";

const encode = (text: string) => new TextEncoder().encode(text);

/** A session and a way to talk to it; negotiated unless said otherwise. */
async function connect({ negotiate = true, pretty = false } = {}) {
  const machine = new FakeMachine();
  const table = builtinCommands();
  const transport = new FakeTransport();
  const session = new QmpSession(machine, table, transport, { pretty });
  const send = async (text: string) => {
    transport.take();
    await session.receive(encode(text));
    return transport.take();
  };
  if (negotiate) assert.equal(await send('{"execute":"qmp_capabilities"}'), '{"return": {}}\r\n');
  return { machine, table, transport, session, send };
}

/** The `desc` of the error reply to a command. */
async function descOf(text: string): Promise<string> {
  const { send } = await connect();
  return JSON.parse(await send(text)).error.desc;
}

Deno.test("QmpSession greets with the version of QEMU's protocol and its own name", async () => {
  const { transport } = await connect({ negotiate: false });
  assert.equal(
    transport.take(),
    '{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, ' +
      '"package": "denovo-0.1.0"}, "capabilities": []}}\r\n',
  );
});

Deno.test("QmpSession wants capabilities negotiated first, and once", async () => {
  const { send } = await connect({ negotiate: false });
  const expecting = '{"error": {"class": "CommandNotFound", ' +
    '"desc": "Expecting capabilities negotiation with \'qmp_capabilities\'"}}\r\n';
  assert.equal(await send('{"execute": "query-status", "arguments": {"x": 1}}'), expecting);
  const oob = '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}';
  assert.match(await send(oob), /"desc": "Capabilities not available: oob"/);
  assert.equal(await send('{"execute": "query-status"}'), expecting);
  assert.equal(await send('{"execute": "qmp_capabilities"}'), '{"return": {}}\r\n');
  assert.match(
    await send('{"execute": "qmp_capabilities"}'),
    /"CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"/,
  );
});

Deno.test("QmpSession returns the id, first in errors and last in results", async () => {
  const { send } = await connect();
  assert.equal(
    await send('{"execute":"query-status","id":"abc"}'),
    '{"return": {"status": "running", "running": true}, "id": "abc"}\r\n',
  );
  assert.equal(
    await send('{"execute":"no-such","id":{"n":[1,2]}}'),
    '{"id": {"n": [1, 2]}, "error": {"class": "CommandNotFound", ' +
      '"desc": "The command no-such has not been found"}}\r\n',
  );
  assert.match(
    await send('{"execute":"stop","id":18446744073709551615}'),
    /"id": 18446744073709551615}/,
  );
  assert.match(await send('{"execute":"stop","id":null}'), /"id": null}/);
});

Deno.test("QmpSession executes commands in order, also asynchronous ones", async () => {
  const { table, send } = await connect();
  const slow = Promise.withResolvers<void>();
  table.add(defineCommand({ name: "slow", help: "", handler: () => slow.promise }));
  const replies = send('{"execute":"slow","id":1}{"execute":"stop","id":2}');
  slow.resolve();
  const lines = (await replies).trimEnd().split("\r\n").map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => line.id ?? line.event), [1, "STOP", 2]);
});

Deno.test("QmpSession sends events after negotiation, before the reply that follows", async () => {
  const { machine, transport, session, send } = await connect({ negotiate: false });
  transport.take();
  machine.events.emit("POWERDOWN");
  assert.equal(transport.take(), "");
  await send('{"execute":"qmp_capabilities"}');
  machine.events.emit("RESET", { guest: true, reason: "guest-reset" });
  assert.match(
    transport.take(),
    /^\{"timestamp": \{"seconds": \d+, "microseconds": \d+\}, "event": "RESET", "data": \{"guest": true, "reason": "guest-reset"\}\}\r\n$/,
  );
  const lines = (await send('{"execute":"stop"}')).split("\r\n");
  assert.match(lines[0], /"event": "STOP"}$/);
  assert.equal(lines[1], '{"return": {}}');
  session.close();
  machine.events.emit("POWERDOWN");
  assert.equal(transport.take(), "");
  assert.equal(transport.closed, true);
});

Deno.test("QmpSession writes one member a line when pretty", async () => {
  const { send } = await connect({ negotiate: false, pretty: true });
  assert.equal(await send('{"execute":"qmp_capabilities"}'), '{\n    "return": {\n    }\n}\r\n');
});

Deno.test("QmpSession rejects what is no command", async () => {
  const cases = [
    ["[1,2]", "QMP input must be a JSON object"],
    ['"abc"', "QMP input must be a JSON object"],
    ["{}", "QMP input lacks member 'execute'"],
    ['{"arguments":{}}', "QMP input lacks member 'execute'"],
    ['{"execute": 5}', "QMP input member 'execute' must be a string"],
    ['{"execute":"stop","arguments":5}', "QMP input member 'arguments' must be an object"],
    ['{"execute":"stop","foo":1}', "QMP input member 'foo' is unexpected"],
    ['{"exec-oob":"stop"}', "QMP input member 'exec-oob' is unexpected"],
  ];
  for (const [text, desc] of cases) assert.equal(await descOf(text), desc);
});

Deno.test("QmpSession says which argument is wrong", async () => {
  const chardev = (data: string) =>
    `{"execute":"chardev-add","arguments":{"id":"c","backend":${data}}}`;
  const socket = (addr: string) => chardev(`{"type":"socket","data":{"addr":${addr}}}`);
  const cases = [
    ['{"execute":"query-status","arguments":{"x":1}}', "Parameter 'x' is unexpected"],
    ['{"execute":"getfd"}', "Parameter 'fdname' is missing"],
    ['{"execute":"getfd","arguments":{"b":1}}', "Parameter 'fdname' is missing"],
    ['{"execute":"getfd","arguments":{"fdname":"a","b":1}}', "Parameter 'b' is unexpected"],
    [
      '{"execute":"getfd","arguments":{"fdname":1}}',
      "Invalid parameter type for 'fdname', expected: string",
    ],
    [
      '{"execute":"getfd","arguments":{"fdname":null}}',
      "Invalid parameter type for 'fdname', expected: string",
    ],
    ...["1.5", '"1"', "99999999999999999999", "9223372036854775808"].map((id) => [
      `{"execute":"add-fd","arguments":{"fdset-id":${id}}}`,
      "Invalid parameter type for 'fdset-id', expected: integer",
    ]),
    ...["9223372036854775808", '"0"', "0.5"].map((val) => [
      `{"execute":"pmemsave","arguments":{"val":${val},"size":1,"filename":"x"}}`,
      "Invalid parameter type for 'val', expected: integer",
    ]),
    [
      '{"execute":"set-action","arguments":{"reboot":"x"}}',
      "Parameter 'reboot' does not accept value 'x'",
    ],
    [
      '{"execute":"set-action","arguments":{"reboot":5}}',
      "Invalid parameter type for 'reboot', expected: string",
    ],
    [
      '{"execute":"object-add","arguments":{"qom-type":"nope","id":"m2"}}',
      "Parameter 'qom-type' does not accept value 'nope'",
    ],
    ['{"execute":"object-add","arguments":{"id":"m2"}}', "Parameter 'qom-type' is missing"],
    [
      '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m","size":"1M"}}',
      "Parameter 'size' expects uint64",
    ],
    [
      '{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"m"}}',
      "Parameter 'size' is missing",
    ],
    [chardev("7"), "Invalid parameter type for 'backend', expected: object"],
    [chardev('{"type":"null"}'), "Parameter 'backend.data' is missing"],
    [chardev('{"type":"nope","data":{}}'), "Parameter 'type' does not accept value 'nope'"],
    [socket("{}"), "Parameter 'backend.data.addr.type' is missing"],
    [
      socket('{"type":5}'),
      "Invalid parameter type for 'backend.data.addr.type', expected: string",
    ],
    [
      socket('{"type":"unix","data":{}}'),
      "Parameter 'backend.data.addr.data.path' is missing",
    ],
    [
      socket('{"type":"unix","data":{"path":"x","z":1}}'),
      "Parameter 'backend.data.addr.data.z' is unexpected",
    ],
  ];
  for (const [text, desc] of cases) assert.equal(await descOf(text), desc, text);
});

Deno.test("QmpSession names list elements as QAPI does", async () => {
  const { send } = await connect({ negotiate: false });
  const enable = async (list: string) =>
    JSON.parse(await send(`{"execute":"qmp_capabilities","arguments":{"enable":${list}}}`)).error
      .desc;
  assert.equal(await enable('["nope"]'), "Parameter 'null' does not accept value 'nope'");
  assert.equal(await enable('"x"'), "Invalid parameter type for 'enable', expected: array");
  assert.equal(await enable("[5]"), "Invalid parameter type for 'enable[0]', expected: string");
});

Deno.test("QmpSession gives errors the class that clients act on", async () => {
  const { send } = await connect();
  assert.equal(
    await send('{"execute":"device_del","arguments":{"id":"nope"}}'),
    '{"error": {"class": "DeviceNotFound", "desc": "Device \'nope\' not found"}}\r\n',
  );
  assert.equal(
    await send('{"execute":"system_wakeup"}'),
    '{"error": {"class": "GenericError", ' +
      '"desc": "Unable to wake up: guest is not in suspended state"}}\r\n',
  );
});

Deno.test("QmpSession refuses a command that the run state does not allow", async () => {
  const { machine, send } = await connect();
  machine.runState = "finish-migrate";
  for (
    const command of [
      '{"execute":"object-del","arguments":{"id":"x"}}',
      '{"execute":"human-monitor-command","arguments":{"command-line":"object_add x"}}',
    ]
  ) {
    assert.match(
      await send(command),
      /The command 'object-\w+' isn't permitted in 'finish-migrate' state/,
    );
  }
});

Deno.test("QmpSession survives bytes that are no UTF-8", async () => {
  const { session, transport } = await connect();
  await session.receive(latin1('{"execute":"\xff\xfe"}\n{"execute":"query-name"}\n'));
  const lines = transport.take().trimEnd().split("\r\n");
  assert.equal(lines.length, 4);
  assert.equal(lines[3], '{"return": {"name": "vm1"}}');
});
