/** gdb's protocol on a target that is not there: what each packet asks of it, and the replies. */
import assert from "node:assert/strict";
import { kvmRegs, kvmSregs, xsaveHead } from "../../ffi/kvm/structs.ts";
import type { DebugPoint } from "../../vmm/accel/accelerator.ts";
import { encodePacket, PacketReader } from "../../vmm/gdb/packet.ts";
import { REGISTER_COUNT, Registers, targetDescription } from "../../vmm/gdb/registers.ts";
import { GdbSession, type GdbTarget } from "../../vmm/gdb/session.ts";
import type { Resume, StopReason } from "../../vmm/gdb/target.ts";
import { toLatin1 } from "../../vmm/monitor/latin1.ts";

/** A target with two vCPUs and 64 KiB of memory at 0. */
class FakeTarget implements GdbTarget {
  readonly calls: string[] = [];
  readonly cpus = 2;
  readonly memory = new Uint8Array(0x1_0000);
  readonly points: DebugPoint[] = [];
  readonly states = [0, 1].map((cpu) => {
    const regs = kvmRegs.alloc({ rax: 0x1122_3344_5566_7788n + BigInt(cpu), rip: 0xfff0n });
    const sregs = kvmSregs.alloc({ cr3: 0x1000n });
    const xsave = xsaveHead.alloc({ fcw: 0x37f, mxcsr: 0x1f80 });
    regs.view.rflags = 2n;
    sregs.view.cs.selector = 0x18;
    return { regs, sregs, xsave };
  });
  readonly ended = Promise.withResolvers<number>();
  running = false;
  refuses = false;

  constructor(readonly onStop: (reason: StopReason) => void) {}

  get exited() {
    return this.ended.promise;
  }
  stop() {
    this.calls.push("stop");
    this.stopAs({});
  }
  kill() {
    this.calls.push("kill");
  }
  resume(actions: readonly Resume[]) {
    if (this.refuses) throw new Error("Resetting the Virtual Machine is required");
    this.calls.push(actions.join(" "));
    this.running = true;
  }
  stopAs(reason: StopReason) {
    this.running = false;
    this.onStop(reason);
  }
  registers(cpu: number) {
    const parts = this.states[cpu] as unknown as Record<string, { bytes: Uint8Array<ArrayBuffer> }>;
    return new Registers({
      read: (part, into) => (into.set(parts[part].bytes), into.length),
      write: (part, from) => {
        this.calls.push(`write ${part} of ${cpu}`);
        parts[part].bytes.set(from);
        return from.length;
      },
    }, xsaveHead.size);
  }
  readMemory(_cpu: number, address: bigint, length: number) {
    if (address + BigInt(length) > 0x1_0000n) return undefined;
    return this.memory.slice(Number(address), Number(address) + length);
  }
  writeMemory(_cpu: number, address: bigint, data: Uint8Array) {
    if (address + BigInt(data.length) > 0x1_0000n) return false;
    this.memory.set(data, Number(address));
    return true;
  }
  addPoint(point: DebugPoint) {
    if (this.points.length === 4) return false;
    this.points.push(point);
    return true;
  }
  removePoint(point: DebugPoint) {
    this.calls.push(`remove ${point.on} ${point.address.toString(16)}`);
  }
  [Symbol.dispose]() {
    this.calls.push("dispose");
  }
}

/** A session, and what gdb sees of it. */
class Gdb {
  target!: FakeTarget;
  output = "";
  readonly session: GdbSession;

  constructor(monitor?: (line: string) => Promise<string>) {
    const transport = {
      write: (bytes: Uint8Array) => void (this.output += toLatin1(bytes)),
      close: () => {},
    };
    const target = (onStop: FakeTarget["onStop"]) => this.target = new FakeTarget(onStop);
    this.session = new GdbSession(target, transport, monitor);
  }

  /** Sends a packet; returns the reply's data, without acknowledgements. */
  ask(data: string | Uint8Array): string | undefined {
    this.output = "";
    this.session.receive(encodePacket(data));
    return this.told();
  }

  /** The data of the last packet that has come. */
  told(): string | undefined {
    const packets = [
      ...new PacketReader().read(Uint8Array.from(this.output, (c) => c.charCodeAt(0))),
    ];
    const last = packets.at(-1);
    return last?.kind === "packet" ? toLatin1(last.data) : undefined;
  }
}

