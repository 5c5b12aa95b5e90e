/**
 * TCP ports of this host, for tests.
 *
 * @module
 */

/** Below where a system gives ports to whoever wants any (ip(7), `ip_local_port_range`). */
const FIRST = 10_000;
const COUNT = 20_000;

/** Each process has some of its own, so that none is another's between its being free and its use. */
let next = Deno.pid * 61;

/** A TCP port that nobody has, and that the system gives to nobody. */
export function freePort(): number {
  for (;;) {
    const port = FIRST + next++ % COUNT;
    try {
      Deno.listen({ hostname: "0.0.0.0", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
