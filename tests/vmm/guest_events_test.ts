import assert from "node:assert/strict";
import { defaultConfig } from "../../vmm/config.ts";
import type { BlockError } from "../../vmm/block_set.ts";
import { EventHub } from "../../vmm/events.ts";
import { GuestEvents, type GuestOwner } from "../../vmm/guest_events.ts";
import type { Machine, MachineEvent } from "../../vmm/machine/machine.ts";
import { GuestEvent } from "../../vmm/threads/control_block.ts";

const vcpu = { index: 3 } as NonNullable<MachineEvent["vcpu"]>;

/** What is done with a running VM when an event comes. */
function doneAfter(
  event: number,
  { argument = 0, ...given }: { argument?: number } & Partial<GuestOwner> = {},
  againMs?: number,
): { did: string[]; vm: GuestOwner } {
  const did: string[] = [];
  const vm: GuestOwner = {
    machine: {} as Machine,
    events: new EventHub(),
    blocks: { takeErrors: () => [], takeCorruptions: () => [] },
    running: true,
    runState: "running",
    ending: new AbortController().signal,
    actions: defaultConfig().actions,
    debugStop: undefined,
    pause: (state) => void did.push(`pause ${state}`),
    suspend: () => void did.push("suspend"),
    reset: (reason) => void did.push(`reset ${reason}`),
    quit: (reason) => void did.push(`quit ${reason}`),
    notice: (text) => void did.push(text),
    log: (item, text) => void did.push(`${item}: ${text()}`),
    ...given,
  };
  vm.events.subscribe((event) => did.push(`${event.name} ${JSON.stringify(event.data)}`));
  const events = new GuestEvents(vm, (status) => void did.push(`end ${status}`), againMs);
  events.handle({ event, argument, vcpu });
  return { did, vm };
}

const withActions = (actions: Partial<GuestOwner["actions"]>) => ({
  actions: { ...defaultConfig().actions, ...actions },
});

Deno.test("`handle()` resets the machine when the guest asks, and on a triple fault", () => {
  assert.deepEqual(doneAfter(GuestEvent.RESET).did, ["reset guest-reset"]);
  assert.deepEqual(doneAfter(GuestEvent.TRIPLE_FAULT).did, [
    "guest_errors: CPU 3: triple fault",
    "reset guest-reset",
  ]);
});

Deno.test("`handle()` suspends the VM when its guest has put the machine to sleep", () => {
  assert.deepEqual(doneAfter(GuestEvent.SUSPEND).did, ["suspend"]);
});

Deno.test("`handle()` does nothing for vCPUs that rehearse, but says so if a thread has failed", () => {
  const waiting = { running: false, runState: "inmigrate" } as const;
  for (const event of Object.values(GuestEvent).filter((one) => one !== GuestEvent.THREAD_FAILED)) {
    assert.deepEqual(doneAfter(event, waiting).did, [], `event ${event}`);
  }
  assert.deepEqual(doneAfter(GuestEvent.THREAD_FAILED, waiting).did, [
    "pause internal-error",
    "CPU 3 thread failed",
  ]);
});

Deno.test("`handle()` tells the user why a reset failed", () => {
  const reset = () => {
    throw new Error("no such kernel");
  };
  // The VM is in the run state internal-error then.
  assert.deepEqual(doneAfter(GuestEvent.RESET, { reset, running: false }).did, ["no such kernel"]);
});

Deno.test("`handle()` asks again where a thread has not stopped", async () => {
  for (
    const [event, name] of [[GuestEvent.RESET, "reset"], [GuestEvent.SUSPEND, "suspend"]] as const
  ) {
    let tries = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const answer = () => {
      if (++tries < 3) throw new Error("I/O thread did not stop within 10 s");
      resolve();
    };
    const { did } = doneAfter(event, { [name]: answer }, 1);
    await promise;
    const notice = "I/O thread did not stop within 10 s";
    assert.deepEqual(did, [notice, notice]);
  }
});