/** Digits of a little-endian number. */
const le = (value: bigint, size: number) =>
  Array.from({ length: size }, (_, i) => Number(value >> BigInt(8 * i) & 0xffn))
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");

Deno.test("packets are acknowledged, asked for again and sent again, until gdb wants no more of it", () => {
  const gdb = new Gdb();
  gdb.ask("qC");
  assert.equal(gdb.output, "+$QC1#c5");
  gdb.output = "";
  gdb.session.receive(new TextEncoder().encode("$qC#00"));
  assert.equal(gdb.output, "-");
  gdb.output = "";
  gdb.session.receive(new TextEncoder().encode("-"));
  assert.equal(gdb.output, "$QC1#c5");
  assert.equal(gdb.ask("QStartNoAckMode"), "OK");
  assert.ok(gdb.output.startsWith("+"));
  gdb.ask("qC");
  assert.equal(gdb.output, "$QC1#c5");
});

/** All packets of an output, without acknowledgements. */
function packetsOf(output: string): string[] {
  return [...new PacketReader().read(Uint8Array.from(output, (c) => c.charCodeAt(0)))]
    .map((packet) => packet.kind === "packet" ? toLatin1(packet.data) : packet.kind);
}

const hexOf = (text: string) => new TextEncoder().encode(text).toHex();

Deno.test("gdb's `monitor` goes to the human monitor, whose words come before the reply", async () => {
  const lines: string[] = [];
  const words: PromiseWithResolvers<string>[] = [];
  const gdb = new Gdb((line) => {
    lines.push(line);
    words.push(Promise.withResolvers());
    return words.at(-1)!.promise;
  });
  const finish = async (text: string) => {
    gdb.output = "";
    words.at(-1)!.resolve(text);
    await words.at(-1)!.promise;
    await Promise.resolve();
    return packetsOf(gdb.output);
  };
  assert.equal(gdb.ask(`qRcmd,${hexOf("info näme")}`), undefined);
  assert.equal(gdb.ask(`qRcmd,${hexOf("quit")}`), "E16", "one at a time");
  const long = "näme\n".repeat(5000);
  const packets = await finish(long);
  assert.deepEqual(lines, ["info näme"]);
  assert.equal(packets.pop(), "OK");
  assert.ok(packets.length > 1);
  const bytes = packets.map((packet) => {
    assert.ok(packet.length < 0x4000);
    assert.equal(packet[0], "O");
    return packet.slice(1);
  });
  assert.equal(new TextDecoder().decode(Uint8Array.fromHex(bytes.join(""))), long);
  assert.equal(gdb.ask(`qRcmd,${hexOf("cont")}`), undefined);
  assert.deepEqual(await finish(""), ["OK"]);
  assert.equal(gdb.ask("qRcmd,xy"), "E16");
  gdb.ask(`qRcmd,${hexOf("quit")}`);
  gdb.session.close();
  assert.deepEqual(await finish("too late"), []);
});

Deno.test("without a monitor gdb's `monitor` is not known", () => {
  assert.equal(new Gdb().ask(`qRcmd,${hexOf("help")}`), "");
});

Deno.test("what gdb asks at the beginning", () => {
  const gdb = new Gdb();
  assert.match(gdb.ask("qSupported:multiprocess+")!, /PacketSize=4000;qXfer:features:read\+/);
  assert.equal(gdb.ask("vMustReplyEmpty"), "");
  assert.equal(gdb.ask("!"), "");
  assert.equal(gdb.ask("?"), "T05thread:1;");
  assert.equal(gdb.ask("qAttached"), "1");
  assert.equal(gdb.ask("qfThreadInfo"), "m1,2");
  assert.equal(gdb.ask("qsThreadInfo"), "l");
  assert.equal(gdb.ask("T2"), "OK");
  assert.equal(gdb.ask("T3"), "E16");
  assert.equal(gdb.ask("Hg3"), "E16");
  assert.equal(gdb.ask("Hx1"), "E16");
  const info = Uint8Array.fromHex(gdb.ask("qThreadExtraInfo,2")!);
  assert.equal(new TextDecoder().decode(info), "CPU#1 [stopped]");
  assert.equal(gdb.ask("vCont?"), "vCont;c;C;s;S");
});

