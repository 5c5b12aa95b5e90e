/** The network card with a guest: frames go there and come back by every kind of backend. */
import assert from "node:assert/strict";
import { noLimits } from "../../devices/block/throttle.ts";
import { bytesWaiting } from "../../ffi/socket_queue.ts";
import { VhostDevice } from "../../ffi/vhost.ts";
import { type OwnedFd, writeFd } from "../../ffi/fd.ts";
import { socketPair, type SocketType } from "../../ffi/socket.ts";
import type { NetdevConfig } from "../../vmm/config.ts";
import { MachineView } from "../../vmm/view/machine_view.ts";
import { layout } from "../guests/programs.ts";
import { NetPeer, numberedFrame } from "../net_peer.ts";
import { noVhostNet, openHostEnd } from "../tap_peer.ts";
import "../tap_skips.ts";
import { kvmTest, sleep, TestVm, until } from "./harness.ts";

const card = (properties = {}) => [{
  driver: "virtio-net-device",
  properties: { netdev: "n", ...properties },
}];

/** A backend that was given one end of a pair of sockets, and the other end. */
function pair(type: SocketType): { netdev: NetdevConfig; ours: OwnedFd; theirs: OwnedFd } {
  const [ours, theirs] = socketPair(type, { nonblocking: true });
  const addr = { type: "fd", fd: theirs.fd } as const;
  return {
    ours,
    theirs,
    netdev: type === "stream"
      ? { type: "stream", id: "n", addr, server: false }
      : { type: "dgram", id: "n", local: addr },
  };
}

/** Lets frames go to and fro until so many more have come back. */
async function exchange(test: TestVm, peer: NetPeer, count: number): Promise<void> {
  const wanted = peer.returned + count;
  await until(() => {
    peer.pump();
    assert.doesNotMatch(test.text, /FAIL/);
    return peer.returned >= wanted;
  }, () => `${wanted} frames, there are ${peer.returned}`);
}

kvmTest(
  "a cable that is out lets nothing through, by the name of the card or of its backend",
  async () => {
    const folder = Deno.makeTempDirSync({ prefix: "denovo-net-" });
    using _folder = { [Symbol.dispose]: () => Deno.removeSync(folder, { recursive: true }) };
    const socket = `${folder}/socket`;
    const { netdev, ours, theirs } = pair("stream");
    using _theirs = theirs;
    using end = ours;
    await using test = await TestVm.start({
      program: "virtio_net",
      devices: card().map((one) => ({ ...one, id: "card" })),
      netdevs: [netdev],
    });
    await test.printed("net 52540123456 at irq");
    const view = new MachineView(test.vm);
    assert.deepEqual(view.netClients, [{
      name: "card",
      info: "index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56",
      peer: { name: "n", info: `index=0,type=stream,fd:${theirs.fd}` },
    }]);
    await view.netdevAdd(
      "dgram,id=m,local.type=unix,local.path=" + socket + ",remote.type=unix," +
        `remote.path=${socket}.other`,
    );
    assert.deepEqual(view.netClients.at(-1)!.name, "m");
    view.netdevDel("m");
    assert.equal(view.netClients.length, 1);
    assert.throws(() => view.netdevDel("m"), { message: "Device 'm' not found" });
    assert.throws(() => view.netdevDel("n"), {
      message: "Netdev 'n' is in use by 'card', and a card cannot be removed while the guest" +
        " runs: set_link n off pulls its cable",
    });
    const refused = (bus: string) => ({ message: `Bus '${bus}' does not support hotplugging` });
    assert.throws(() => view.deviceDel("card"), refused("virtio-mmio-bus.23"));
    for (
      const [driver, bus] of [
        ["virtio-rng-device", "virtio-mmio-bus.22"],
        ["vmgenid", "main-system-bus"],
        ["isa-debug-exit", "isa.0"],
      ]
    ) assert.throws(() => view.deviceAdd({ driver }), refused(bus));
    assert.throws(() => view.deviceAddOptions("virtconsole"), {
      message: "No 'virtio-serial-bus' bus found for device 'virtconsole'",
    });
    const peer = new NetPeer(end.fd, true);
    await exchange(test, peer, 20);
    await until(() => (peer.pump(false), peer.underWay === 0), () => "the last frame");
    const before = test.word(layout.counter);
    for (const [name, wrong] of [["n", "m"], ["card", "n0"]]) {
      view.setLink(name, false);
      assert.throws(() => view.setLink(wrong, false), { message: `Device '${wrong}' not found` });
      // The guest would say that its number is wrong.
      writeFd(end.fd, Uint8Array.from([0, 0, 0, 60, ...numberedFrame(9999, 60)]));
      await until(() => bytesWaiting(theirs.fd) === 0, () => "the card to take the frame");
      assert.equal(test.word(layout.counter), before);
      view.setLink(name, true);
    }
    await exchange(test, peer, 20);
    test.assertUnharmed();
  },
);

