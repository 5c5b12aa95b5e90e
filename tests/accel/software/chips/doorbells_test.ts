/** Doorbells, as KVM's ioeventfds. */
import assert from "node:assert/strict";
import { type Doorbell, Doorbells } from "../../../../vmm/accel/software/chips/doorbells.ts";

function bell(rung: string[], name: string, options: Partial<Doorbell> = {}): Doorbell {
  return { space: "mmio", address: 0x1000, size: 4, ring: () => rung.push(name), ...options };
}

Deno.test("write() rings what matches space, address, size and value", () => {
  const rung: string[] = [];
  const doorbells = new Doorbells();
  doorbells.add(bell(rung, "one", { value: 1 }));
  doorbells.add(bell(rung, "two", { value: 2 }));
  doorbells.add(bell(rung, "byte", { size: 1 }));
  doorbells.add(bell(rung, "any", { address: 0x2000, size: 0 }));
  doorbells.add(bell(rung, "port", { space: "pio", size: 2 }));
  assert.ok(doorbells.write("mmio", 0x1000, 4, 2));
  assert.ok(doorbells.write("mmio", 0x1000, 4, 1));
  assert.ok(!doorbells.write("mmio", 0x1000, 4, 3));
  assert.ok(!doorbells.write("mmio", 0x1001, 4, 1));
  assert.ok(doorbells.write("mmio", 0x1000, 1, 0xff));
  assert.ok(!doorbells.write("mmio", 0x1000, 2, 1));
  assert.ok(doorbells.write("mmio", 0x2000, 1, 7));
  assert.ok(doorbells.write("mmio", 0x2000, 4, 7));
  assert.ok(doorbells.write("pio", 0x1000, 2, 0));
  assert.ok(!doorbells.write("pio", 0x2000, 2, 0));
  assert.deepEqual(rung, ["two", "one", "byte", "any", "any", "port"]);
});

Deno.test("add() refuses what another one would ring for too, until that is removed", () => {
  const rung: string[] = [];
  const doorbells = new Doorbells();
  const first = bell(rung, "first", { value: 1 });
  doorbells.add(first);
  for (const other of [{ value: 1 }, {}, { size: 0, value: 1 }]) {
    assert.throws(
      () => doorbells.add(bell(rung, "other", other)),
      /^Error: There is a doorbell at mmio address 0x1000 already$/,
    );
  }
  doorbells.remove(first);
  doorbells.remove(first);
  assert.ok(!doorbells.write("mmio", 0x1000, 4, 1));
  doorbells.add(bell(rung, "other"));
  assert.ok(doorbells.write("mmio", 0x1000, 4, 1));
  assert.deepEqual(rung, ["other"]);
});
