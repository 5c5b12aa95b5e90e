/**
 * Disks and network cards: requests, frames and bytes a second, beside QEMU with the same guest, the same
 * image and the same options.
 *
 * What is measured is the time on the clock, and what each request, frame or byte takes of the processors'
 * time, which a busy host changes less. Denovo and QEMU take turns. Where there is a KVM, it runs the
 * guest in both; and the software CPU does, beside QEMU's `-accel tcg`.
 *
 * @module
 */
import { createSocket } from "node:dgram";
import { bundleCommand } from "../../cpr/update/bundle.ts";
import { whyNoKvm } from "../../ffi/kvm/system.ts";
import { noTap, openHostEnd } from "../tap_peer.ts";
import { isInstalled, processorSeconds, sleep, Workspace } from "./program.ts";
import { type BenchOptions, compare, type Measurement } from "./statistics.ts";

/** What the guest `virtio_bench` is told to do, and what a letter of its is then. */
interface Load {
  readonly name: string;
  readonly words: string;
  readonly unit: string;
  readonly count: number;
  readonly device: "disk" | "tap" | "loop";
  /** More options of the image. */
  readonly image?: string;
}

const REQUESTS = { unit: "requests/s", count: 500, device: "disk" } as const;
const MEGABYTES = { unit: "MiB/s", count: 20, device: "disk" } as const;
const DIRECT = "cache.direct=on";
/** Requests that are made at once; on each side it is `threads` unless given. */
const AT_ONCE = "aio=io_uring";
const BOTH = `${DIRECT},${AT_ONCE}`;
const FRAMES = 2000;

/** Without `cache.direct`, the image is in the host's page cache. */
const loads: readonly Load[] = [
  { name: "read 4 KiB anywhere", words: "read single", ...REQUESTS },
  { name: "read 4 KiB anywhere, 32 at a time", words: "read", ...REQUESTS },
  { name: "read by aio=io_uring", words: "read", ...REQUESTS, image: AT_ONCE },
  { name: "read by cache.direct", words: "read", ...REQUESTS, image: DIRECT },
  { name: "read by cache.direct and io_uring", words: "read", ...REQUESTS, image: BOTH },
  { name: "write 4 KiB anywhere, 32 at a time", words: "write", ...REQUESTS },
  { name: "write by aio=io_uring", words: "write", ...REQUESTS, image: AT_ONCE },
  { name: "write by cache.direct", words: "write", ...REQUESTS, image: DIRECT },
  { name: "write by cache.direct and io_uring", words: "write", ...REQUESTS, image: BOTH },
  { name: "read 1 MiB in a row, 4 at a time", words: "read large", ...MEGABYTES },
  { name: "write 1 MiB in a row, 4 at a time", words: "write large", ...MEGABYTES },
  {
    ...{ name: "60 bytes to a tap", words: "send", unit: "frames/s" },
    ...{ count: FRAMES, device: "tap" },
  },
  {
    ...{ name: "1,514 bytes to a tap", words: "send large", unit: "MB/s" },
    ...{ count: FRAMES * 1514e-6, device: "tap" },
  },
  {
    ...{ name: "60 bytes to itself by a socket", words: "loop", unit: "frames/s" },
    ...{ count: FRAMES, device: "loop" },
  },
  {
    ...{ name: "32,000 bytes to itself by a socket", words: "loop large", unit: "MB/s" },
    ...{ count: FRAMES * 32_000e-6, device: "loop" },
  },
];

const IMAGE_SIZE = 64 << 20;
const TAP = `dnvb${Deno.pid % 1_000_000}`;
const MACHINE = "-M microvm,acpi=off -m 64M -display none -serial stdio -no-reboot -nodefaults";

