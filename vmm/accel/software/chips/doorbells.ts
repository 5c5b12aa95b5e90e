/**
 * Doorbells: writes of the guest that are not carried out but told to somebody, as KVM's ioeventfds
 * (Documentation/virt/kvm/api.rst, KVM_IOEVENTFD).
 *
 * @module
 */

/** What is watched for, and who is told. */
export interface Doorbell {
  readonly space: "pio" | "mmio";
  readonly address: number;
  /** Bytes of the write: 1, 2, 4, or 0 for any. */
  readonly size: number;
  /** The only value that rings; any, if there is none. */
  readonly value?: number;
  /** Called on the thread of the vCPU that writes. */
  ring(): void;
}

/** The doorbells of a machine as one vCPU's thread knows them. */
export class Doorbells {
  readonly #byAddress = { pio: new Map<number, Doorbell[]>(), mmio: new Map<number, Doorbell[]>() };

  /** Adds one. @throws {Error} if the same write would ring another one too */
  add(doorbell: Doorbell): void {
    const byAddress = this.#byAddress[doorbell.space];
    const others = byAddress.get(doorbell.address) ?? [];
    if (others.some((other) => overlap(other, doorbell))) {
      const { space, address } = doorbell;
      throw new Error(`There is a doorbell at ${space} address 0x${address.toString(16)} already`);
    }
    byAddress.set(doorbell.address, [...others, doorbell]);
  }

  /** Takes one away; without effect if it is not there. */
  remove(doorbell: Doorbell): void {
    const byAddress = this.#byAddress[doorbell.space];
    const rest = (byAddress.get(doorbell.address) ?? []).filter((other) => other !== doorbell);
    if (rest.length === 0) byAddress.delete(doorbell.address);
    else byAddress.set(doorbell.address, rest);
  }

  /** The guest writes: rings, and returns true, if that is a doorbell. */
  write(space: "pio" | "mmio", address: number, size: number, value: number): boolean {
    const here = this.#byAddress[space].get(address);
    const match = here?.find((doorbell) =>
      (doorbell.size === 0 || doorbell.size === size) &&
      (doorbell.value === undefined || doorbell.value === value)
    );
    match?.ring();
    return match !== undefined;
  }
}

function overlap(a: Doorbell, b: Doorbell): boolean {
  const sizes = a.size === b.size || a.size === 0 || b.size === 0;
  const values = a.value === b.value || a.value === undefined || b.value === undefined;
  return sizes && values;
}
