/**
 * Every wait for something outside ends by a signal, by `quit`, and by the death of what is waited
 * for; and nothing is left behind.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { connectTcp, listenTcp } from "../../ffi/socket.ts";
import { localAddress } from "../../ffi/socket_address.ts";
import { childrenOf, openFiles } from "../processes.ts";
import { terminationSignals } from "../../devices/chardev/raw_terminal.ts";
import {
  beginTransfer,
  isAlive,
  kvmTest,
  Laboratory,
  listens,
  processesOf,
  type Qmp,
  setExec,
  startSuccessor,
  until,
  type Vmm,
} from "./program.ts";

/** The options of the guest `hello` in a laboratory, and more. */
function optionsOf(lab: Laboratory, more: readonly string[]): string[] {
  return [...lab.optionsOf("vmm", { guest: "hello" }).slice(0, 4), ...more];
}

/** The UNIX sockets that have a file in a laboratory's folder. */
function sockets({ folder }: Laboratory): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => Deno.lstatSync(`${folder}/${name}`).isSocket);
}

const cprChannel = (path: string) =>
  JSON.stringify({
    "channel-type": "cpr",
    addr: { transport: "socket", type: "unix", path },
  });

/**
 * What a VMM waits for, as its options say it; `S` stands for a socket's path, `F` for a FIFO's,
 * `P` for a pidfile's.
 *
 * A VMM listens for signals before it makes any of what `begun` waits for. The process' mask of caught
 * signals would not do: Deno has handlers for all signals that end a process as soon as the program
 * listens for the first of them.
 */
const startUps: Record<string, { options: string[]; begun: (lab: Laboratory) => Promise<void> }> = {
  "a monitor's client": {
    options: ["-qmp", "unix:S,server=on,wait=on"],
    begun: (lab) => listens(lab.path("S")),
  },
  "a console's client": {
    options: ["-chardev", "socket,id=c,path=S,server=on,wait=on", "-serial", "chardev:c"],
    begun: (lab) => listens(lab.path("S")),
  },
  "a multiplexer's client": {
    options: ["-chardev", "socket,id=c,path=S,server=on,wait=on,mux=on", "-serial", "chardev:c"],
    begun: (lab) => listens(lab.path("S")),
  },
  "an old VMM's descriptors": {
    options: ["-incoming", "defer", "-incoming", cprChannel("S")],
    begun: (lab) => listens(lab.path("S")),
  },
  "an old VMM's state": {
    options: ["-incoming", "unix:S"],
    begun: (lab) => listens(lab.path("S")),
  },
  "a FIFO's writer": {
    options: ["-incoming", "file:F"],
    begun: fifoIsOpen,
  },
  "a command's output": {
    options: ["-incoming", "exec:exec cat F"],
    begun: (lab) => until(() => processesOf(lab).length === 2, () => "the command"),
  },
  "a FIFO's reader": {
    options: ["-pidfile", "P", "-serial", "file:F"],
    begun: (lab) => exists(lab.path("P")),
  },
  "the log's reader": {
    options: ["-pidfile", "P", "-D", "F"],
    begun: (lab) => exists(lab.path("P")),
  },
};

/** Waits until there is a file. */
function exists(path: string): Promise<void> {
  return until(() => existsSync(path), () => path);
}

/** Waits until a process of the laboratory has opened a FIFO. */
async function fifoIsOpen(lab: Laboratory): Promise<void> {
  const isOpen = () => processesOf(lab).some((pid) => openFiles(pid).includes(lab.path("F")));
  await until(isOpen, () => "a reader of the FIFO");
}

function makeFifo(path: string): void {
  assert.ok(new Deno.Command("mkfifo", { args: [path] }).outputSync().success);
}

for (const [what, { options, begun }] of Object.entries(startUps)) {
  const signals = what === "a monitor's client" ? terminationSignals : ["SIGTERM"] as const;
  for (const signal of signals) {
    kvmTest(`${signal} ends the wait for ${what} at once`, async () => {
      await using lab = await Laboratory.open();
      makeFifo(lab.path("F"));
      const placed = options.map((word) => word.replaceAll(/\b[FPS]\b/g, (name) => lab.path(name)));
      const vmm = lab.startWith("vmm", optionsOf(lab, placed));
      await begun(lab);
      Deno.kill(vmm.child.pid, signal);
      assert.deepEqual(await vmm.ended(), { code: 0 }, vmm.output);
      assert.match(vmm.output, new RegExp(`^denovo: terminating on signal ${signal}$`, "m"));
      assert.deepEqual(sockets(lab), []);
      await until(() => processesOf(lab).length === 0, () => "the end of all processes");
    });
  }
}

