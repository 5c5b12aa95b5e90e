/** KVM's own page tables for a guest's memory, filled before the guest uses it. */
import assert from "node:assert/strict";
import { OwnedFd, readAt } from "../../ffi/fd.ts";
import { Capability, ioctlValue } from "../../ffi/kvm/ioctl.ts";
import { KvmSystem } from "../../ffi/kvm/system.ts";
import { mapShared } from "../../ffi/memory.ts";
import { installKick } from "../../ffi/process.ts";
import { KvmAccelerator } from "../../vmm/accel/kvm/system.ts";
import { GuestMemory, openBackend } from "../../vmm/machine/guest_memory.ts";
import { prefault, prefaultGuest } from "../../vmm/machine/prefault.ts";
import { noKvm, onlyKvmTest } from "../needs_kvm.ts";
import { backendConfig } from "../vmm/memory_backends.ts";

/** KVM_GET_STATS_FD (linux/kvm.h). */
const GET_STATS_FD = 0xaece;
const SIZE = 64 << 20;
const PAGES = [3, 4, 5, 600, 9000];

/** A number that KVM keeps of a VM (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD). */
function statistic(vmFd: number, name: string): bigint {
  using fd = new OwnedFd(ioctlValue(vmFd, GET_STATS_FD));
  const read = (length: number, at: number) => {
    const bytes = new Uint8Array(length);
    readAt(fd.fd, bytes, at);
    return new DataView(bytes.buffer);
  };
  const header = read(24, 0);
  const [nameSize, count, , descriptors, data] = [4, 8, 12, 16, 20]
    .map((at) => header.getUint32(at, true));
  for (let index = 0; index < count; index++) {
    const descriptor = read(16 + nameSize, descriptors + index * (16 + nameSize));
    const text = new TextDecoder().decode(new Uint8Array(descriptor.buffer, 16));
    if (text.slice(0, text.indexOf("\0")) !== name) continue;
    return read(8, data + descriptor.getUint32(8, true)).getBigUint64(0, true);
  }
  throw new Error(`KVM keeps no '${name}'`);
}

/** Whether this KVM can: Linux 6.11 and later, where page tables are nested. */
function canPrefault(): boolean {
  if (noKvm !== undefined) return false;
  using system = new KvmSystem();
  return system.capability(Capability.PRE_FAULT_MEMORY) > 0;
}

onlyKvmTest("KVM has the pages that memory has in its tables before the guest runs", () => {
  installKick();
  const backend = openBackend(backendConfig({ size: SIZE }));
  using elsewhere = mapShared(backend.fd!.fd, SIZE);
  for (const page of PAGES) elsewhere.write(page * 4096, Uint8Array.of(1));
  using accelerator = new KvmAccelerator();
  using vm = accelerator.createVm({
    pit: false,
    pic: true,
    cpus: [{ apicId: 0, cpuid: accelerator.supportedCpuid() }],
  });
  const memory = new GuestMemory(backend);
  memory.attach(vm);
  const pages = () => statistic(vm.interruptsDescription.vmFd, "pages_4k");
  const before = pages();
  prefault(backend, 60_000);
  prefaultGuest(memory, vm, 60_000);
  assert.equal(pages() - before, BigInt(PAGES.length));
  prefaultGuest(memory, vm, 60_000);
  assert.equal(pages() - before, BigInt(PAGES.length), "once is enough");
  // What makes KVM drop its tables, as a rehearsal does.
  const slot = { slot: 9, gpa: 0x4000_0000, size: 4096, readonly: false };
  vm.setMemory({ ...slot, address: backend.mapping.address });
  vm.removeMemory({ ...slot, address: backend.mapping.address });
  prefaultGuest(memory, vm, 60_000);
  assert.ok(pages() >= BigInt(PAGES.length));
  vm.close();
  backend.mapping.close();
  backend.fd!.close();
}, !canPrefault());
