/** Migration channels of every kind: URIs, JSON, dotted keys, descriptors that a client passed. */
import assert from "node:assert/strict";
import { makePipe, O, openFile, type OwnedFd } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/socket.ts";
import {
  beginTransfer,
  kvmTest,
  Laboratory,
  listens,
  program,
  type Qmp,
  setExec,
  startSuccessor,
  unixChannel,
  until,
  type Vmm,
} from "./program.ts";
import { PassingClient } from "./session.ts";

/** Passes a descriptor by a second monitor. */
async function pass(lab: Laboratory, fd: OwnedFd, name: string): Promise<void> {
  using client = await PassingClient.to(lab.path("passing"));
  assert.deepEqual(await client.call("getfd", { fdname: name }, [fd.fd]), { return: {} });
  fd.close();
}

/** A second monitor for clients that pass descriptors. */
function passing(lab: Laboratory): string[] {
  return ["-qmp", `unix:${lab.path("passing")},server=on,wait=off`];
}

/** Saves the guest by cpr-reboot, whatever the channel is. */
async function save(qmp: Qmp, args: object): Promise<void> {
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  await qmp.execute("migrate", args);
  await until(
    () => qmp.log.includes("MIGRATION completed") || qmp.log.includes("MIGRATION failed"),
    () => `an end in ${qmp.log}`,
  );
  assert.ok(qmp.log.includes("MIGRATION completed"), JSON.stringify(await qmp.migration()));
}

async function assertLoads(lab: Laboratory, ...incoming: string[]): Promise<Vmm> {
  const serial = `file:${lab.path("new.serial")}`;
  const vmm = lab.start("new", { serial, options: incoming.flatMap((one) => ["-incoming", one]) });
  const qmp = await lab.monitor(vmm);
  await qmp.reaches("running");
  await qmp.assertGuestRuns();
  return vmm;
}

for (const offset of ["4096", "0x1000", "4k"]) {
  kvmTest(
    `file:PATH,offset=${offset} leaves what is before it, and is read from there`,
    async () => {
      await using lab = await Laboratory.open();
      const { qmp } = await lab.run("old");
      const path = lab.path("state");
      Deno.writeFileSync(path, new Uint8Array(8192).fill(0x55));
      await save(qmp, { uri: `file:${path},offset=${offset}` });
      const bytes = Deno.readFileSync(path);
      assert.ok(bytes.subarray(0, 4096).every((byte) => byte === 0x55));
      assert.notEqual(bytes[4096], 0x55);
      await qmp.execute("quit");
      await assertLoads(lab, `file:${path},offset=${offset}`);
    },
  );
}

kvmTest("`fd:NAME` writes into a pipe, and `fd:N` reads from the descriptor N", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old", { options: passing(lab) });
  const [reader, writer] = makePipe();
  await pass(lab, writer, "out");
  const serial = `file:${lab.path("new.serial")}`;
  const vmm = lab.start("new", { serial, fds: [[reader.fd, 8]], options: ["-incoming", "fd:8"] });
  reader.close();
  await save(qmp, { uri: "fd:out" });
  const next = await lab.monitor(vmm);
  await next.reaches("running");
  await next.assertGuestRuns();
  // The descriptor was used up.
  await qmp.execute("cont");
  assert.equal(
    await qmp.refusal("migrate", { uri: "fd:out" }),
    "File descriptor named 'out' has not been found",
  );
});

kvmTest("an address of type fd may be a file, for cpr-reboot and for cpr-exec", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("old", { options: passing(lab) });
  await pass(lab, openFile(lab.path("state"), O.WRONLY | O.CREAT, 0o600), "out");
  await setExec(qmp, [...program, ...vmm.options, "-incoming", `file:${lab.path("state")}`]);
  const addr = { transport: "socket", type: "fd", str: "out" };
  const channels = [{ "channel-type": "main", addr }];
  await qmp.execute("migrate", { channels });
  await qmp.closed();
  const next = await (await lab.monitorAtOnce(vmm)).withEvents();
  await next.reaches("running");
  await pass(lab, openFile(lab.path("second"), O.WRONLY | O.CREAT, 0o600), "out");
  await save(next, { channels });
  await next.execute("quit");
  await assertLoads(lab, `file:${lab.path("second")}`);
});

kvmTest("file:/dev/fdset/N is a file that `add-fd` passed, if its access mode fits", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old", { options: passing(lab) });
  {
    using client = await PassingClient.to(lab.path("passing"));
    using state = openFile(lab.path("state"), O.WRONLY | O.CREAT, 0o600);
    using readable = openFile(lab.path("state"), O.RDONLY);
    await client.call("add-fd", { "fdset-id": 3 }, [state.fd]);
    await client.call("add-fd", { "fdset-id": 4 }, [readable.fd]);
  }
  await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
  assert.equal(
    await qmp.refusal("migrate", { uri: "file:/dev/fdset/9" }),
    "Could not create '/dev/fdset/9': No such file or directory",
  );
  assert.equal(
    await qmp.refusal("migrate", { uri: "file:/dev/fdset/4" }),
    "Could not create '/dev/fdset/4': Permission denied",
  );
  qmp.log.length = 0;
  await save(qmp, { uri: "file:/dev/fdset/3" });
  await qmp.execute("quit");
  await assertLoads(lab, `file:${lab.path("state")}`);
});

