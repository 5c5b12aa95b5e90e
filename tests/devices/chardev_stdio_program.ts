/**
 * A program with a stdio backend that answers each byte with the byte in brackets: on `q` it closes
 * the backend, on `e` it exits without that, on `t` it throws. At the end of input it says so.
 */
import { openChardev } from "../../devices/chardev/open.ts";
import { Reactor } from "../../ffi/reactor.ts";

const reactor = new Reactor();
const host = { notice() {}, quit() {} };
const backend = openChardev({ backend: "stdio", id: "s", signal: Deno.args[0] === "signal" }, host);
const write = (text: string) => backend.write(new TextEncoder().encode(text));

backend.attach(reactor, {
  inputRoom: () => 1,
  input(data) {
    const key = String.fromCharCode(data[0]);
    if (key === "e") Deno.exit(3);
    if (key === "t") setTimeout(() => fail(), 0);
    if (key === "q") void end();
    else write(`[${key}]`);
  },
  event(event) {
    if (event === "opened") write("ready");
    else void end();
  },
  writable() {},
});

function fail(): never {
  throw new Error("on purpose");
}

async function end(): Promise<void> {
  write("end");
  backend.close();
  await reactor.close();
}
