/** Which guests an anchor takes. */
import assert from "node:assert/strict";
import { whyNotAnchored } from "../../cpr/modes/anchor.ts";
import { defaultConfig, type MachineConfig } from "../../vmm/config.ts";
import type { VirtualMachine } from "../../vmm/virtual_machine.ts";

function refusal(changes: Partial<MachineConfig>): string | undefined {
  // What is looked at of a VM.
  return whyNotAnchored({
    config: { ...defaultConfig(), ...changes },
    machine: { accelerator: { name: "kvm", title: "KVM" }, hasPcie: false },
    blocks: { leavesFiles: false },
  } as unknown as VirtualMachine);
}

Deno.test("an anchor takes no guest with what is tied to the process that it leaves", () => {
  assert.equal(refusal({}), undefined);
  for (const driver of ["vhost-vsock-device", "vhost-vsock-pci"]) {
    const devices = [{ driver, properties: { "guest-cid": 3 } }];
    assert.equal(refusal({ devices }), "it does not go with vhost-vsock devices");
  }
});