kvmTest("SIGTERM ends the wait for a host that does not answer", async () => {
  await using lab = await Laboratory.open();
  // Who has no room for another client leaves its first packet unanswered (listen(2), tcp(7)).
  using listener = listenTcp("127.0.0.1", 0, { backlog: 0 });
  const { port } = localAddress(listener.fd) as { port: number };
  const clients = [1, 2, 3].map(() => connectTcp("127.0.0.1", port, { nonblocking: true }));
  const vmm = lab.startWith("vmm", optionsOf(lab, ["-serial", `tcp:127.0.0.1:${port}`]));
  // proc(5), `/proc/net/tcp`: the peer's address, the state TCP_SYN_SENT, and the inode.
  const peer = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 02 `;
  const waiting = () =>
    Deno.readTextFileSync("/proc/net/tcp").split("\n").filter((line) => line.includes(peer))
      .map((line) => `socket:[${line.trim().split(/\s+/)[9]}]`);
  await until(
    () => waiting().some((socket) => openFiles(vmm.child.pid).includes(socket)),
    () => "an attempt to connect",
  );
  Deno.kill(vmm.child.pid, "SIGTERM");
  assert.deepEqual(await vmm.ended(), { code: 0 }, vmm.output);
  for (const client of clients) client.close();
});

kvmTest("a daemon that nobody waits for any more ends, and so does its wait", async () => {
  await using lab = await Laboratory.open();
  const options = ["-daemonize", "-qmp", `unix:${lab.path("S")},server=on,wait=on`];
  const parent = lab.startWith("vmm", optionsOf(lab, options));
  await listens(lab.path("S"));
  parent.kill();
  await until(() => processesOf(lab).length === 0, () => "the daemon's end");
  assert.deepEqual(sockets(lab), []);
});

/** Begins an update that waits without end. */
type Waiting = (lab: Laboratory, vmm: Vmm, qmp: Qmp) => Promise<void>;

const updates: Record<string, { begin: Waiting; cancel: boolean }> = {
  "a command that does not read": {
    begin: async (_lab, _vmm, qmp) => {
      await qmp.execute("migrate", { uri: "exec:exec sleep 1000" });
      await qmp.reaches("finish-migrate");
    },
    cancel: true,
  },
  "a command that does not end": {
    begin: async (_lab, _vmm, qmp) => {
      await qmp.execute("migrate", { uri: "exec:cat >/dev/null; exec sleep 1000" });
      await qmp.logged("MIGRATION device");
    },
    cancel: false,
  },
  "a successor that does not listen yet": {
    begin: async (lab, _vmm, qmp) => {
      const { channels } = await startSuccessor(lab, "new", { incoming: "defer" });
      await beginTransfer(qmp, channels);
    },
    cancel: true,
  },
};

for (const [what, { begin, cancel }] of Object.entries(updates)) {
  const ends: Record<string, (vmm: Vmm, qmp: Qmp) => Promise<unknown>> = {
    quit: (_vmm, qmp) => qmp.execute("quit"),
    SIGTERM: (vmm) => Promise.resolve(Deno.kill(vmm.child.pid, "SIGTERM")),
  };
  for (const [name, end] of Object.entries(ends)) {
    kvmTest(`${name} ends a VMM whose update waits for ${what}`, async () => {
      await using lab = await Laboratory.open();
      const { vmm, qmp } = await lab.run("vmm");
      await begin(lab, vmm, qmp);
      await end(vmm, qmp);
      assert.deepEqual(await vmm.ended(), { code: 0 }, vmm.output);
      assert.deepEqual(sockets(lab).filter((name) => name.startsWith("vmm")), []);
      await withoutChildren(vmm);
    });
  }
  if (!cancel) continue;
  kvmTest(`migrate_cancel ends an update that waits for ${what}`, async () => {
    await using lab = await Laboratory.open();
    const { vmm, qmp } = await lab.run("vmm");
    await begin(lab, vmm, qmp);
    await qmp.execute("migrate_cancel");
    await qmp.logged("MIGRATION cancelled");
    await qmp.reaches("running");
    await qmp.assertGuestRuns();
    await withoutChildren(vmm);
  });
}

/** Waits until a VMM has no child, ended or not. */
async function withoutChildren({ child: { pid } }: Vmm): Promise<void> {
  await until(() => childrenOf(pid).length === 0, () => `the end of ${childrenOf(pid)}`);
}

kvmTest("a signal ends a VMM whose cpr-exec command does not answer, and the command", async () => {
  await using lab = await Laboratory.open();
  const { vmm, qmp } = await lab.run("vmm");
  await setExec(qmp, ["/bin/sleep", "1000"]);
  const migrate = qmp.execute("migrate", { uri: `file:${lab.path("state")}` }).catch(() => {});
  await until(() => childrenOf(vmm.child.pid).length === 1, () => "the command");
  const [command] = childrenOf(vmm.child.pid);
  Deno.kill(vmm.child.pid, "SIGTERM");
  assert.deepEqual(await vmm.ended(), { code: 0 }, vmm.output);
  await until(() => !isAlive(command), () => "the command's end");
  qmp[Symbol.dispose]();
  await migrate;
});

kvmTest("a state file that is a FIFO without a reader is refused, not waited for", async () => {
  await using lab = await Laboratory.open();
  const { qmp } = await lab.run("vmm");
  makeFifo(lab.path("F"));
  assert.equal(
    await qmp.refusal("migrate", { uri: `file:${lab.path("F")}` }),
    `Could not create '${lab.path("F")}': No such device or address`,
  );
  await qmp.assertGuestRuns();
});

kvmTest("a state goes through a FIFO from one VMM to the next", async () => {
  await using lab = await Laboratory.open();
  makeFifo(lab.path("F"));
  const old = await lab.run("old");
  const next = lab.start("next", { options: ["-incoming", `file:${lab.path("F")}`] });
  await fifoIsOpen(lab);
  await old.qmp.execute("migrate", { uri: `file:${lab.path("F")}` });
  await old.qmp.logged("MIGRATION completed");
  const qmp = await lab.monitor(next);
  await qmp.reaches("running");
  await qmp.assertGuestRuns();
});

kvmTest("a client of the cpr channel that is silent does not keep a signal out", async () => {
  await using lab = await Laboratory.open();
  const options = ["-incoming", "defer", "-incoming", cprChannel(lab.path("S"))];
  const vmm = lab.startWith("vmm", optionsOf(lab, options));
  await listens(lab.path("S"));
  using _silent = await Deno.connect({ transport: "unix", path: lab.path("S") });
  await until(() => sockets(lab).length === 0, () => "the end of the cpr socket's file");
  Deno.kill(vmm.child.pid, "SIGTERM");
  assert.deepEqual(await vmm.ended(), { code: 0 }, vmm.output);
});