/** Measures each load on each accelerator. */
export async function* devices({ quick }: BenchOptions): AsyncGenerator<Measurement> {
  await using workspace = await Workspace.create();
  const kernel = await workspace.guest("virtio_bench");
  const image = `${workspace.path}/disk.img`;
  await Deno.writeFile(image, new Uint8Array(IMAGE_SIZE).fill(1));
  const denovo = await bundleCommand();
  const qemu = ["qemu-system-x86_64", "-global", "virtio-mmio.force-legacy=false"];
  const hasQemu = await isInstalled(qemu[0]);
  if (!hasQemu) console.warn(`SKIPPED: devices in QEMU: ${qemu[0]} is not installed`);
  const withoutKvm = whyNoKvm();
  if (withoutKvm !== undefined) console.warn(`SKIPPED: devices with KVM: ${withoutKvm}`);
  for (const accelerator of withoutKvm === undefined ? ["tcg", "kvm"] : ["tcg"]) {
    for (const load of loads) {
      if (load.device === "tap" && noTap !== undefined) {
        console.warn(`SKIPPED: devices: ${load.name}: ${noTap}`);
        continue;
      }
      const options = [
        ...["-accel", accelerator, ...MACHINE.split(" "), "-kernel", kernel],
        ...["-append", `isa ${load.words}`, ...await deviceOptions(load, image)],
      ];
      const isTap = load.device === "tap";
      const [ours, theirs]: Rate[][] = [[], []];
      for (let turn = 0; turn < (quick ? 1 : 7); turn++) {
        const seconds = quick ? 1 : 3;
        ours.push(await letterRate([...denovo, ...options], isTap, seconds));
        if (hasQemu) theirs.push(await letterRate([...qemu, ...options], isTap, seconds));
      }
      yield* results(`${accelerator}: ${load.name}`, load, ours, theirs);
    }
  }
}

function* results(
  name: string,
  { unit, count }: Load,
  ours: readonly Rate[],
  theirs: readonly Rate[],
): Generator<Measurement> {
  const perSecond = (rates: readonly Rate[]) => rates.map(({ letters }) => count * letters);
  yield* compare(name, unit, perSecond(ours), perSecond(theirs), "at least 1");
  if (theirs.length === 0) return;
  yield {
    name: `${name}, processor time`,
    unit: "x",
    samples: ours.map(({ processor }, i) => processor / theirs[i].processor),
    aim: "at most 1",
  };
}

/** The options of the device that a load is for. */
async function deviceOptions(
  { device, image: more }: Load,
  image: string,
): Promise<string[]> {
  switch (device) {
    case "disk": {
      const node = ["driver=file", "node-name=disk", `filename=${image}`, ...more ? [more] : []];
      return ["-blockdev", node.join(), "-device", "virtio-blk-device,drive=disk"];
    }
    case "tap":
      return card(`tap,id=n,ifname=${TAP},script=no,downscript=no`);
    case "loop": {
      // Both ends of the network are one socket.
      const port = await freePort();
      const end = (name: string) => `${name}.type=inet,${name}.host=127.0.0.1,${name}.port=${port}`;
      return card(`dgram,id=n,${end("local")},${end("remote")}`);
    }
  }
}

function card(netdev: string): string[] {
  return ["-netdev", netdev, "-device", "virtio-net-device,netdev=n"];
}

/** A UDP port that nobody uses. */
async function freePort(): Promise<number> {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

/** How fast a guest prints letters. */
interface Rate {
  /** Letters a second. */
  readonly letters: number;
  /** Seconds of processor time for each. */
  readonly processor: number;
}

/** How fast a guest prints letters over some `seconds`. */
async function letterRate(
  argv: readonly string[],
  isTap: boolean,
  seconds: number,
): Promise<Rate> {
  const command = new Deno.Command(argv[0], {
    args: argv.slice(1),
    stdin: "null",
    stdout: "piped",
  });
  const child = command.spawn();
  const letters = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const next = async () => {
    const { value } = await letters.read();
    if (value === undefined || /[^.]/.test(value)) {
      throw new Error(`The guest of ${argv[0]} has stopped: ${value ?? "it has ended"}`);
    }
    return value.length;
  };
  const limit = setTimeout(() => child.kill("SIGKILL"), 60_000 + 1000 * seconds);
  try {
    if (isTap) await switchOn(TAP);
    await next();
    // What is slow at first is no part of it.
    for (const start = performance.now(); performance.now() - start < 500;) await next();
    const [start, used] = [performance.now(), processorSeconds(child.pid)];
    let [count, end] = [0, start];
    for (; end - start < 1000 * seconds; end = performance.now()) count += await next();
    const processor = (processorSeconds(child.pid) - used) / count;
    return { letters: count / (end - start) * 1000, processor };
  } finally {
    clearTimeout(limit);
    child.kill("SIGKILL");
    await letters.cancel();
    await child.status;
  }
}

/** Switches an interface on as soon as it is there. @throws {Error} if that takes a minute */
async function switchOn(ifname: string): Promise<void> {
  for (const start = performance.now();; await sleep(5)) {
    try {
      return openHostEnd(ifname).close();
    } catch (error) {
      if (performance.now() - start > 60_000) throw error;
    }
  }
}
