/**
 * Replies of QEMU 11.1.3 to wrong usage of QMP, replayed: each line is sent, its replies must match.
 *
 * Two things differ on purpose: out-of-band execution is not offered, and so its lines have other
 * replies; and the version names the package that answers.
 */
import assert from "node:assert/strict";
import { builtinCommands } from "../../vmm/monitor/builtin_commands.ts";
import { QmpSession } from "../../vmm/monitor/qmp.ts";
import { FakeMachine, FakeTransport, latin1 } from "../vmm/monitor_fake_machine.ts";

const generic = (desc: string) => `{"error": {"class": "GenericError", "desc": ${quote(desc)}}}`;
const notFound = (desc: string) =>
  `{"error": {"class": "CommandNotFound", "desc": ${quote(desc)}}}`;
const quote = (text: string) => JSON.stringify(text).replaceAll("\ufffd", "\\uFFFD");
const running = '{"return": {"status": "running", "running": true}}';

const recording: [sent: string, ...replies: string[]][] = [
  [
    '{"execute": "query-status"}',
    notFound("Expecting capabilities negotiation with 'qmp_capabilities'"),
  ],
  [
    '{"execute": "qmp_capabilities", "arguments": {"enable": ["nope"]}}',
    generic("Parameter 'null' does not accept value 'nope'"),
  ],
  // QEMU was asked for oob here.
  ['{"execute": "qmp_capabilities"}', '{"return": {}}'],
  [
    '{"execute": "qmp_capabilities"}',
    notFound("Capabilities negotiation is already complete, command ignored"),
  ],
  [
    '{"execute": "query-version"}',
    '{"return": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "denovo-0.1.0"}}',
  ],
  ['{"execute": "no-such-command"}', notFound("The command no-such-command has not been found")],
  ['{"execute": "query-status"'],
  ["}", running],
  ['{"execute": query}', generic("9:13: JSON parse error, invalid keyword 'query'")],
  ['{ "execute" "x" }', generic("10:13: JSON parse error, expecting ':'")],
  ["[1,2]", generic("QMP input must be a JSON object")],
  ['"abc"', generic("QMP input must be a JSON object")],
  ["nonsense", generic("13:1: JSON parse error, invalid keyword 'nonsense'")],
  ["{}", generic("QMP input lacks member 'execute'")],
  ['{"arguments":{}}', generic("QMP input lacks member 'execute'")],
  ['{"execute": 5}', generic("QMP input member 'execute' must be a string")],
  [
    '{"execute":"query-status","arguments":5}',
    generic("QMP input member 'arguments' must be an object"),
  ],
  ['{"execute":"query-status","arguments":{"x":1}}', generic("Parameter 'x' is unexpected")],
  ['{"execute":"query-status","foo":1}', generic("QMP input member 'foo' is unexpected")],
  [
    '{"execute":"query-status","id":"abc"}',
    '{"return": {"status": "running", "running": true}, "id": "abc"}',
  ],
  [
    '{"execute":"no-such","id":{"n":[1,2]}}',
    '{"id": {"n": [1, 2]}, "error": {"class": "CommandNotFound", ' +
    '"desc": "The command no-such has not been found"}}',
  ],
  // QEMU, with oob negotiated, names commands that do not support it.
  [
    '{"exec-oob":"query-status","id":1}',
    '{"id": 1, "error": {"class": "GenericError", ' +
    '"desc": "QMP input member \'exec-oob\' is unexpected"}}',
  ],
  [
    '{"exec-oob":"migrate-pause","id":2}',
    '{"id": 2, "error": {"class": "GenericError", ' +
    '"desc": "QMP input member \'exec-oob\' is unexpected"}}',
  ],
  ["{'execute':'query-status'}", running],
  [
    '{"execute":"\xff\xfe"}',
    generic("25:12: JSON parse error, stray '\"\ufffd'"),
    generic("25:15: JSON parse error, stray '\ufffd'"),
    generic("25:17: JSON parse error, expecting value"),
  ],
];

Deno.test("QmpSession answers wrong usage as QEMU 11.1.3 does", async () => {
  const transport = new FakeTransport();
  const session = new QmpSession(new FakeMachine(), builtinCommands(), transport);
  for (const [sent, ...replies] of recording) {
    transport.take();
    await session.receive(latin1(`${sent}\n`));
    const lines = transport.take().split("\r\n").filter((line) => line !== "");
    assert.deepEqual(lines, replies, sent);
  }
});