Deno.test("the description of the target comes in pieces", () => {
  const gdb = new Gdb();
  let text = "";
  for (let reply = "m"; reply[0] === "m"; text += reply.slice(1)) {
    reply = gdb.ask(`qXfer:features:read:target.xml:${text.length.toString(16)},400`)!;
    assert.match(reply, /^[ml]/);
    if (reply[0] === "l") {
      text += reply.slice(1);
      break;
    }
  }
  assert.equal(text, targetDescription());
  assert.equal(text.match(/<reg /g)!.length, REGISTER_COUNT);
  assert.equal(gdb.ask("qXfer:features:read:other.xml:0,400"), "");
});

Deno.test("registers are read and written by number and all together", () => {
  const gdb = new Gdb();
  const all = gdb.ask("g")!;
  assert.equal(all.slice(0, 16), le(0x1122_3344_5566_7788n, 8));
  assert.equal(gdb.ask("p0"), all.slice(0, 16));
  assert.equal(gdb.ask("p10"), le(0xfff0n, 8));
  assert.equal(gdb.ask("p11"), le(2n, 4));
  assert.equal(gdb.ask("p12"), le(0x18n, 4));
  assert.equal(gdb.ask("Hg2"), "OK");
  assert.equal(gdb.ask("p0"), le(0x1122_3344_5566_7789n, 8));
  assert.equal(gdb.ask(`P10=${le(0x1234n, 8)}`), "OK");
  assert.equal(gdb.target.states[1].regs.view.rip, 0x1234n);
  assert.equal(gdb.target.states[0].regs.view.rip, 0xfff0n);
  assert.deepEqual(gdb.target.calls, ["write regs of 1"]);
  // Only what changes is written.
  const changed = gdb.ask("g")!.slice(16);
  assert.equal(gdb.ask(`G${le(5n, 8)}${changed}`), "OK");
  assert.equal(gdb.target.states[1].regs.view.rax, 5n);
  assert.deepEqual(gdb.target.calls, ["write regs of 1", "write regs of 1"]);
  for (const bad of ["G00", "Gxy", "P10=00", "P200=00", "p200", "P", "pz"]) {
    assert.equal(gdb.ask(bad), "E16", bad);
  }
});

