/** Arguments, file names and variables are bytes: what is not UTF-8 goes through as it is. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { O, openFile, readAt } from "../../ffi/fd.ts";
import { decodeText, encodeText } from "../../ffi/text.ts";
import { kvmTest, Laboratory, program, setExec, until } from "./program.ts";

/** One byte that is no UTF-8 by itself. */
const BYTE = "\udce9";

/** What a shell makes of a name. */
function rename(from: string, to: string): void {
  const script = 'mv "$1" "$(printf "$2")"';
  const args = ["-c", script, "sh", from, escaped(to)];
  assert.ok(new Deno.Command("/bin/sh", { args }).outputSync().success);
}

function escaped(text: string): string {
  return Array.from(encodeText(text), (byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}

/** The names in a folder, as bytes. */
function names(folder: string): string[] {
  const { stdout } = new Deno.Command("/bin/ls", { args: [folder] }).outputSync();
  return decodeText(stdout).split("\n").slice(0, -1);
}

function contentOf(path: string): string {
  using file = openFile(path, O.RDONLY);
  const bytes = new Uint8Array(4096);
  return decodeText(bytes.subarray(0, readAt(file.fd, bytes, 0)));
}

kvmTest("bytes that are no UTF-8 reach the guest and the host's files as they are", async () => {
  await using lab = await Laboratory.open();
  const name = (what: string) => lab.path(`${what}${BYTE}`);
  const options = lab.optionsOf("vmm", { serial: `file:${name("serial")}` });
  const kernel = lab.path("demo");
  rename(kernel, name("kernel"));
  const placed = options.map((word) => word === kernel ? name("kernel") : word);
  const more = ["-append", `a=${BYTE} b=é`, "-pidfile", name("pid"), "-D", name("log")];
  const monitor = ["-monitor", `unix:${name("hmp")},server=on,wait=off`];
  const vmm = lab.startWith("vmm", [...placed, ...more, ...monitor, "-name", `n${BYTE}`]);
  const qmp = await lab.monitor(vmm);
  await qmp.reaches("running");
  await qmp.assertGuestRuns();
  await qmp.execute("pmemsave", { val: 0, size: 1 << 20, filename: lab.path("low") });
  const low = Buffer.from(Deno.readFileSync(lab.path("low")));
  assert.ok(
    low.includes(Buffer.from(encodeText(`a=${BYTE} b=é\0`))),
    "the command line is in guest memory",
  );
  const pid = () => contentOf(name("pid"));
  await until(() => pid() === `${vmm.child.pid}\n`, () => "the pidfile");
  assert.deepEqual(
    names(lab.folder).filter((one) => one.includes(BYTE)).sort(),
    ["hmp", "kernel", "log", "pid", "serial"].map((what) => `${what}${BYTE}`),
  );
  await qmp.execute("quit");
  assert.deepEqual(await vmm.ended(), { code: 0 });
  // What is removed at the end is found again.
  assert.deepEqual(
    names(lab.folder).filter((one) => one.includes(BYTE)).sort(),
    ["kernel", "log", "serial"].map((what) => `${what}${BYTE}`),
  );
});

kvmTest("an error names a file whose name is no UTF-8, and there is no other file", async () => {
  await using lab = await Laboratory.open();
  const options = ["-kernel", lab.path(`missing${BYTE}`)];
  const vmm = lab.startWith("vmm", options);
  assert.deepEqual(await vmm.ended(), { code: 1 });
  assert.match(vmm.output, /could not open kernel '.*missing.': No such file or directory/);
});

for (const relay of ["on", "off"]) {
  kvmTest(`cpr-exec keeps variables as they are, with x-cpr-exec-relay ${relay}`, async () => {
    await using lab = await Laboratory.open();
    const env = { [`BYTE${BYTE}`]: "1", BYTES: BYTE };
    // A helper is started with this very option.
    const { vmm, qmp } = await lab.run("vmm", { env, options: ["-D", lab.path(`log${BYTE}`)] });
    const environ = () => contentOf(`/proc/${vmm.child.pid}/environ`);
    assert.ok(environ().includes(`BYTES=${BYTE}\0`), environ());
    await qmp.execute("migrate-set-parameters", { "x-cpr-exec-relay": relay });
    const uri = `file:${lab.path("state")}`;
    await setExec(qmp, [...program, ...lab.optionsOf("vmm"), "-incoming", uri]);
    await qmp.execute("migrate", { uri });
    await qmp.closed();
    const next = await lab.monitorAtOnce(vmm);
    await next.assertGuestRuns();
    assert.ok(environ().includes(`BYTES=${BYTE}\0`), environ());
    assert.ok(environ().includes(`BYTE${BYTE}=1\0`), environ());
    assert.deepEqual(names(lab.folder).filter((one) => one.startsWith("log")), [`log${BYTE}`]);
  });
}

kvmTest("a line that is typed at the monitor may name a file by any bytes", async () => {
  await using lab = await Laboratory.open();
  const path = lab.path("hmp");
  const { qmp } = await lab.run("vmm", {
    options: ["-monitor", `unix:${path},server=on,wait=off`],
  });
  using monitor = await Deno.connect({ transport: "unix", path });
  await monitor.write(encodeText(`pmemsave 0 16 "${lab.path(`dump${BYTE}`)}"\n`));
  const dumps = () => names(lab.folder).filter((one) => one.startsWith("dump"));
  await until(() => dumps().length > 0, () => "the dump");
  assert.deepEqual(dumps(), [`dump${BYTE}`]);
  // In JSON there is no way to say it, and nothing that would become another name.
  const file = lab.path(`state${BYTE}`);
  assert.match(
    await qmp.refusal("migrate", { uri: `file:${file}` }),
    /not a valid Unicode character/,
  );
});
