/**
 * Makes a VM and its anchor, lets the guest run there and executes itself anew, with the guest running
 * on; the second image prints what it finds. The argument is what it does then.
 */
import { Anchor, AnchorPhase } from "../../ffi/anchor.ts";
import { Head, mailboxSize } from "../../ffi/anchor_layout.ts";
import { type AnchorProgram, ioctlCall } from "../../ffi/anchor_program.ts";
import { OsError } from "../../ffi/errno.ts";
import { OwnedFd, setCloexec } from "../../ffi/fd.ts";
import { ioctlBuffer, KVM } from "../../ffi/kvm/ioctl.ts";
import { RunPage } from "../../ffi/kvm/run.ts";
import { kvmRegs, kvmSregs } from "../../ffi/kvm/structs.ts";
import { KvmSystem } from "../../ffi/kvm/system.ts";
import { KvmVcpu } from "../../ffi/kvm/vcpu.ts";
import { KvmVm } from "../../ffi/kvm/vm.ts";
import { makeMemfd, mapShared } from "../../ffi/memory.ts";
import { PreparedExec } from "../../ffi/process.ts";

const EINTR = 4;
const RAM = 64 << 10;
const START = 0x1000;
const COUNTER = 0x2000;
const WISH = 0x2010;
const ANSWER = 0x2014;
/** Counts; when there is a wish, writes it to port 0x42 and reads an answer from port 0x43. */
// deno-fmt-ignore
const GUEST = Uint8Array.of(
  0x66, 0xff, 0x06, 0x00, 0x20,     // 1: incl COUNTER
  0x80, 0x3e, 0x10, 0x20, 0x00,     //    cmpb $0, WISH
  0x74, 0xf4,                       //    je 1b
  0xa0, 0x10, 0x20,                 //    mov WISH, %al
  0xc6, 0x06, 0x10, 0x20, 0x00,     //    movb $0, WISH
  0xe6, 0x42,                       //    out %al, $0x42
  0xe4, 0x43,                       //    in $0x43, %al
  0xa2, 0x14, 0x20,                 //    mov %al, ANSWER
  0xeb, 0xe3,                       //    jmp 1b
);
const vcpuCount = 2;

const [part, ...rest] = Deno.args;
if (part === "next") await next(rest[0], rest.slice(1).map(Number));
else first(part);

function first(what: string): void {
  const ram = makeMemfd("ram", RAM);
  const memory = mapShared(ram.fd, RAM);
  memory.write(START, GUEST);
  const system = new KvmSystem();
  const vm = new KvmVm(system.createVm());
  vm.setTssAddress(0xfffb_d000);
  vm.createIrqchip();
  vm.setMemoryRegion(0, 0, RAM, memory.address);
  const size = system.vcpuMmapSize();
  const vcpus = Array.from({ length: vcpuCount }, (_, id) => new KvmVcpu(vm.createVcpu(id), size));
  const [vcpu] = vcpus;
  const { bytes, view } = kvmSregs.alloc();
  vcpu.transfer(KVM.GET_SREGS, bytes);
  view.cs.base = 0n;
  view.cs.selector = 0;
  vcpu.transfer(KVM.SET_SREGS, bytes);
  const regs = kvmRegs.alloc({ rip: BigInt(START), rflags: 2n, rsp: 0xf000n });
  vcpu.transfer(KVM.SET_REGS, regs.bytes);
  const toAnchor = vcpus.map(({ fd, runMapping }) => ({
    fd: fd.fd,
    runAddress: runMapping.address,
  }));
  if (what === "scarce") return scarce(vm.fd.fd, toAnchor);
  const anchor = Anchor.start(vm.fd.fd, toAnchor, what === "late" ? 1 : 60_000);
  if (what !== "late") anchor.resume(vcpus.map(({ run }) => run));
  const fds = [ram.fd, anchor.memory.fd, ...vcpus.map(({ fd }) => fd.fd)];
  for (const fd of fds) setCloexec(fd, false);
  const program = new URL(import.meta.url).pathname;
  const argv = [Deno.execPath(), "run", "-A", "--no-check", "--no-lock", program, "next", what];
  new PreparedExec([...argv, `${Deno.pid}`, `${size}`, ...fds.map(String)], {}).exec();
}

/** Tries to make an anchor where only its mailbox may be opened. */
function scarce(vmFd: number, vcpus: Parameters<typeof Anchor.start>[1]): void {
  const files: OwnedFd[] = [];
  try {
    for (;;) files.push(makeMemfd("full", 0));
  } catch {
    files.pop()!.close();
  }
  let refusal = "none";
  try {
    Anchor.start(vmFd, vcpus, 60_000);
  } catch (error) {
    refusal = (error as Error).message;
  }
  for (const file of files) file.close();
  const children = Deno.readTextFileSync(`/proc/self/task/${Deno.pid}/children`);
  console.log(JSON.stringify({ refusal, children }));
}

