/**
 * Sockets, dies, cores and threads, and the APIC ids that encode them.
 *
 * An APIC id is a bit field for each level, the thread lowest, each as wide as its level's count
 * needs (Intel SDM volume 3, "Hierarchical Mapping of Shared Resources").
 *
 * @module
 */

/** How many of each level the next outer one holds. */
export interface CpuTopology {
  /** Sockets on the board. */
  readonly sockets: number;
  /** Dies a socket. */
  readonly dies: number;
  /** Cores a die. */
  readonly cores: number;
  /** Threads a core. */
  readonly threads: number;
}

/** The lowest bit of each level in an APIC id; the thread's is bit 0. */
export interface ApicIdShifts {
  /** Width of the thread's field. */
  readonly core: number;
  /** Width of the thread's and core's fields. */
  readonly die: number;
  /** Width of all that is inside a socket. */
  readonly socket: number;
}

/** The highest APIC id of an xAPIC: 255 addresses all of them. */
const MAX_APIC_ID = 254;

/** Bits needed to number `count` things. */
const width = (count: number) => 32 - Math.clz32(count - 1);

/** Where the levels of a topology lie in its APIC ids. */
export function apicIdShifts({ dies, cores, threads }: CpuTopology): ApicIdShifts {
  const core = width(threads);
  const die = core + width(cores);
  return { core, die, socket: die + width(dies) };
}

/** Threads of a socket. */
export function threadsPerSocket({ dies, cores, threads }: CpuTopology): number {
  return dies * cores * threads;
}

/** A vCPU's place. */
export interface CpuPlace {
  /** Socket on the board. */
  readonly socket: number;
  /** Die in its socket. */
  readonly die: number;
  /** Core in its die. */
  readonly core: number;
  /** Thread in its core. */
  readonly thread: number;
}

/** The place of the vCPU with this index: threads are filled first, sockets last. */
export function cpuPlace(topology: CpuTopology, index: number): CpuPlace {
  const { dies, cores, threads } = topology;
  return {
    thread: index % threads,
    core: Math.floor(index / threads) % cores,
    die: Math.floor(index / (threads * cores)) % dies,
    socket: Math.floor(index / threadsPerSocket(topology)),
  };
}

/**
 * The APIC id of the vCPU with this index.
 *
 * @throws {RangeError} if it is above 254, which needs x2APIC addressing
 */
export function apicId(topology: CpuTopology, index: number): number {
  const { socket, die, core, thread } = cpuPlace(topology, index);
  const shifts = apicIdShifts(topology);
  // Multiplied, because a shift would wrap at 32 bits.
  const id = socket * 2 ** shifts.socket + die * 2 ** shifts.die + core * 2 ** shifts.core + thread;
  if (id > MAX_APIC_ID) {
    throw new RangeError(
      `CPU ${index} would have APIC ID ${id} but ${MAX_APIC_ID} is the highest: ` +
        "use fewer CPUs or counts of cores and threads that are powers of two",
    );
  }
  return id;
}
