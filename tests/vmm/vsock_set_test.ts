/** Guests' numbers for sockets: who has one, when, and what if it is somebody else's. */
import assert from "node:assert/strict";
import { openVsockPort } from "../../devices/virtio/vsock_port.ts";
import { Errno } from "../../ffi/errno.ts";
import { makeEventfd } from "../../ffi/event.ts";
import { VhostVsock } from "../../ffi/vhost.ts";
import { type OpenVsock, VsockSet } from "../../vmm/vsock_set.ts";
import { patience } from "../patience.ts";

/** The host's kernel: who has which number. */
class Kernel {
  readonly owners = new Map<number, number>();
  refusal: number | undefined;
  /** How often a number was refused. */
  refused = 0;

  readonly open: OpenVsock = () => {
    const fd = makeEventfd();
    const number = fd.fd;
    const device = new VhostVsock(number, (_fd, request, bytes) => {
      if (request !== 0x4008_af60) return 0;
      const cid = new DataView(bytes!.buffer).getUint32(0, true);
      const other = this.owners.get(cid);
      if (this.refusal !== undefined || (other !== undefined && other !== number)) {
        this.refused++;
        return -(this.refusal ?? Errno.EADDRINUSE);
      }
      this.owners.set(cid, number);
      return 0;
    });
    const close = fd.close.bind(fd);
    fd.close = () => {
      for (const [cid, owner] of this.owners) if (owner === number) this.owners.delete(cid);
      close();
    };
    return { fd, device };
  };
}

function makeSet(kernel: Kernel, claimed: string[] = []): VsockSet {
  const host = { notice: () => {}, claimed: (id: string) => void claimed.push(id) };
  return new VsockSet(host, kernel.open);
}

async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + patience(60_000);
  while (!condition()) {
    assert(performance.now() < end, "waited in vain");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

Deno.test("a VMM that starts has its guest's number, or says why not", () => {
  const kernel = new Kernel();
  const first = makeSet(kernel);
  const { device } = openVsockPort(first.port("a", 5, false));
  assert.equal(device?.fd, kernel.owners.get(5));
  const second = makeSet(kernel);
  assert.throws(() => second.port("b", 5, false), {
    message: "vhost-vsock 'b': unable to set guest cid 5: Address already in use",
  });
  kernel.refusal = Errno.EINVAL;
  assert.throws(() => second.port("c", 6, false), {
    message: "vhost-vsock 'c': VHOST_VSOCK_SET_GUEST_CID: Invalid argument",
  });
  for (const set of [first, second]) set.close();
  assert.equal(kernel.owners.size, 0);
});

Deno.test("a successor has the number when its predecessor has let go of it, and tells its guest", async () => {
  const kernel = new Kernel();
  const claimed: string[] = [];
  const old = makeSet(kernel, claimed);
  const oldPort = openVsockPort(old.port("a", 5, false));
  const ours = () => oldPort.device?.fd;
  const next = makeSet(kernel, claimed);
  const nextPort = openVsockPort(next.port("a", 5, true));
  const theirs = () => nextPort.device?.fd;
  assert.equal(theirs(), undefined);
  assert.notEqual(ours(), undefined, "an update that fails costs nothing");
  next.arrive();
  await until(() => kernel.refused > 2);
  assert.deepEqual(claimed, []);
  old.letGo();
  assert.equal(ours(), undefined);
  await until(() => claimed.length > 0);
  assert.deepEqual(claimed, ["a"]);
  assert.equal(theirs(), kernel.owners.get(5));
  // A guest that is taken back, where the other has gone.
  assert.throws(() => old.takeBack(), { code: "EADDRINUSE" });
  next.letGo();
  old.takeBack();
  assert.deepEqual(claimed, ["a", "a"]);
  assert.equal(ours(), kernel.owners.get(5));
  old.takeBack();
  assert.equal(claimed.length, 2);
  for (const set of [old, next]) set.close();
});

Deno.test("a VMM that ends asks for nothing any more", async () => {
  const kernel = new Kernel();
  const claimed: string[] = [];
  const set = makeSet(kernel, claimed);
  set.port("a", 5, true);
  kernel.refusal = Errno.EADDRINUSE;
  set.arrive();
  await until(() => kernel.refused > 1);
  set.close();
  kernel.refusal = undefined;
  const { refused } = kernel;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual([kernel.refused, claimed, kernel.owners.size], [refused, [], 0]);
});
