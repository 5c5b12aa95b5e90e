/**
 * Replaces itself by the command in its arguments, with GREETING set and HOME removed. If that fails
 * it prints the error and goes on.
 */
import { PreparedExec } from "../../ffi/process.ts";

const prepared = new PreparedExec(Deno.args, { GREETING: "hello", HOME: undefined });
try {
  prepared.exec();
} catch (error) {
  console.log(`${Deno.pid} ${(error as Error).message}`);
}
