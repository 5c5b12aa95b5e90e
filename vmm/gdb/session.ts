/**
 * A session with gdb: the commands of its Remote Serial Protocol (GDB manual, appendix E) on a
 * {@linkcode DebugTarget}. Threads are vCPUs, numbered from 1.
 *
 * @module
 */
import type { DebugPoint } from "../accel/accelerator.ts";
import { decodeText, encodeText } from "../../ffi/text.ts";
import { toLatin1 } from "../monitor/latin1.ts";
import type { ByteTransport } from "../monitor/transport.ts";
import {
  ACKNOWLEDGE,
  encodePacket,
  hex,
  type Incoming,
  MAX_PACKET,
  PacketReader,
  REJECT,
} from "./packet.ts";
import { REGISTER_COUNT, targetDescription } from "./registers.ts";
import type { DebugTarget, Resume, StopReason } from "./target.ts";
import { littleEndian, parseAddress, parseRange } from "./words.ts";

const OK = "OK";
/** EINVAL, EFAULT, ENOSPC as errno numbers in hexadecimal. */
const INVALID = "E16";
const FAULT = "E0e";
const NO_SPACE = "E1c";
/** Bytes of text in one packet. */
const MAX_OUTPUT = MAX_PACKET / 2 - 8;
/** A command that is not known. */
const UNKNOWN = "";

/** gdb's numbers of SIGINT and SIGTRAP. */
const SIGINT = "02";
const SIGTRAP = "05";

/** What `Z` and `z` stop at, by their first argument. */
const POINTS: Readonly<Record<string, DebugPoint["on"]>> = {
  0: "execute",
  1: "execute",
  2: "write",
  4: "access",
};

/** What a session debugs. */
export type GdbTarget = Pick<DebugTarget, keyof DebugTarget>;

/** Executes a line of the human monitor and returns what that prints; it never fails. */
export type MonitorLine = (line: string) => Promise<string>;

/** One gdb. */
export class GdbSession {
  readonly #target: GdbTarget;
  readonly #transport: ByteTransport;
  readonly #monitor: MonitorLine | undefined;
  readonly #reader = new PacketReader();
  #acknowledges = true;
  #lastReply: Uint8Array<ArrayBuffer> = encodePacket("");
  /** The vCPU that `g`, `m` and so on mean (`Hg`), and the one that `c` and `s` mean (`Hc`). */
  #current = 0;
  #resumed: number | undefined;
  /** Why the guest has stopped last. */
  #stop: StopReason = {};
  /** gdb waits for the guest to stop. */
  #waits = false;
  #interrupted = false;
  /** A line of the monitor is being executed. */
  #inMonitor = false;
  #closed = false;

  /**
   * @param target makes the VM that is debugged, told where stops are reported
   * @param transport takes what gdb is told
   * @param monitor executes what is typed after gdb's `monitor`; it is not known without
   */
  constructor(
    target: (onStop: (reason: StopReason) => void) => GdbTarget,
    transport: ByteTransport,
    monitor?: MonitorLine,
  ) {
    this.#transport = transport;
    this.#monitor = monitor;
    this.#target = target((reason) => this.#stopped(reason));
    this.#target.exited.then((status) => this.#waits && this.#send(`W${hex(status & 0xff, 2)}`));
  }

  /** Takes what gdb sends. @throws {Error} if that is not its protocol */
  receive(bytes: Uint8Array): void {
    for (const incoming of this.#reader.read(bytes)) this.#take(incoming);
  }

  /** gdb has gone. */
  close(): void {
    this.#closed = true;
    this.#waits = false;
    this.#target[Symbol.dispose]();
  }

  #take(incoming: Incoming): void {
    switch (incoming.kind) {
      case "interrupt":
        this.#interrupted = true;
        return this.#target.stop();
      case "again":
        return this.#transport.write(this.#lastReply);
      case "broken":
        return this.#acknowledges ? this.#transport.write(REJECT) : undefined;
      case "packet": {
        if (this.#acknowledges) this.#transport.write(ACKNOWLEDGE);
        const reply = this.#execute(incoming.data);
        if (reply !== undefined) this.#send(reply);
      }
    }
  }

  #send(data: string | Uint8Array): void {
    this.#lastReply = encodePacket(data);
    this.#transport.write(this.#lastReply);
  }

