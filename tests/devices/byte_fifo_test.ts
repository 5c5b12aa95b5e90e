import assert from "node:assert/strict";
import { ByteFifo, byteFifo } from "../../devices/isa/byte_fifo.ts";
import { FakeSink } from "./fake_context.ts";

const layout = byteFifo(4);

Deno.test("`push()` and `shift()` keep the order across the end of the ring", () => {
  const fifo = new ByteFifo(layout.alloc().view);
  for (let i = 0; i < 10; i++) {
    assert.ok(fifo.push(i));
    assert.ok(fifo.push(i + 100));
    assert.equal(fifo.length, 2);
    assert.equal(fifo.room, 2);
    assert.equal(fifo.at(1), i + 100);
    assert.deepEqual([fifo.shift(), fifo.shift()], [i, i + 100]);
  }
  assert.equal(fifo.shift(), 0);
  assert.equal(fifo.length, 0);
});

Deno.test("`push()` returns false and changes nothing when the queue is full", () => {
  const { bytes, view } = layout.alloc();
  const fifo = new ByteFifo(view);
  for (let i = 0; i < 4; i++) assert.ok(fifo.push(i));
  const before = bytes.slice();
  assert.equal(fifo.push(9), false);
  assert.deepEqual(bytes, before);
});

Deno.test("`drainTo()` goes on until the sink takes no more", () => {
  const fifo = new ByteFifo(layout.alloc({ head: 3 }).view);
  for (const byte of [1, 2, 3, 4]) fifo.push(byte);
  const sink = new FakeSink();
  sink.budget = 3;
  fifo.drainTo(sink);
  assert.deepEqual(sink.sent, [1, 2, 3]);
  assert.equal(fifo.length, 1);
  sink.budget = 9;
  fifo.drainTo(sink);
  assert.deepEqual(sink.sent, [1, 2, 3, 4]);
});

Deno.test("a damaged head and length reach only the queue's own bytes", () => {
  const { view } = layout.alloc({ head: 0xffff, length: 0xffff });
  const fifo = new ByteFifo(view);
  assert.equal(fifo.length, 4);
  assert.equal(fifo.push(1), false);
  assert.equal(fifo.shift(), 0);
  assert.ok(fifo.push(7));
  assert.deepEqual([...Array(4)].map(() => fifo.shift()), [0, 0, 0, 7]);
});

Deno.test("`normalise()` brings head and length into their bounds", () => {
  const { view } = layout.alloc({ head: 0xfffe, length: 0xffff });
  new ByteFifo(view).normalise();
  assert.equal(view.head, 2);
  assert.equal(view.length, 4);
});
