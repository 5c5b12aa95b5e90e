import assert from "node:assert/strict";
import { stampMessage } from "../../vmm/messages.ts";

const now = Date.UTC(2026, 10, 29, 8, 5, 3, 7) * 1000 + 42;

Deno.test("stampMessage() puts time and name before a message as QEMU does", () => {
  const stamp = (timestamp: boolean, guestName: boolean, name?: string) =>
    stampMessage({ messages: { timestamp, guestName }, name }, "denovo: text", now);
  assert.equal(stamp(false, false, "web"), "denovo: text");
  assert.equal(stamp(true, false, "web"), "2026-11-29T08:05:03.007042Z denovo: text");
  assert.equal(stamp(false, true, "web"), "web denovo: text");
  assert.equal(stamp(true, true, "web"), "2026-11-29T08:05:03.007042Z web denovo: text");
  assert.equal(stamp(false, true), "denovo: text");
  assert.equal(stampMessage(undefined, "denovo: text"), "denovo: text");
});

Deno.test("stampMessage() tells the time by itself", () => {
  const before = Date.now() - 1000;
  const config = { messages: { timestamp: true, guestName: false } };
  const [stamp] = stampMessage(config, "text").split(" ");
  const told = Date.parse(stamp);
  assert.ok(told >= before && told <= Date.now() + 1000, stamp);
});
