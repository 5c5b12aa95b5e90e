import assert from "node:assert/strict";
import { Chain, DescriptorFlag, MalformedRing } from "../../../devices/virtio/chain.ts";
import { openQueue } from "../../../devices/virtio/queue.ts";
import { resetQueue, virtqueue } from "../../../devices/virtio/ring.ts";
import {
  DESC,
  DEVICE,
  DRIVER,
  PackedDriver,
  RAM,
  RAM_SIZE,
  SplitDriver,
  TABLE,
  TestMemory,
} from "./drivers.ts";

const BUFFERS = RAM + 0x1_0000;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (text: string) => new TextEncoder().encode(text);

const features = (packed: boolean, eventIndex: boolean) => ({
  packed,
  indirect: true,
  eventIndex,
});

function makeDriver(memory: TestMemory, packed: boolean, eventIndex = false, size = 8) {
  const Driver = packed ? PackedDriver : SplitDriver;
  return new Driver(memory, size, features(packed, eventIndex));
}

/** Answers a request with what it says, in capitals. */
function shout(chain: Chain): number {
  const into = new Uint8Array(chain.readable.length);
  chain.readable.copyOut(into);
  return chain.writable.copyIn(bytes(text(into).toUpperCase()));
}

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  for (const indirect of [false, true]) {
    Deno.test(`requests go round a ${name} ring for longer than it is, indirect: ${indirect}`, () => {
      const memory = new TestMemory();
      const driver = makeDriver(memory, packed);
      const chain = new Chain();
      assert.equal(driver.queue.pop(chain), false);
      for (let round = 0; round < 50; round++) {
        const word = `round ${round}`;
        memory.put(BUFFERS, bytes(word));
        const { id } = driver.add([
          { gpa: BUFFERS, length: 3 },
          { gpa: BUFFERS + 3, length: word.length - 3 },
          { gpa: BUFFERS + 0x1000, length: 64, writable: true },
        ], indirect);
        // In the middle of it all another process goes on with the state.
        if (round === 21) driver.reopen();
        assert(driver.queue.pop(chain));
        assert.equal(chain.readable.length, word.length);
        assert.equal(chain.writable.length, 64);
        assert.deepEqual(driver.take(), []);
        const changes = memory.changes;
        driver.queue.push(chain, shout(chain));
        assert.equal(memory.changes, changes + 1, "what was written may be code");
        assert.deepEqual(driver.take(), [], "nothing is seen before it is flushed");
        driver.queue.flush();
        assert.deepEqual(driver.take(), [{ id, written: word.length }]);
        assert.equal(text(memory.get(BUFFERS + 0x1000, word.length)), word.toUpperCase());
        assert.equal(driver.queue.pop(chain), false);
      }
    });
  }

  Deno.test(`several requests of a ${name} ring are given back at once, and one is put back`, () => {
    const memory = new TestMemory();
    const driver = makeDriver(memory, packed, false, 4);
    const chains = [new Chain(), new Chain(), new Chain(), new Chain()];
    for (let round = 0; round < 20; round++) {
      const ids = [1, 2, 3].map((length) =>
        driver.add([{ gpa: BUFFERS, length, writable: true }]).id
      );
      assert(chains.slice(0, 3).every((chain) => driver.queue.pop(chain)));
      assert.equal(driver.queue.pop(chains[3]), false);
      driver.queue.unpop(chains[2]);
      assert(driver.queue.pop(chains[3]));
      assert.equal(chains[3].writable.length, 3);
      for (const [i, chain] of [chains[0], chains[1], chains[3]].entries()) {
        driver.queue.push(chain, i);
      }
      driver.queue.flush();
      assert.deepEqual(driver.take(), ids.map((id, i) => ({ id, written: i })));
    }
  });

  Deno.test(`a ${name} ring interrupts when the driver wants it, by its flags`, () => {
    const memory = new TestMemory();
    const driver = makeDriver(memory, packed);
    const serve = () => {
      driver.add([{ gpa: BUFFERS, length: 1 }]);
      const chain = new Chain();
      assert(driver.queue.pop(chain));
      driver.queue.push(chain, 0);
      const interrupt = driver.queue.flush();
      assert.equal(driver.take().length, 1);
      return interrupt;
    };
    driver.wantInterrupt(0);
    assert.equal(driver.queue.flush(), false, "nothing was given back");
    assert.equal(serve(), true);
    driver.wantInterrupt(undefined);
    assert.equal(serve(), false);
    driver.wantInterrupt(0);
    assert.equal(serve(), true);
  });

  Deno.test(`a ${name} ring interrupts at the entry that the driver names`, () => {
    const memory = new TestMemory();
    const driver = makeDriver(memory, packed, true, 4);
    const chains = [new Chain(), new Chain(), new Chain()];
    const serve = (count: number) => {
      const some = chains.slice(0, count);
      for (const chain of some) {
        driver.add([{ gpa: BUFFERS, length: 1 }]);
        assert(driver.queue.pop(chain));
      }
      for (const chain of some) driver.queue.push(chain, 0);
      return driver.queue.flush();
    };
    // Often enough that 16-bit counters and the wrap counters come round.
    for (let round = 0; round < 100; round++) {
      driver.wantInterrupt(2);
      assert.equal(serve(2), false);
      assert.equal(serve(1), true, "the third");
      driver.take();
      assert.equal(serve(1), false, "it was told already");
      driver.take();
      driver.wantInterrupt(1);
      assert.equal(serve(3), true, "the second of three");
      driver.take();
    }
  });

  for (const eventIndex of [false, true]) {
    Deno.test(`a ${name} ring's driver tells of requests when asked, event index: ${eventIndex}`, () => {
      const memory = new TestMemory();
      const driver = makeDriver(memory, packed, eventIndex, 4);
      const chain = new Chain();
      const buffers = [{ gpa: BUFFERS, length: 1 }];
      for (let round = 0; round < 20; round++) {
        assert.equal(driver.queue.listen(), false);
        assert.equal(driver.add(buffers).kick, true);
        driver.queue.suppress();
        assert.equal(driver.add(buffers).kick, false);
        assert.equal(driver.queue.listen(), true, "there are two already");
        for (let i = 0; i < 2; i++) {
          assert(driver.queue.pop(chain));
          driver.queue.push(chain, 0);
        }
        driver.queue.flush();
        driver.take();
      }
    });
  }

  Deno.test(`a ${name} ring has to lie in memory, aligned`, () => {
    const memory = new TestMemory();
    const good = { desc_low: DESC, driver_low: DRIVER, device_low: DEVICE };
    const open = (change: object, size = 8) => {
      const { view } = virtqueue.alloc();
      resetQueue(view, size);
      Object.assign(view, good, change);
      return openQueue(view, memory, features(packed, false));
    };
    open({});
    for (
      const change of [
        { desc_low: RAM - 16 },
        { desc_low: DESC + 8 },
        { desc_low: RAM + RAM_SIZE - 16 * 7 },
        { desc_high: 1 },
        { desc_high: 0xffff_ffff, desc_low: 0xffff_fff0 },
        { driver_low: DRIVER + 1 },
        { driver_low: RAM + RAM_SIZE },
        { device_low: DEVICE + 2 },
        { device_high: 0x8000_0000 },
      ]
    ) {
      assert.throws(() => open(change), MalformedRing, JSON.stringify(change));
    }
    assert.throws(() => open({}, 0), MalformedRing);
    if (packed) assert.throws(() => open({ next_avail: 8 }), MalformedRing);
    else assert.throws(() => open({}, 12), MalformedRing);
  });

  const broken = {
    "length 0": [{ gpa: BUFFERS, length: 0 }],
    "no memory": [{ gpa: RAM + RAM_SIZE - 4, length: 5 }],
    "an address near 2^64": [{ gpa: 0xffff_ffff_ffff_f000, length: 0x1000 }],
    "a length near 2^32": [{ gpa: BUFFERS, length: 0xffff_ffff }],
    "readable after writable": [
      { gpa: BUFFERS, length: 1, writable: true },
      { gpa: BUFFERS, length: 1 },
    ],
  };
  for (const indirect of [false, true]) {
    for (const [what, buffers] of Object.entries(broken)) {
      Deno.test(`a ${name} ring with ${what} is malformed, indirect: ${indirect}`, () => {
        const memory = new TestMemory();
        const driver = makeDriver(memory, packed);
        driver.add(buffers, indirect);
        assert.throws(() => driver.queue.pop(new Chain()), MalformedRing);
      });
    }
  }
}

