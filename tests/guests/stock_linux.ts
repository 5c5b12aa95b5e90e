/**
 * Debian's kernel for clouds as it is, with an initial RAM disk of busybox and a few modules: fetched by
 * apt, and kept in the user's cache.
 *
 * @module
 */
import { dirname } from "node:path";
import { cacheFolder, exists, NoLab, shortHash } from "../lab/host.ts";
import { addModules, fetchKernel, packInitrd } from "../lab/recipe.ts";

/** Files to start a VM with. */
export interface StockLinux {
  readonly kernel: string;
  readonly initrd: string;
}

/** What is in the initial RAM disk beside busybox. */
export interface Contents {
  /** Process 1: a shell script. It finds the modules in /m, and their order in /m/order. */
  readonly init: string;
  /** Modules; those that they depend on come with them. */
  readonly modules: readonly string[];
}

/** What a test looks at comes on the console, and the last thing is to power off. */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin; export PATH=/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for module in $(cat /m/order); do insmod /m/$module; done
echo STOCK UP
cat /proc/interrupts
echo mem >/sys/power/state
echo STOCK AWAKE
echo $(head -c 100 /dev/hwrng | wc -c) random bytes
echo port $(cat /sys/class/virtio-ports/vport*p1/name)
exec 4<>$(ls /dev/vport*p1)
head -n 1 <&4 | tr a-z A-Z >&4
echo console up >/dev/hvc0
button=$(grep -A 5 'Name="Power Button"' /proc/bus/input/devices | sed -n 's/.*\\(event[0-9]*\\).*/\\1/p')
exec 3</dev/input/$button
echo STOCK WAITS
echo pressed $(head -c 24 <&3 | hexdump -v -e '/1 "%02x"')
poweroff -f
`;

const MODULES = ["virtio_mmio", "virtio_rng", "virtio_console", "button", "evdev"];

async function make(folder: string, { init, modules: names }: Contents): Promise<StockLinux> {
  const linux = { kernel: `${folder}/vmlinuz`, initrd: `${folder}/initrd.gz` };
  if (exists(linux.initrd)) return linux;
  await Deno.mkdir(folder, { recursive: true });
  const modules = await fetchKernel({ folder, kernel: linux.kernel });
  const unfinished = `${linux.initrd}.made`;
  await packInitrd(unfinished, init, async (to) => {
    const order = await addModules(`${to}/m`, modules, names);
    await Deno.writeTextFile(`${to}/m/order`, order.join(" "));
  });
  await Deno.remove(`${folder}/kernel`, { recursive: true });
  await Deno.rename(unfinished, linux.initrd);
  return linux;
}

/**
 * The kernel, fetched now if it was not before.
 *
 * @param contents what it shall do, unless it is to show that it finds a machine by ACPI
 * @returns why there is none, as a sentence, if it cannot be had
 */
export async function stockLinux(
  contents: Contents = { init: INIT, modules: MODULES },
): Promise<StockLinux | string> {
  try {
    const name = await shortHash(contents.init + contents.modules);
    return await make(`${dirname(cacheFolder())}/stock-${name}`, contents);
  } catch (error) {
    if (error instanceof NoLab || error instanceof Deno.errors.NotFound) return error.message;
    throw error;
  }
}
