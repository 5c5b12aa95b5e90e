/**
 * A driver of virtio devices behind the mmio transport: for tests.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { AttachedDisk } from "../../../devices/block/disk.ts";
import type { DeviceType, Properties } from "../../../devices/device.ts";
import type { NetPort } from "../../../devices/net/port.ts";
import type { VhostUserPort } from "../../../devices/vhost_user/port.ts";
import { Feature, Status } from "../../../devices/virtio/virtio_state.ts";
import { Rig, type RigMode } from "../fake_context.ts";
import {
  DESC,
  DEVICE,
  DRIVER,
  PackedDriver,
  SplitDriver,
  type TestDriver,
  TestMemory,
} from "./drivers.ts";

/** How far apart the rings of a device's queues are. */
const SHIFT = 0x1_0000;

/** A virtio device under test. */
export class VirtioRig extends Rig {
  readonly ram: TestMemory;
  /** What the driver has accepted. */
  features = 0n;

  constructor(
    type: DeviceType,
    mode: RigMode = "kept",
    properties: Properties = {},
    disk?: AttachedDisk,
    netdev?: NetPort,
    vhostUser?: VhostUserPort,
  ) {
    const memory = new TestMemory();
    const place = { "mmio-base": 0xfeb0_0e00, irq: 12 };
    super(
      type,
      mode,
      { ...properties, ...place },
      undefined,
      memory,
      disk,
      netdev,
      undefined,
      vhostUser,
    );
    this.ram = memory;
  }

  /** Reads a register. */
  get(register: number): number {
    return this.read(register, 4);
  }

  /** Writes a register. */
  set(register: number, value: number): void {
    this.write(register, value, 4);
  }

  /** The features that the device offers. */
  offered(): bigint {
    const words = [0, 1].map((word) => {
      this.set(0x14, word);
      return BigInt(this.get(0x10));
    });
    return words[0] | words[1] << 32n;
  }

  /** Resets the device and accepts features; virtio 1 among them. */
  negotiate(wanted: bigint): void {
    this.set(0x70, 0);
    this.set(0x70, Status.ACKNOWLEDGE);
    this.set(0x70, Status.ACKNOWLEDGE | Status.DRIVER);
    this.features = wanted | 1n << BigInt(Feature.VERSION_1);
    for (const word of [0, 1]) {
      this.set(0x24, word);
      this.set(0x20, Number(BigInt.asUintN(32, this.features >> BigInt(32 * word))));
    }
    this.set(0x70, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK);
    assert(this.get(0x70) & Status.FEATURES_OK, "the device refuses the features");
  }

  /** Sets a queue up. */
  setUp(index: number, size = 8): TestDriver {
    const has = (feature: number) => (this.features >> BigInt(feature) & 1n) !== 0n;
    const features = {
      packed: has(Feature.RING_PACKED),
      indirect: has(Feature.INDIRECT_DESC),
      eventIndex: has(Feature.EVENT_IDX),
    };
    const Driver = features.packed ? PackedDriver : SplitDriver;
    const shift = SHIFT * index;
    const driver = new Driver(this.ram, size, features, shift);
    this.set(0x30, index);
    assert.equal(this.get(0x44), 0);
    this.set(0x38, size);
    for (const [register, area] of [[0x80, DESC], [0x90, DRIVER], [0xa0, DEVICE]]) {
      this.set(register, area + shift);
      this.set(register + 4, 0);
    }
    this.set(0x44, 1);
    assert.equal(this.get(0x44), 1);
    return driver;
  }

  /** The driver is ready. */
  start(): void {
    this.set(0x70, this.get(0x70) | Status.DRIVER_OK);
    this.work();
  }

  /** Tells the device of requests in a queue, and lets it work. */
  notify(index: number): void {
    this.set(0x50, index);
    this.work();
  }

  /** Why there is an interrupt, which is acknowledged. */
  takeInterrupt(): number {
    assert.equal(this.context.levels[0] ?? false, this.get(0x60) !== 0);
    const causes = this.get(0x60);
    this.set(0x64, causes);
    assert.equal(this.context.levels[0] ?? false, false);
    return causes;
  }
}

/** A feature's bit. */
export function bit(feature: number): bigint {
  return 1n << BigInt(feature);
}

/** Registers a test that runs in every way in which devices run, with split and packed rings. */
export function virtioTest(
  name: string,
  type: DeviceType,
  run: (rig: VirtioRig, ringFeatures: bigint) => void,
  properties: Properties = {},
): void {
  for (const mode of ["kept", "shared", "saved"] as const) {
    for (const packed of [false, true]) {
      Deno.test(`${name} (${mode}, ${packed ? "packed" : "split"})`, () => {
        const rig = new VirtioRig(type, mode, { packed, ...properties });
        run(rig, packed ? bit(Feature.RING_PACKED) : 0n);
      });
    }
  }
}