kvmTest("a successor takes its main channel from a socket that `getfd` named", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old", { options: passing(lab) });
  const { vmm, channels } = await startSuccessor(lab, "new", {
    options: ["-qmp", `unix:${lab.path("passing.new")},server=on,wait=off`],
    incoming: "defer",
  });
  const [ours, theirs] = socketPair();
  await pass(lab, ours, "main");
  const addr = { transport: "socket", type: "fd", str: "main" };
  await beginTransfer(qmp, [{ "channel-type": "main", addr }, channels[1]]);
  await listens(lab.path("passing.new"));
  using client = await PassingClient.to(lab.path("passing.new"));
  await client.call("getfd", { fdname: "main" }, [theirs.fd]);
  theirs.close();
  await client.call("migrate-incoming", { channels: [{ "channel-type": "main", addr }] });
  await qmp.logged("MIGRATION completed");
  const next = await lab.monitor(vmm);
  await next.reaches("running");
  await next.assertGuestRuns();
});

kvmTest(
  "an unknown name of a descriptor fails the transfer, and the guest never stops",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("old");
    const { vmm, channels } = await startSuccessor(lab, "new");
    const addr = { transport: "socket", type: "fd", str: "nofd" };
    await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
    qmp.log.length = 0;
    assert.equal(
      await qmp.refusal("migrate", { channels: [{ "channel-type": "main", addr }, channels[1]] }),
      "File descriptor named 'nofd' has not been found",
    );
    assert.deepEqual(await qmp.migration(), {
      status: "failed",
      "error-desc": "File descriptor named 'nofd' has not been found",
    });
    assert.ok(!qmp.log.includes("STOP"));
    // The successor never heard of it: it takes the guest when the address is right.
    await beginTransfer(qmp, channels);
    await qmp.logged("MIGRATION completed");
    await (await lab.monitor(vmm)).assertGuestRuns();
  },
);

kvmTest("a main channel of type exec is refused before a live successor hears of it", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const { vmm, channels } = await startSuccessor(lab, "new");
  await qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
  qmp.log.length = 0;
  const addr = { transport: "exec", args: ["/bin/cat"] };
  assert.equal(
    await qmp.refusal("migrate", { channels: [{ "channel-type": "main", addr }, channels[1]] }),
    "Migration requires streamable transport (eg unix)",
  );
  assert.deepEqual(qmp.log, ["error"]);
  assert.deepEqual(await qmp.migration(), {});
  await beginTransfer(qmp, channels);
  await qmp.logged("MIGRATION completed");
  await (await lab.monitor(vmm)).assertGuestRuns();
});

kvmTest("`query-migrate` tells the port when an incoming TCP channel has port 0", async () => {
  await using lab = await Laboratory.open();
  const vmm = lab.start("new", { options: ["-incoming", "tcp:127.0.0.1:0"] });
  const qmp = await lab.monitor(vmm);
  const { "socket-address": [address], ...rest } = await qmp.execute<
    { "socket-address": { port: string }[] }
  >("query-migrate");
  assert.deepEqual(rest, { status: "setup" });
  const { port } = address;
  assert.deepEqual(address, { type: "inet", host: "127.0.0.1", port, ipv4: true });
  const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(port) });
  await connection.write(new TextEncoder().encode("this is no saved state"));
  connection.close();
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /load of migration failed: Not a migration stream/);
});

kvmTest("the last `-incoming` of a channel type counts, in every form", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("old");
  const [main, cpr] = [lab.path("real.main"), lab.path("real.cpr")];
  const dotted = (type: string, path: string) =>
    `channel-type=${type},addr.transport=socket,addr.type=unix,addr.path=${path}`;
  const vmm = lab.start("new", {
    options: [
      ...["-incoming", dotted("cpr", lab.path("wrong.cpr")), "-incoming", "file:/nonexistent"],
      ...["-incoming", JSON.stringify(unixChannel("cpr", cpr)), "-incoming", "defer"],
      ...["-incoming", dotted("main", main)],
    ],
  });
  await listens(cpr);
  await beginTransfer(qmp, [unixChannel("main", main), unixChannel("cpr", cpr)]);
  await qmp.logged("MIGRATION completed");
  await (await lab.monitor(vmm)).assertGuestRuns();
});

kvmTest(
  "a command that fails, or ends early, fails the migration and the guest goes on",
  async () => {
    await using lab = await Laboratory.open();
    const { qmp } = await lab.run("old");
    for (const command of ["cat > /dev/null; exit 3", "exec true", "kill -9 $$"]) {
      await qmp.execute("migrate-set-parameters", { mode: "cpr-reboot" });
      qmp.log.length = 0;
      await qmp.execute("migrate", { uri: `exec:${command}` });
      await qmp.logged("MIGRATION failed");
      assert.deepEqual(qmp.log.slice(-3), ["MIGRATION failing", "RESUME", "MIGRATION failed"]);
      await qmp.assertGuestRuns();
    }
  },
);
