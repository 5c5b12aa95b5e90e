import assert from "node:assert/strict";
import { Errno, OsError } from "../../ffi/errno.ts";
import { NoKvm } from "../../ffi/kvm/system.ts";

Deno.test("NoKvm names the file, the reason and what to do", () => {
  const message = (errno: number) => new NoKvm(new OsError("open", errno, "'/dev/kvm'")).message;
  const load = "load the kernel module kvm_intel or kvm_amd; in a virtual machine, that needs " +
    "nested virtualization on its host";
  const texts: readonly (readonly [number, string])[] = [
    [Errno.ENOENT, `No such file or directory: ${load}`],
    [Errno.ENXIO, `No such device or address: ${load}`],
    [Errno.EACCES, "Permission denied: add this user to the group kvm"],
    [Errno.EPERM, "Operation not permitted: add this user to the group kvm"],
    [
      Errno.ENOTTY,
      "Inappropriate ioctl for device: it is not the device that the kernel module kvm makes",
    ],
  ];
  for (const [errno, text] of texts) {
    assert.equal(message(errno), `Could not access KVM kernel module: /dev/kvm: ${text}`);
  }
});