function split(memory: TestMemory, indirect = true) {
  return new SplitDriver(memory, 8, { packed: false, indirect, eventIndex: false });
}

/** A head in a split ring with one descriptor of these fields. */
const heads: Record<string, [length: number, flags: number, next: number, message: RegExp]> = {
  "a chain that is a loop": [1, DescriptorFlag.NEXT, 0, /^Looped descriptor$/],
  "a next that is not in the ring": [1, DescriptorFlag.NEXT, 8, /^Desc next is 8$/],
  "a table that is none": [8, DescriptorFlag.INDIRECT, 0, /^Invalid size for indirect/],
  "an empty table": [0, DescriptorFlag.INDIRECT, 0, /^Invalid size for indirect/],
  "a huge table": [0x1_0000, DescriptorFlag.INDIRECT, 0, /^Invalid size for indirect/],
  "a table and a next": [16, DescriptorFlag.INDIRECT | DescriptorFlag.NEXT, 1, /none is allowed$/],
};

for (const [what, [length, flags, next, message]] of Object.entries(heads)) {
  Deno.test(`a split ring with ${what} is malformed`, () => {
    const memory = new TestMemory();
    const driver = split(memory);
    driver.describe(DESC, BUFFERS, length, flags, next);
    driver.show(0);
    assert.throws(() => driver.queue.pop(new Chain()), { name: "MalformedRing", message });
  });
}