Deno.test("`handle()` shuts down instead of a reset where that is the action", () => {
  const { did } = doneAfter(GuestEvent.RESET, withActions({ reboot: "shutdown" }));
  assert.deepEqual(did, ["quit guest-reset"]);
});

Deno.test("`handle()` ends the VM at the guest's shutdown, or keeps it to be looked at", () => {
  assert.deepEqual(doneAfter(GuestEvent.SHUTDOWN).did, ["quit guest-shutdown"]);
  const { did } = doneAfter(GuestEvent.SHUTDOWN, withActions({ shutdown: "pause" }));
  assert.deepEqual(did, [
    "pause shutdown",
    'SHUTDOWN {"guest":true,"reason":"guest-shutdown"}',
  ]);
});

Deno.test("`handle()` tells of a disk's errors, and stops the guest if one says so", () => {
  const error = { qomPath: "/machine/peripheral/vd0", drive: "d", nodeName: "n" } as const;
  const read = { ...error, operation: "read", action: "report", errno: 5 } as const;
  const write = { ...error, operation: "write", action: "stop", errno: 28 } as const;
  const told = (action: string, operation: string, nospace: boolean, reason: string) =>
    `BLOCK_IO_ERROR ${
      JSON.stringify({
        ...{ "qom-path": "/machine/peripheral/vd0", device: "d", "node-name": "n" },
        ...{ operation, action, nospace, reason },
      })
    }`;
  const corruption = { drive: "d", nodeName: "n", reason: "no sense" };
  const blocks = (...errors: BlockError[]) => ({
    takeErrors: () => errors,
    takeCorruptions: () => errors.length > 1 ? [corruption] : [],
  });
  const { did } = doneAfter(GuestEvent.DISK_ERROR, { blocks: blocks(read) });
  assert.deepEqual(did, [told("report", "read", false, "Input/output error")]);
  const both = doneAfter(GuestEvent.DISK_ERROR, { blocks: blocks(read, write) });
  assert.deepEqual(both.did, [
    'BLOCK_IMAGE_CORRUPTED {"device":"d","node-name":"n","msg":"no sense","fatal":true}',
    told("report", "read", false, "Input/output error"),
    told("stop", "write", true, "No space left on device"),
    "pause io-error",
  ]);
});

Deno.test("`handle()` does with a guest that crashed what the action says", () => {
  const panics: [GuestOwner["actions"]["panic"], string, string[]][] = [
    ["none", "poweroff", []],
    ["pause", "pause", ["pause guest-panicked"]],
    ["exit-failure", "poweroff", ["end 1"]],
    ["shutdown", "poweroff", ["quit guest-panic"]],
  ];
  for (const [panic, action, then] of panics) {
    const { did } = doneAfter(GuestEvent.CRASH, withActions({ panic }));
    assert.deepEqual(did, [`GUEST_PANICKED {"action":"${action}"}`, ...then]);
  }
});

Deno.test("`handle()` ends the VM with the low byte that isa-debug-exit was given", () => {
  assert.deepEqual(doneAfter(GuestEvent.DEBUG_EXIT, { argument: 0x1ff }).did, ["end 255"]);
});

Deno.test("`handle()` notes which vCPU a debugger has stopped, unless the VM stands already", () => {
  const { did, vm } = doneAfter(GuestEvent.DEBUG, { argument: 0x4001 });
  assert.deepEqual(did, ["pause debug"]);
  assert.deepEqual(vm.debugStop, { cpuIndex: 3, status: 0x4001 });
  const stopped = doneAfter(GuestEvent.DEBUG, { running: false });
  assert.deepEqual([stopped.did, stopped.vm.debugStop], [[], undefined]);
});

Deno.test("`handle()` stops the VM when one of its threads has failed", () => {
  assert.deepEqual(doneAfter(GuestEvent.THREAD_FAILED).did, [
    "pause internal-error",
    "CPU 3 thread failed",
  ]);
});

Deno.test("`handle()` does nothing for a VM that has ended", () => {
  for (const event of Object.values(GuestEvent)) {
    assert.deepEqual(doneAfter(event, { ending: AbortSignal.abort() }).did, []);
  }
});
