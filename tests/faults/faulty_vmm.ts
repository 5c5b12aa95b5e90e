/**
 * The program with a fault at one step of an update: it dies there, stalls, or fails.
 *
 * The environment variable `DENOVO_TEST_FAULT`, which helpers and successors inherit, names a file.
 * While that file exists it is the fault that shall happen, JSON of {@linkcode Fault}; it happens
 * once. What happened goes to the same path with `.log` appended: one line for each step.
 *
 * @module
 */
import { observeSteps, type Step } from "../../cpr/migration/timeline.ts";
import { main } from "../../mod.ts";

/** Names the file to faulty programs. */
export const FAULT_FILE = "DENOVO_TEST_FAULT";

/** The parts that a process can play in an update. */
export const roles = ["old", "new", "helper-takes", "helper-gives"] as const;

/** What a process does in an update: a helper first takes the guest, then gives it away. */
export type Role = typeof roles[number];

/** What can happen: SIGKILL, SIGSTOP until somebody sends SIGCONT, or an error. */
export type Action = "kill" | "stop" | "throw";

/** One fault. */
export interface Fault {
  readonly role: Role;
  readonly step: Step;
  readonly action: Action;
}

/** Watches the steps of this process. */
function install(path: string): void {
  const relay = Deno.env.get("DENOVO_CPR_RELAY");
  const isHelper = relay !== undefined && !("helper" in JSON.parse(relay));
  let gives = false;
  observeSteps((step) => {
    if (step === "begin") gives = true;
    const role = isHelper ? gives ? "helper-gives" : "helper-takes" : gives ? "old" : "new";
    Deno.writeTextFileSync(`${path}.log`, `${role} ${step}\n`, { append: true });
    const fault = takeFault(path, role, step);
    if (fault?.action === "throw") throw new Error(`fault of ${role} at ${step}`);
    if (fault) Deno.kill(Deno.pid, fault.action === "kill" ? "SIGKILL" : "SIGSTOP");
  });
}

function takeFault(path: string, role: Role, step: Step): Fault | undefined {
  let fault: Fault;
  try {
    fault = JSON.parse(Deno.readTextFileSync(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  if (fault.role !== role || fault.step !== step) return undefined;
  Deno.removeSync(path);
  Deno.writeTextFileSync(`${path}.log`, `${role} ${step} ${fault.action}\n`, { append: true });
  return fault;
}

if (import.meta.main) {
  install(Deno.env.get(FAULT_FILE)!);
  Deno.exit(await main(Deno.args));
}
