/** `-gdb` and the monitor's `gdbserver`, as gdb meets them. */
import assert from "node:assert/strict";
import { encodePacket } from "../../vmm/gdb/packet.ts";
import { kvmTest, Program, TestFolder, TextConnection } from "./session.ts";

const packet = (data: string) => new TextDecoder().decode(encodePacket(data));

kvmTest("`-gdb` waits on a socket, with `-S` before the first instruction", async () => {
  using folder = new TestFolder();
  const path = folder.file("gdb");
  await using vmm = new Program(
    ...["-kernel", folder.guest("hello"), "-m", "64", "-serial", "stdio", "-S"],
    ...["-gdb", `unix:${path}`, "-device", "isa-debug-exit"],
  );
  using gdb = await TextConnection.to(path);
  await gdb.send(packet("?"));
  assert.match(await gdb.take(";#"), /^\+\$T05thread:1;#$/);
  assert.equal(vmm.stdout, "");
  await gdb.send(packet("c"));
  await gdb.take("$W21#");
  assert.equal(await vmm.ended(), 0x21);
  assert.equal(vmm.stdout, "hello from denovo\n");
});

kvmTest("`gdbserver` waits, waits elsewhere, and no longer waits", async () => {
  using folder = new TestFolder();
  const [monitorPath, first, second] = ["hmp", "first", "second"].map((name) => folder.file(name));
  await using vmm = new Program(
    ...["-kernel", folder.guest("counter_cpl0"), "-m", "64", "-serial", "null"],
    ...["-chardev", `socket,id=m,path=${monitorPath},server=on,wait=off`],
    ...["-mon", "chardev=m,mode=readline"],
  );
  using monitor = await TextConnection.to(monitorPath);
  await monitor.take("(qemu) ");
  const type = async (line: string) => {
    await monitor.send(`${line}\n`);
    const raw = await monitor.take("\r\n(qemu) ");
    return raw.slice(raw.indexOf("\r\n") + 2, -"(qemu) ".length).replaceAll("\r", "");
  };
  assert.equal(
    await type(`gdbserver unix:${first}`),
    `Waiting for gdb connection on device 'unix:${first}'\n`,
  );
  {
    using gdb = await TextConnection.to(first);
    await gdb.send(packet("qC"));
    await gdb.take("+$QC1#c5");
    assert.equal(await type("info status"), "VM status: paused\n");
    const monitor = (line: string) => packet(`qRcmd,${new TextEncoder().encode(line).toHex()}`);
    await gdb.send(monitor("info status"));
    const words = new TextEncoder().encode("VM status: paused\n").toHex();
    await gdb.take(`${packet(`O${words}`)}${packet("OK")}`);
    assert.match(await type("gdbserver nosuch"), /'nosuch' is not a valid char driver/);
    await type(`gdbserver unix:${second}`);
    await gdb.end();
  }
  assert.equal(await type("info status"), "VM status: running\n");
  {
    using gdb = await TextConnection.to(second);
    await gdb.send(packet("vCont;s:1"));
    await gdb.take("$T05thread:1;#");
    assert.equal(await type("info status"), "VM status: paused (debug)\n");
    assert.equal(await type("gdbserver none"), "Disabled gdbserver\n");
    await gdb.end();
  }
  assert.equal(await type("info status"), "VM status: running\n");
  assert.throws(() => Deno.lstatSync(second), Deno.errors.NotFound);
  await monitor.send("quit\n");
  assert.equal(await vmm.ended(), 0);
});