/** Waits until something is so. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

async function next(
  what: string,
  [pid, size, ramFd, mailbox, ...vcpuFds]: readonly number[],
): Promise<void> {
  const memory = mapShared(ramFd, RAM);
  const words = new DataView(memory.bytes.buffer);
  const count = () => words.getUint32(COUNTER, true);
  const anchor = Anchor.takeOver(new OwnedFd(mailbox));
  const pages = vcpuFds.map((fd) => new RunPage(mapShared(fd, size).address, size));
  const grows = async () => {
    const before = count();
    await until(() => count() !== before);
  };
  console.log(JSON.stringify({ samePid: pid === Deno.pid, anchor: anchor.pid }));
  if (what === "late") {
    await until(() => anchor.expired);
    anchor.resume(pages);
    console.log(JSON.stringify({ phase: anchor.phase(0), count: count() }));
    return anchor.end();
  }
  await grows();
  if (what === "race") {
    anchor.stop(pages);
    // What the leader does when the time is up, at the worst moment.
    const words = new Uint32Array(mapShared(mailbox, mailboxSize(vcpuCount)).bytes.buffer);
    class Expiring extends RunPage {
      override get immediateExit(): boolean {
        return super.immediateExit;
      }
      override set immediateExit(on: boolean) {
        super.immediateExit = on;
        if (!on) words[Head.expired] = 1;
      }
    }
    anchor.resume(vcpuFds.map((fd) => new Expiring(mapShared(fd, size).address, size)));
    const before = count();
    await new Promise((resolve) => setTimeout(resolve, 20));
    console.log(JSON.stringify({ phase: anchor.phase(0), stands: count() === before }));
    return anchor.end();
  }
  // The anchor ends with its maker, who is this process still.
  if (what === "die") return Deno.exit(0);

  console.log(JSON.stringify({ foreign: codeOf(() => getRegs(vcpuFds[0])) }));
  anchor.stop(pages);
  const stopped = count();
  const regs = anchor.allocate(1, kvmRegs.size);
  const read = anchor.prepare(1, [ioctlCall(anchor.vcpuFd(0), KVM.GET_REGS, regs.address)]);
  console.log(JSON.stringify({
    phase: anchor.phase(0),
    read: read.run(),
    rip: Number(kvmRegs.view(regs.bytes.buffer, regs.bytes.byteOffset).rip) - START < GUEST.length,
    stands: count() === stopped,
  }));
  const refused = anchor.prepare(1, [
    ioctlCall(-1, KVM.GET_REGS, regs.address),
    ioctlCall(-2, 0, 0),
  ]);
  console.log(JSON.stringify({ refused: refused.run(), result: refused.result }));

  anchor.resume(pages);
  await grows();
  const finish = anchor.prepare(1, [ioctlCall(anchor.vcpuFd(0), KVM.RUN, 0, -EINTR)]);
  words.setUint8(WISH, 0x5a);
  await until(() => anchor.phase(0) === AnchorPhase.EXITED);
  const [page] = pages;
  console.log(JSON.stringify({ port: page.ioPort, out: page.ioIsWrite, data: page.ioGet(0, 1) }));
  // An exit that nobody has served is not entered again.
  anchor.resume(pages);
  anchor.stop(pages);
  console.log(JSON.stringify({ phase: anchor.phase(0), port: page.ioPort }));
  anchor.noteExit(0, false);
  console.log(JSON.stringify({ finished: finish.run() }));
  anchor.resume(pages);
  await until(() => anchor.phase(0) === AnchorPhase.EXITED);
  console.log(JSON.stringify({ port: page.ioPort, out: page.ioIsWrite }));
  page.ioPut(0, 1, 0x77);
  anchor.noteExit(0, false);
  anchor.stop(pages);
  console.log(JSON.stringify({ finished: finish.run() }));
  const [turn, back]: readonly AnchorProgram[] = anchor.prepareTurn(0);
  page.immediateExit = false;
  console.log(JSON.stringify({ turn: turn.run(), back: back.run() }));
  anchor.resume(pages);
  await grows();
  console.log(JSON.stringify({ answer: words.getUint8(ANSWER) }));
  const child = anchor.dismiss();
  console.log(JSON.stringify({ ...child.wait(), ended: anchor.hasEnded }));
}

function getRegs(fd: number): number {
  return ioctlBuffer(fd, KVM.GET_REGS, kvmRegs.alloc().bytes);
}

function codeOf(action: () => unknown): string {
  try {
    return `${action()}`;
  } catch (error) {
    return error instanceof OsError ? error.code : `${error}`;
  }
}