kvmTest(
  "frames count in their backend's throttle group, whose limits qom-set changes",
  async () => {
    const { netdev, ours, theirs } = pair("seqpacket");
    using _theirs = theirs;
    using end = ours;
    await using test = await TestVm.start({
      program: "virtio_net",
      throttleGroups: [{ qomType: "throttle-group", id: "tg", limits: noLimits }],
      devices: card(),
      netdevs: [{ ...netdev, throttleGroup: "tg" }],
    });
    await test.printed("net 52540123456 at irq");
    const view = new MachineView(test.vm);
    assert.match(view.netClients[0].peer!.info, /,throttle-group=tg$/);
    assert.throws(() => view.objectDel("tg"), {
      message: "object 'tg' is in use, can not be deleted",
    });
    await assert.rejects(
      async () => await view.netdevAdd("user,id=m,throttle-group=x"),
      { message: "Throttle group 'x' does not exist" },
    );
    const peer = new NetPeer(end.fd, false, () => 1000);
    await exchange(test, peer, 20);
    await until(() => (peer.pump(false), peer.underWay === 0), () => "the last frame");
    const received = () => test.word(layout.counter);
    const wanted = received() + 1;
    // One is begun, and the next one may come in a quarter of an hour.
    view.qomSet("tg", "limits", { "bps-read": 1 });
    peer.pump();
    await until(() => received() === wanted, () => `frame ${wanted}, and not ${received()}`);
    await sleep(20);
    assert.equal(received(), wanted);
    assert.ok(bytesWaiting(theirs.fd) > 0);
    view.qomSet("tg", "limits", { "bps-read": 0 });
    await exchange(test, peer, 50);
    test.assertUnharmed();
  },
);

for (const type of ["stream", "seqpacket"] as const) {
  for (const packed of [false, true]) {
    for (const merge of [false, true]) {
      const how = `${type}, packed: ${packed}, mergeable buffers: ${merge}`;
      kvmTest(`frames go to a guest and come back, over stops: ${how}`, async () => {
        const { netdev, ours, theirs } = pair(type);
        using _theirs = theirs;
        using end = ours;
        await using test = await TestVm.start({
          program: "virtio_net",
          append: merge ? "merge" : "",
          devices: card({ packed }),
          netdevs: [netdev],
        });
        await test.printed("net 52540123456 at irq");
        const peer = new NetPeer(end.fd, type === "stream");
        await exchange(test, peer, 30);
        for (let stop = 0; stop < 3; stop++) {
          test.vm.stop();
          peer.pump();
          await sleep(5);
          test.vm.cont();
          await exchange(test, peer, 30);
        }
        test.assertUnharmed();
      });
    }
  }
}

for (const pci of [false, true]) {
  kvmTest(
    `frames that the kernel serves go to a guest and come back, over stops, PCI: ${pci}`,
    async () => {
      const ifname = `dv${Number(pci)}${Deno.pid % 100_000}`;
      await using test = await TestVm.start({
        program: "virtio_net",
        // Without mergeable buffers, kernels before 6.13 leave the number of buffers at 0.
        append: pci ? "merge pci" : "merge",
        machine: { pcie: pci },
        devices: [{
          driver: pci ? "virtio-net-pci" : "virtio-net-device",
          properties: { netdev: "n" },
        }],
        netdevs: [{ type: "tap", id: "n", ifname, vhost: true }],
      });
      await test.printed("net 52540123456 at irq");
      using end = openHostEnd(ifname);
      const peer = new NetPeer(end.fd, false);
      const kernel = new VhostDevice(test.vm.netdevs.port("n").vhost![0].fd);
      await exchange(test, peer, 30);
      for (let stop = 0; stop < 3; stop++) {
        assert.throws(() => kernel.setOwner(), { code: "EBUSY" }, "the VMM serves");
        test.vm.stop();
        // Nobody has it now: a successor could.
        kernel.setOwner();
        kernel.resetOwner();
        peer.pump();
        test.vm.cont();
        await exchange(test, peer, 30);
      }
      test.assertUnharmed();
    },
    noVhostNet !== undefined,
  );
}
