/**
 * A program that is executed over a VMM: `refuse` goes back to the program before it, `arrive` tries
 * that too late, `tell` prints as JSON what it was left.
 *
 * @module
 */
import { receiveExec } from "../../cpr/modes/exec.ts";
import { fileStatus } from "../../ffi/fd.ts";

const received = receiveExec()!;
const [task] = Deno.args;
if (task === "refuse") {
  try {
    received.wayBack!.go("it was Monday");
  } catch (error) {
    console.log((error as Error).message);
  }
} else if (task === "arrive") {
  received.wayBack![Symbol.dispose]();
  received.wayBack!.go("too late");
  console.log("the guest stays");
} else {
  const { inheritance: { fds, values }, failure, wayBack } = received;
  console.log(JSON.stringify({
    fds: fds.map(({ name, id, fd }) => `${name} ${id} ${fileStatus(fd).ino}`),
    values: values.map(({ name, id, data }) => `${name} ${id} ${data}`),
    failure: failure && { ...failure, state: new TextDecoder().decode(failure.state) },
    hasWayBack: wayBack !== undefined,
  }));
}
