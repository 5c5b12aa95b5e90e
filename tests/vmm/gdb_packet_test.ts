/** gdb's packets: bytes in, bytes out. */
import assert from "node:assert/strict";
import { encodePacket, MAX_PACKET, PacketReader } from "../../vmm/gdb/packet.ts";
import { toBytes, toLatin1 } from "../../vmm/monitor/latin1.ts";

/** What comes out for these pieces of input: packets as text, the rest by their kinds. */
function read(...pieces: string[]): string[] {
  const reader = new PacketReader();
  return pieces.flatMap((piece) =>
    [...reader.read(toBytes(piece))].map((incoming) =>
      incoming.kind === "packet" ? `$${toLatin1(incoming.data)}` : incoming.kind
    )
  );
}

Deno.test("read() cuts a stream into packets, wherever it is torn", () => {
  const stream = "+$qSupported:a#3f\x03-$g#67$#00+";
  const expected = ["$qSupported:a", "interrupt", "again", "$g", "$"];
  const bad = stream.replace("#3f", "#00");
  // The checksum is computed rather than looked up.
  const good = toLatin1(encodePacket("qSupported:a")) + stream.slice(stream.indexOf("\x03"));
  assert.deepEqual(read(good), expected);
  assert.deepEqual(read(...good), expected);
  assert.deepEqual(read(bad), ["broken", ...expected.slice(1)]);
});

Deno.test("read() takes escaped bytes, and begins anew at a second `$`", () => {
  assert.deepEqual(read(toLatin1(encodePacket("a}b#c$d*e"))), ["$a}b#c$d*e"]);
  assert.deepEqual(read("$lost$g#67"), ["$g"]);
  assert.deepEqual(read("$g#6", "7"), ["$g"]);
  assert.deepEqual(read("noise"), []);
  assert.equal(toLatin1(encodePacket("}")), "$}]#da");
});

Deno.test("read() refuses a packet that does not end", () => {
  const reader = new PacketReader();
  assert.throws(
    () => [...reader.read(toBytes(`$${"x".repeat(MAX_PACKET + 1)}`))],
    /^Error: A packet of gdb's is longer than 16384 bytes$/,
  );
});