  /** Does what a packet says; returns the reply, or undefined if that comes later or never. */
  #execute(data: Uint8Array): string | undefined {
    const text = toLatin1(data);
    try {
      return this.#dispatch(text, data);
    } catch {
      // The accelerator refuses a register's value, or the guest may not run.
      return INVALID;
    }
  }

  #dispatch(text: string, data: Uint8Array): string | undefined {
    const rest = text.slice(1);
    switch (text[0]) {
      case "?":
        return this.#describeStop();
      case "H":
        return this.#select(rest);
      case "T":
        return this.#cpu(rest) === undefined ? INVALID : OK;
      case "v":
        return this.#v(text);
      case "q":
      case "Q":
        return this.#query(text);
      case "k":
        this.#target.kill();
        return undefined;
    }
    // What follows is about a guest that stands still.
    if (this.#target.running) return INVALID;
    return this.#withStoppedGuest(text[0], rest, data);
  }

  #withStoppedGuest(command: string, rest: string, data: Uint8Array): string | undefined {
    switch (command) {
      case "g":
        return this.#readRegisters();
      case "G":
        return this.#writeRegisters(Uint8Array.fromHex(rest));
      case "p":
        return this.#readRegister(parseInt(rest, 16));
      case "P":
        return this.#writeRegister(rest);
      case "m":
        return this.#readMemory(rest);
      case "M":
        return this.#writeMemory(rest.split(":")[0], Uint8Array.fromHex(rest.split(":")[1] ?? ""));
      case "X":
        return this.#writeMemory(rest.split(":")[0], data.slice(data.indexOf(0x3a) + 1));
      case "Z":
      case "z":
        return this.#point(command === "Z", rest);
      case "c":
      case "C":
      case "s":
      case "S":
        return this.#resumeAt(command.toLowerCase() === "s" ? "step" : "continue", command, rest);
      case "D":
        this.#send(OK);
        this.#target[Symbol.dispose]();
        return undefined;
    }
    return UNKNOWN;
  }

  // Threads.

  /** The vCPU of a thread id; 0 is any and -1 all of them, for which the current one stands. */
  #cpu(id: string): number | undefined {
    if (id === "0" || id === "-1") return this.#current;
    const cpu = parseInt(id, 16) - 1;
    return cpu >= 0 && cpu < this.#target.cpus ? cpu : undefined;
  }

  #select(rest: string): string {
    const cpu = this.#cpu(rest.slice(1));
    if (cpu === undefined) return INVALID;
    if (rest[0] === "g") this.#current = cpu;
    else if (rest[0] === "c") this.#resumed = /^(0|-1)$/.test(rest.slice(1)) ? undefined : cpu;
    else return INVALID;
    return OK;
  }

  #query(text: string): string | undefined {
    const [name] = text.split(/[:,]/);
    switch (name) {
      case "qSupported":
        return `PacketSize=${
          hex(MAX_PACKET)
        };qXfer:features:read+;QStartNoAckMode+;vContSupported+`;
      case "QStartNoAckMode":
        this.#send(OK);
        this.#acknowledges = false;
        return undefined;
      case "qC":
        return `QC${hex(this.#current + 1)}`;
      case "qAttached":
        return "1";
      case "qfThreadInfo": {
        const ids = Array.from({ length: this.#target.cpus }, (_, i) => hex(i + 1));
        return `m${ids.join(",")}`;
      }
      case "qsThreadInfo":
        return "l";
      case "qThreadExtraInfo":
        return this.#threadInfo(text.slice("qThreadExtraInfo,".length));
      case "qRcmd":
        return this.#executeMonitor(text.slice("qRcmd,".length));
      case "qXfer":
        return transfer(text);
    }
    return UNKNOWN;
  }

  /** gdb's `monitor`: what the command prints goes before the reply, in as many packets as it takes. */
  #executeMonitor(line: string): string | undefined {
    if (!this.#monitor) return UNKNOWN;
    if (this.#inMonitor) return INVALID;
    const command = decodeText(Uint8Array.fromHex(line));
    this.#inMonitor = true;
    void this.#monitor(command).then((text) => {
      this.#inMonitor = false;
      if (this.#closed) return;
      const output = encodeText(text);
      for (let at = 0; at < output.length; at += MAX_OUTPUT) {
        this.#send(`O${output.subarray(at, at + MAX_OUTPUT).toHex()}`);
      }
      this.#send(OK);
    });
    return undefined;
  }

  #threadInfo(id: string): string {
    const cpu = this.#cpu(id);
    if (cpu === undefined) return INVALID;
    const state = this.#target.running ? "running" : "stopped";
    return encodeText(`CPU#${cpu} [${state}]`).toHex();
  }

  // Registers and memory.

  #readRegisters(): string {
    const registers = this.#target.registers(this.#current);
    return Array.from({ length: REGISTER_COUNT }, (_, i) => registers.get(i)!.toHex()).join("");
  }

  #writeRegisters(bytes: Uint8Array): string {
    const registers = this.#target.registers(this.#current);
    let at = 0;
    for (let i = 0; i < REGISTER_COUNT; i++) {
      const taken = registers.set(i, bytes.subarray(at));
      if (taken === 0) return INVALID;
      at += taken;
    }
    registers.write();
    return OK;
  }

  #readRegister(number: number): string {
    const bytes = this.#target.registers(this.#current).get(number);
    return bytes ? bytes.toHex() : INVALID;
  }

  #writeRegister(rest: string): string {
    const [number, value] = rest.split("=");
    const registers = this.#target.registers(this.#current);
    if (registers.set(parseInt(number, 16), Uint8Array.fromHex(value ?? "")) === 0) return INVALID;
    registers.write();
    return OK;
  }

  #readMemory(rest: string): string {
    const [address, length] = parseRange(rest);
    // Each byte is two digits of the reply.
    const most = Math.min(length, MAX_PACKET / 2);
    const bytes = this.#target.readMemory(this.#current, address, most);
    return bytes ? bytes.toHex() : FAULT;
  }

  #writeMemory(range: string, data: Uint8Array<ArrayBuffer>): string {
    const [address, length] = parseRange(range);
    if (length !== data.length) return INVALID;
    return this.#target.writeMemory(this.#current, address, data) ? OK : FAULT;
  }

  #point(adds: boolean, rest: string): string {
    const [type, address, length] = rest.split(/[,;]/);
    const on = POINTS[type];
    if (on === undefined) return UNKNOWN;
    const point: DebugPoint = {
      on,
      address: parseAddress(address),
      // An instruction's "kind" is no length.
      length: on === "execute" ? 1 : parseInt(length, 16),
    };
    if (!adds) this.#target.removePoint(point);
    else if (!this.#target.addPoint(point)) return NO_SPACE;
    return OK;
  }

  // Going on and stopping.

  /** `c [ADDRESS]`, `C SIGNAL[;ADDRESS]` and the same with `s`; signals mean nothing to a guest. */
  #resumeAt(action: Resume, command: string, rest: string): string | undefined {
    const address = command === "C" || command === "S" ? rest.split(";")[1] : rest;
    const cpu = this.#resumed ?? this.#current;
    if (address) {
      const registers = this.#target.registers(cpu);
      registers.set(RIP, littleEndian(parseAddress(address)));
      registers.write();
    }
    const actions = Array.from(
      { length: this.#target.cpus },
      (_, i): Resume => i === cpu ? action : "continue",
    );
    return this.#resume(actions);
  }

  #v(text: string): string | undefined {
    if (text === "vCont?") return "vCont;c;C;s;S";
    if (text.startsWith("vKill")) {
      this.#send(OK);
      this.#target.kill();
      return undefined;
    }
    if (!text.startsWith("vCont;")) return UNKNOWN;
    if (this.#target.running) return INVALID;
    const actions = new Array<Resume>(this.#target.cpus).fill("hold");
    // Of several actions for a thread the first counts.
    for (const part of text.split(";").slice(1).reverse()) {
      if (!this.#putAction(actions, part)) return INVALID;
    }
    return this.#resume(actions);
  }

  /** `ACTION[:THREAD]`; without a thread it is for all. */
  #putAction(actions: Resume[], part: string): boolean {
    const [verb, id] = part.split(":");
    const action = /^[cC]/.test(verb) ? "continue" : /^[sS]/.test(verb) ? "step" : undefined;
    if (!action) return false;
    if (id === undefined || id === "-1") {
      actions.fill(action);
      return true;
    }
    const cpu = this.#cpu(id);
    if (cpu !== undefined) actions[cpu] = action;
    return cpu !== undefined;
  }

  #resume(actions: readonly Resume[]): undefined {
    this.#interrupted = false;
    this.#waits = true;
    try {
      this.#target.resume(actions);
    } catch (error) {
      this.#waits = false;
      throw error;
    }
  }

  #stopped(reason: StopReason): void {
    this.#stop = reason;
    if (reason.cpuIndex !== undefined) this.#current = reason.cpuIndex;
    if (!this.#waits) return;
    this.#waits = false;
    this.#send(this.#describeStop());
  }

  /** `T` packet: the signal, the thread, and the address that was watched. */
  #describeStop(): string {
    const { cpuIndex, point } = this.#stop;
    const signal = cpuIndex === undefined && this.#interrupted ? SIGINT : SIGTRAP;
    const watched = !point || point.on === "execute"
      ? ""
      : `${point.on === "write" ? "watch" : "awatch"}:${hex(point.address)};`;
    return `T${signal}thread:${hex(this.#current + 1)};${watched}`;
  }
}

/** Number of RIP among gdb's registers. */
const RIP = 16;

/** `qXfer:features:read:target.xml:OFFSET,LENGTH` */
function transfer(text: string): string {
  const [, object, operation, annex, range] = text.split(":");
  if (object !== "features" || operation !== "read" || annex !== "target.xml") return UNKNOWN;
  const [offset, length] = (range ?? "").split(",").map((number) => parseInt(number, 16));
  const description = targetDescription();
  const part = description.slice(offset, offset + length);
  return `${offset + length >= description.length ? "l" : "m"}${part}`;
}
