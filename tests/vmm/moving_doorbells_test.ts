import assert from "node:assert/strict";
import { RangeBases } from "../../vmm/bus/bases.ts";
import { MovingDoorbells } from "../../vmm/bus/moving_doorbells.ts";

/** Two disks with two queues each, as two threads have them. */
function makeThreads() {
  const calls: string[] = [];
  const call = (what: string) => (address: number, fd: number) =>
    void calls.push(`${what} ${fd} at 0x${address.toString(16)}`);
  const lines = {
    setLine: () => {},
    sendMsi: () => {},
    ramWritten: () => {},
    connectDoorbell: call("+"),
    disconnectDoorbell: call("-"),
  };
  const devices = [0, 1].map((i) => ({
    type: "virtio-blk-pci",
    properties: { "num-queues": 2, "queue-size": 8, vectors: 0, ...blockSizes },
    ranges: [
      { space: "mmio", base: 0xe000_0000 + 0x8000 * i, size: 0x1000, name: "pcie-ecam" },
      { space: "mmio", size: 0x4000, name: "registers", slot: i },
    ] as const,
    doorbellFds: [10 * i + 1, 10 * i + 2],
  }));
  const words = MovingDoorbells.allocate();
  const buffer = RangeBases.allocate(2);
  const [one, other] = [0, 1].map(() => {
    const doorbells = new MovingDoorbells(words, new RangeBases(buffer), lines);
    doorbells.change(devices);
    return doorbells;
  });
  return { one, other, taken: () => calls.splice(0), bases: new RangeBases(buffer) };
}

const blockSizes = {
  ...{ logical_block_size: 512, physical_block_size: 512 },
  ...{ "max-discard-sectors": 1, "max-write-zeroes-sectors": 1 },
};

Deno.test("doorbells are connected where their ranges are, once, and not by who moves them", () => {
  const { one, other, taken, bases } = makeThreads();
  one.move(0, 0xc000_0000);
  assert.deepEqual(taken(), []);
  assert.equal(bases.get(0), 0xc000_0000);
  other.connect();
  assert.deepEqual(taken(), ["+ 1 at 0xc0003000", "+ 2 at 0xc0003004"]);
  one.connect();
  other.connect();
  one.move(0, 0xc000_0000);
  assert.deepEqual(taken(), [], "nothing has moved");
});

Deno.test("before a range moves all doorbells are disconnected, and then where they are", () => {
  const { one, other, taken } = makeThreads();
  one.move(0, 0xc000_0000);
  one.move(1, 0xc001_0000);
  one.connect();
  taken();
  const all = ["1 at 0xc0003000", "2 at 0xc0003004", "11 at 0xc0013000", "12 at 0xc0013004"];
  other.move(1, undefined);
  assert.deepEqual(taken(), all.map((one) => `- ${one}`));
  other.move(1, 0xc002_0000);
  other.move(0, undefined);
  assert.deepEqual(taken(), []);
  one.connect();
  assert.deepEqual(taken(), ["+ 11 at 0xc0023000", "+ 12 at 0xc0023004"]);
});

Deno.test("a range that is in another one's way has no doorbells", () => {
  const { one, taken } = makeThreads();
  one.move(0, 0xc000_0000);
  one.move(1, 0xc000_3000);
  one.connect();
  assert.deepEqual(taken(), ["+ 1 at 0xc0003000", "+ 2 at 0xc0003004"]);
  one.move(0, 0xe000_0000);
  taken();
  one.connect();
  assert.deepEqual(taken(), ["+ 11 at 0xc0006000", "+ 12 at 0xc0006004"]);
});