Deno.test("a split ring's head and index are checked", () => {
  const memory = new TestMemory();
  const driver = split(memory);
  driver.show(8);
  const chain = new Chain();
  assert.throws(() => driver.queue.pop(chain), { message: "Guest says index 8 is available" });
  memory.data.setUint16(DRIVER - RAM + 2, 9, true);
  assert.throws(() => driver.queue.pop(chain), { message: "Guest moved used index from 0 to 9" });
  memory.data.setUint16(DRIVER - RAM + 2, 0xffff, true);
  assert.throws(() => driver.queue.pop(chain), MalformedRing);
});

Deno.test("a table within a table, a loop in one, and a next outside of one are malformed", () => {
  const memory = new TestMemory();
  const cases: [flags: number, next: number, message: RegExp][] = [
    [DescriptorFlag.INDIRECT, 0, /none is allowed$/],
    [DescriptorFlag.NEXT, 0, /^Looped descriptor$/],
    [DescriptorFlag.NEXT, 2, /^Desc next is 2$/],
  ];
  for (const [flags, next, message] of cases) {
    const driver = split(memory);
    memory.clear();
    driver.describe(DESC, TABLE, 32, DescriptorFlag.INDIRECT, 0);
    driver.describe(TABLE, BUFFERS, 16, flags, next);
    driver.show(0);
    assert.throws(() => driver.queue.pop(new Chain()), { name: "MalformedRing", message });
  }
});

Deno.test("an indirect table ends a chain of plain descriptors in a split ring", () => {
  const memory = new TestMemory();
  const driver = split(memory);
  driver.describe(DESC, BUFFERS, 2, DescriptorFlag.NEXT, 1);
  driver.describe(DESC + 16, TABLE, 16, DescriptorFlag.INDIRECT, 0);
  driver.describe(TABLE, BUFFERS + 0x100, 3, 0, 0);
  driver.show(0);
  const chain = new Chain();
  assert(driver.queue.pop(chain));
  assert.equal(chain.readable.length, 5);
});

Deno.test("indirect descriptors that were not agreed on are malformed", () => {
  const memory = new TestMemory();
  const one = split(memory, false);
  one.add([{ gpa: BUFFERS, length: 1 }], true);
  assert.throws(() => one.queue.pop(new Chain()), MalformedRing);
  memory.clear();
  const other = new PackedDriver(memory, 8, { packed: true, indirect: false, eventIndex: false });
  other.add([{ gpa: BUFFERS, length: 1 }], true);
  assert.throws(() => other.queue.pop(new Chain()), MalformedRing);
});

Deno.test("a packed ring's chain cannot be longer than the ring, nor a table be part of one", () => {
  const memory = new TestMemory();
  const driver = new PackedDriver(memory, 4, features(true, false));
  for (let i = 0; i < 4; i++) driver.place(BUFFERS, 1, i, DescriptorFlag.NEXT);
  assert.throws(() => driver.queue.pop(new Chain()), { message: "Looped descriptor" });
  for (const flags of [[DescriptorFlag.NEXT, DescriptorFlag.INDIRECT], [5, 0]]) {
    memory.clear();
    const other = new PackedDriver(memory, 4, features(true, false));
    for (const [i, flag] of flags.entries()) other.place(TABLE, 16, i, flag);
    assert.throws(() => other.queue.pop(new Chain()), MalformedRing);
  }
});

Deno.test("a packed ring's driver cannot have more given back at once than the ring holds", () => {
  const memory = new TestMemory();
  const driver = new PackedDriver(memory, 2, features(true, false));
  const chain = new Chain();
  for (let i = 0; i < 2; i++) {
    driver.place(BUFFERS, 1, i, 0);
    assert(driver.queue.pop(chain));
    driver.queue.push(chain, 0);
  }
  driver.place(BUFFERS, 1, 2, 0);
  assert(driver.queue.pop(chain), "made available before it was given back");
  assert.throws(() => driver.queue.push(chain, 0), MalformedRing);
});