Deno.test("x87 and SSE registers are those of the XSAVE area", () => {
  const gdb = new Gdb();
  const { view } = gdb.target.states[0].xsave;
  const number = (name: string) =>
    [...targetDescription().matchAll(/<reg name="(\w+)"/g)].findIndex(([, one]) => one === name)
      .toString(16);
  assert.equal(gdb.ask(`p${number("fctrl")}`), le(0x37fn, 4));
  assert.equal(gdb.ask(`p${number("ftag")}`), le(0xffffn, 4));
  // TOP is 7: ST0 is physical register 7, which holds 1.0; 6 holds zero.
  view.fsw = 7 << 11;
  view.ftw = 0xc0;
  view.st.at(0).set([0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
  view.fsw = 6 << 11;
  view.st.at(1).set(view.st.at(0));
  view.st.at(0).fill(0);
  assert.equal(gdb.ask(`p${number("ftag")}`), le(0x1fffn, 4));
  assert.equal(gdb.ask(`p${number("st1")}`), "0000000000000080ff3f");
  const xmm = "00112233445566778899aabbccddeeff";
  assert.equal(gdb.ask(`P${number("xmm15")}=${xmm}`), "OK");
  assert.equal(view.xmm.at(15).toHex(), xmm);
  assert.equal(view.xstate_bv, 3n);
  assert.equal(gdb.ask(`P${number("ftag")}=${le(0x3fffn, 4)}`), "OK");
  assert.equal(view.ftw, 0x80);
  assert.equal(gdb.ask(`P${number("fiseg")}=${le(0x12n, 4)}`), "OK");
  assert.equal(gdb.ask(`P${number("fioff")}=${le(0x3456_789an, 4)}`), "OK");
  assert.equal(view.fip, 0x12_3456_789an);
  assert.equal(gdb.ask(`p${number("cr3")}`), le(0x1000n, 8));
});

Deno.test("memory is read and written, in digits and in bytes", () => {
  const gdb = new Gdb();
  assert.equal(gdb.ask("M100,4:01020304"), "OK");
  assert.equal(gdb.ask("m100,5"), "0102030400");
  assert.equal(
    gdb.ask(Uint8Array.of(...new TextEncoder().encode("X200,3:"), 0x7d, 0x23, 0x24)),
    "OK",
  );
  assert.equal(gdb.ask("m200,3"), "7d2324");
  assert.equal(gdb.ask("X200,0:"), "OK");
  // More than a packet holds comes in pieces.
  assert.equal(gdb.ask("m0,8000")!.length, 0x4000);
  assert.equal(gdb.ask("mffff,2"), "E0e");
  assert.equal(gdb.ask("Mffff,2:0000"), "E0e");
  for (const bad of ["m", "m100", "mx,1", "M100,2:00", "M100,1:0", "X100,2:a"]) {
    assert.equal(gdb.ask(bad), "E16", bad);
  }
});

Deno.test("breakpoints and watchpoints are points of the processor", () => {
  const gdb = new Gdb();
  assert.equal(gdb.ask("Z0,100002,1"), "OK");
  assert.equal(gdb.ask("Z1,ffffffff81000000,1"), "OK");
  assert.equal(gdb.ask("Z2,200000,8"), "OK");
  assert.equal(gdb.ask("Z3,200000,8"), "");
  assert.equal(gdb.ask("Z4,200008,4"), "OK");
  assert.deepEqual(gdb.target.points, [
    { on: "execute", address: 0x100002n, length: 1 },
    { on: "execute", address: 0xffff_ffff_8100_0000n, length: 1 },
    { on: "write", address: 0x200000n, length: 8 },
    { on: "access", address: 0x200008n, length: 4 },
  ]);
  assert.equal(gdb.ask("Z0,100003,1"), "E1c");
  assert.equal(gdb.ask("z2,200000,8"), "OK");
  assert.deepEqual(gdb.target.calls, ["remove write 200000"]);
});

Deno.test("vCPUs go on and step as gdb says, and the stop is told", () => {
  const gdb = new Gdb();
  assert.equal(gdb.ask("vCont;s:2;c"), undefined);
  assert.equal(gdb.ask("g"), "E16");
  gdb.output = "";
  gdb.target.stopAs({ cpuIndex: 1 });
  assert.equal(gdb.told(), "T05thread:2;");
  assert.equal(gdb.ask("qC"), "QC2");
  assert.equal(gdb.ask("vCont;s:1"), undefined);
  gdb.target.stopAs({ cpuIndex: 0, point: { on: "write", address: 0x2000n, length: 8 } });
  assert.equal(gdb.told(), "T05thread:1;watch:2000;");
  gdb.ask("c");
  gdb.target.stopAs({ cpuIndex: 0, point: { on: "access", address: 0x2000n, length: 8 } });
  assert.equal(gdb.told(), "T05thread:1;awatch:2000;");
  gdb.ask("Hc2");
  gdb.ask("s1000");
  assert.equal(gdb.target.states[1].regs.view.rip, 0x1000n);
  gdb.target.stopAs({ cpuIndex: 1, point: { on: "execute", address: 0x1001n, length: 1 } });
  assert.equal(gdb.told(), "T05thread:2;");
  gdb.ask("C05");
  assert.deepEqual(gdb.target.calls, [
    "continue step",
    "step hold",
    "continue continue",
    "write regs of 1",
    "continue step",
    "continue continue",
  ]);
  gdb.target.stopAs({});
  for (const bad of ["vCont;x", "vCont;c:7"]) assert.equal(gdb.ask(bad), "E16");
  gdb.target.refuses = true;
  assert.equal(gdb.ask("c"), "E16");
  gdb.output = "";
  gdb.target.stopAs({});
  assert.equal(gdb.output, "");
});

Deno.test("C-c stops the guest, which is told once; others may stop it too", () => {
  const gdb = new Gdb();
  gdb.ask("c");
  gdb.output = "";
  gdb.session.receive(Uint8Array.of(3));
  assert.equal(gdb.told(), "T02thread:1;");
  assert.equal(gdb.ask("?"), "T02thread:1;");
  gdb.ask("c");
  gdb.output = "";
  gdb.target.stopAs({});
  assert.equal(gdb.told(), "T05thread:1;");
});

Deno.test("gdb detaches, kills, goes, and hears of the end", async () => {
  const gdb = new Gdb();
  assert.equal(gdb.ask("D"), "OK");
  gdb.ask("k");
  assert.equal(gdb.ask("vKill;1"), "OK");
  gdb.session.close();
  assert.deepEqual(gdb.target.calls, ["dispose", "kill", "kill", "dispose"]);
  const other = new Gdb();
  other.ask("c");
  other.target.ended.resolve(0x121);
  await other.target.exited;
  assert.equal(other.told(), "W21");
});
