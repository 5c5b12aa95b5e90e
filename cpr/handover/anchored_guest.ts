/**
 * A guest that an anchor runs (`ffi/anchor.ts`) while its VMM executes its successor: what the new image
 * finds of it.
 *
 * The devices' state has come as a stream, and does not change while the guest is there: a vCPU that
 * touches a device waits. All the rest is in the VM that the anchor has, and is read from there when
 * everything else is done.
 *
 * @module
 */
import { Anchor } from "../../ffi/anchor.ts";
import { Epoll } from "../../ffi/event.ts";
import type { OwnedFd } from "../../ffi/fd.ts";
import type { FdRequirement } from "../../ffi/fd_requirement.ts";
import { RunPage } from "../../ffi/kvm/run.ts";
import { type MappedRegion, mapShared } from "../../ffi/memory.ts";
import type { Reactor } from "../../ffi/reactor.ts";
import { AnchoredHardware } from "../../vmm/accel/kvm/anchored.ts";
import type { HandedFd, Inheritance } from "../../vmm/inheritance.ts";
import type { Machine } from "../../vmm/machine/machine.ts";
import { ExitServer } from "../../vmm/threads/exit_server.ts";
import type { DevicesState } from "../state/devices_state.ts";
import { VmImage } from "../state/vm_state.ts";
import { encodeStream, type Section, StateError } from "../stream/stream.ts";

/** What the mailbox and the vCPUs' descriptors are handed over as. */
const ANCHOR = "anchor";
const ANCHOR_VCPU = "anchor/vcpu";
/** Both sides write to it, and nobody may take it away from under the other. */
const mailboxFd: FdRequirement = { kind: "file", sealed: true, writable: true };

/** What a new image is handed of an anchor. */
export function anchorFds(anchor: Anchor): HandedFd[] {
  const vcpus = Array.from({ length: anchor.vcpus }, (_, i) => anchor.vcpuFd(i));
  return [
    { name: ANCHOR, id: "", fd: anchor.memory.fd },
    ...vcpus.map((fd, i) => ({ name: ANCHOR_VCPU, id: `${i}`, fd })),
  ];
}

/** The devices' state, as it was saved, with what the successor must agree with. */
export function devicesStream(
  constants: readonly Section[],
  devices: DevicesState,
): Uint8Array<ArrayBuffer> {
  return encodeStream([...constants, ...devices.sections, ...devices.subsections()]);
}

/** What it takes to get a guest's state into a machine. */
interface Connected {
  readonly hardware: AnchoredHardware;
  /** Serves the exits that wait, on the machine's devices. */
  readonly server: ExitServer;
  /** The machine's devices with the anchor's hardware. */
  readonly image: VmImage;
}

/** One guest in an anchor, as the new image has it. */
export class AnchoredGuest {
  /** The devices' state: a stream. */
  state: Uint8Array<ArrayBuffer>;
  readonly #anchor: Anchor;
  readonly #vcpus: readonly OwnedFd[];
  readonly #pages: MappedRegion[] = [];
  #connected: Connected | undefined;

  private constructor(
    anchor: Anchor,
    vcpus: readonly OwnedFd[],
    state: Uint8Array<ArrayBuffer>,
  ) {
    this.#anchor = anchor;
    this.#vcpus = vcpus;
    this.state = state;
  }

  /**
   * Takes what the old image has left.
   *
   * @param inheritance the descriptors
   * @param state the devices' state
   * @throws {Error} if it makes no sense
   */
  static takeOver(inheritance: Inheritance, state: Uint8Array<ArrayBuffer>): AnchoredGuest {
    const memory = inheritance.takeFd(ANCHOR, "", mailboxFd);
    if (!memory) throw new StateError(`File descriptor '${ANCHOR}' is missing`);
    const anchor = Anchor.takeOver(memory);
    const vcpus = Array.from({ length: anchor.vcpus }, (_, i) => {
      const fd = inheritance.takeFd(ANCHOR_VCPU, `${i}`, {});
      if (!fd) throw new StateError(`File descriptor '${ANCHOR_VCPU}' ${i} is missing`);
      return fd;
    });
    return new AnchoredGuest(anchor, vcpus, state);
  }

  /** Whether the guest is no more. */
  get hasEnded(): boolean {
    return this.#anchor.hasEnded;
  }

  /**
   * Makes what it takes to get the guest's state into a machine.
   *
   * @throws {Error} if the machine is not one of as many vCPUs in KVM
   */
  connect(machine: Machine): Connected {
    return this.#connected ??= this.#connect(machine);
  }

  #connect(machine: Machine): Connected {
    const { vcpus } = machine.hardware;
    if (vcpus.length !== this.#vcpus.length) {
      throw new StateError(`The guest has ${this.#vcpus.length} vCPUs, this VM ${vcpus.length}`);
    }
    const pages = this.#vcpus.map(({ fd }, i) => {
      const { description } = vcpus[i];
      if (description.accelerator !== "kvm") {
        throw new StateError("A guest in KVM can only be taken out of an anchor with -accel kvm");
      }
      const mapping = mapShared(fd, description.runSize);
      this.#pages.push(mapping);
      return new RunPage(mapping.address, mapping.size);
    });
    const hardware = new AnchoredHardware(this.#anchor, pages, machine.hardware);
    const server = new ExitServer(machine, hardware.interrupts);
    return { hardware, server, image: new VmImage(machine, hardware) };
  }

  /** The guest has left: ends the anchor, and closes what was there of it. */
  left(reactor: Reactor): void {
    const child = this.#anchor.dismiss();
    this.#anchor[Symbol.dispose]();
    for (const page of this.#pages) page.close();
    for (const fd of this.#vcpus) fd.close();
    reactor.add(child.pidfd.fd, Epoll.IN, () => {
      reactor.remove(child.pidfd.fd);
      child.wait();
      child[Symbol.dispose]();
    });
  }
}
