/**
 * Which virtio-serial device each console and port is on, and which number it has there.
 *
 * @module
 */
import { withDefaults } from "../../devices/device.ts";
import { checkMaxPorts, isSerialBus } from "../../devices/virtio/serial.ts";
import { type DeviceRequest, findDeviceType } from "../bus/device_set.ts";

/** A virtio-serial device, and the ports that it has so far. */
interface Bus {
  readonly id: string;
  readonly maxPorts: number;
  readonly ports: Map<number, string>;
}

/**
 * Plugs consoles and ports into the virtio-serial devices before them: the one that `bus` names, or the
 * first one.
 *
 * @throws {Error} in QEMU's words
 */
export function plugPorts(requests: readonly DeviceRequest[]): DeviceRequest[] {
  const buses: Bus[] = [];
  return requests.map((request) => {
    const type = findDeviceType(request.type);
    if (isSerialBus(request.type)) {
      const { max_ports: maxPorts } = withDefaults(type, request.properties);
      buses.push(makeBus(request.id, Number(maxPorts)));
    }
    return type.bus === "virtio-serial-bus" ? plug(request, buses) : request;
  });
}

function makeBus(id: string, maxPorts: number): Bus {
  checkMaxPorts(maxPorts);
  return { id, maxPorts, ports: new Map() };
}

function plug(request: DeviceRequest, buses: readonly Bus[]): DeviceRequest {
  const bus = findBus(request, buses);
  const { name = "", nr: wanted } = request.properties;
  const nr = wanted === undefined ? freeNumber(request.type, bus) : Number(wanted);
  if (bus.ports.has(nr)) throw new Error(`virtio-serial-bus: A port already exists at id ${nr}`);
  if (name !== "" && [...bus.ports.values()].includes(String(name))) {
    throw new Error(`virtio-serial-bus: A port already exists by name ${name}`);
  }
  if (nr >= bus.maxPorts) {
    throw new Error(
      `virtio-serial-bus: Out-of-range port id specified, max. allowed: ${bus.maxPorts - 1}`,
    );
  }
  bus.ports.set(nr, String(name));
  return { ...request, parent: bus.id, properties: { ...request.properties, nr } };
}

function findBus({ type, properties: { bus: name } }: DeviceRequest, buses: readonly Bus[]): Bus {
  const bus = name === undefined ? buses[0] : buses.find(({ id }) => `${id}.0` === name);
  if (bus) return bus;
  throw new Error(
    name === undefined
      ? `No 'virtio-serial-bus' bus found for device '${type}'`
      : `Bus '${name}' not found`,
  );
}

/** Number 0 is for a console, which old drivers look for there. */
function freeNumber(type: string, { ports, maxPorts }: Bus): number {
  if (type === "virtconsole" && !ports.has(0)) return 0;
  for (let nr = 1; nr < maxPorts; nr++) if (!ports.has(nr)) return nr;
  throw new Error("virtio-serial-bus: Maximum port limit for this device reached");
}
