/* Virtio devices as PCI functions: found by configuration space in memory, with registers in the 32-bit window. */
#include "virtio.h"

#define ECAM 0xe0000000u
#define WINDOW 0xc0000000u
/* Of each function: its registers, and behind them its messages. */
#define ROOM 0x10000u
#define SLOTS 32
#define FIRST_IRQ 16
/* Base address registers, and offsets in configuration space. */
enum { COMMAND = 0x04, HEADER_TYPE = 0x0e, BAR = 0x10, CAPABILITIES = 0x34 };
enum { BUS_NUMBERS = 0x18, MEMORY_WINDOW = 0x20, PREFETCHABLE_WINDOW = 0x24 };
enum { EXPRESS_CAPABILITY = 0x10, SLOT_CONTROL = 0x18, SLOT_STATUS = 0x1a };
enum { POWERED = 0x1c0, SWITCHED_OFF = 0x7c0, BUTTON = 1, SLOT_EVENTS = 0x11f, PRESENT = 1 << 6 };
#define MIB 0x100000u
enum { MEMORY = 2, MASTER = 4 };
enum { VENDOR_CAPABILITY = 9, MSIX_CAPABILITY = 0x11, MSIX_ENABLE = 1 << 15 };
enum { COMMON = 1, NOTIFY, ISR, DEVICE };
enum { QUEUE_VECTOR = 0x1a, CONFIG_VECTOR = 0x10 };

static uint8_t read8(uintptr_t at) { return *(volatile uint8_t *)at; }
static uint16_t read16(uintptr_t at) { return *(volatile uint16_t *)at; }
static void write8(uintptr_t at, uint8_t value) { *(volatile uint8_t *)at = value; }
static void write16(uintptr_t at, uint16_t value) { *(volatile uint16_t *)at = value; }

/* Where a register of mmio is in the common structure, and its size; 0 for none. */
static const struct {
	uint8_t at, size;
} places[0x100] = {
	[DEVICE_FEATURES_SEL] = { 0x00, 4 },
	[DEVICE_FEATURES] = { 0x04, 4 },
	[DRIVER_FEATURES_SEL] = { 0x08, 4 },
	[DRIVER_FEATURES] = { 0x0c, 4 },
	[STATUS] = { 0x14, 1 },
	[QUEUE_SEL] = { 0x16, 2 },
	[QUEUE_NUM_MAX] = { 0x18, 2 },
	[QUEUE_NUM] = { 0x18, 2 },
	[QUEUE_READY] = { 0x1c, 2 },
	[QUEUE_DESC] = { 0x20, 4 },
	[QUEUE_DESC + 4] = { 0x24, 4 },
	[QUEUE_DRIVER] = { 0x28, 4 },
	[QUEUE_DRIVER + 4] = { 0x2c, 4 },
	[QUEUE_DEVICE] = { 0x30, 4 },
	[QUEUE_DEVICE + 4] = { 0x34, 4 },
	[QUEUE_RESET] = { 0x3a, 2 },
};

uint32_t get_pci_register(const struct device *dev, unsigned reg)
{
	if (reg >= CONFIG)
		return read32(dev->config + reg - CONFIG);
	if (reg == INTERRUPT_STATUS)
		return read8(dev->isr);
	uintptr_t at = dev->common + places[reg].at;
	switch (places[reg].size) {
	case 1:
		return read8(at);
	case 2:
		return read16(at);
	case 4:
		return read32(at);
	}
	fail("there is no such register", reg, 0);
}

void set_pci_register(const struct device *dev, unsigned reg, uint32_t value)
{
	uintptr_t at = dev->common + places[reg].at;
	if (reg >= CONFIG)
		write32(dev->config + reg - CONFIG, value);
	else if (reg == QUEUE_NOTIFY)
		write16(dev->notify + 4 * value, value);
	else if (places[reg].size == 1)
		write8(at, value);
	else if (places[reg].size == 2)
		write16(at, value);
	else if (places[reg].size == 4)
		write32(at, value);
	else
		fail("there is no such register", reg, 1);
}

static void find_structure(struct device *dev, uintptr_t capability, uintptr_t registers)
{
	uintptr_t at = registers + read32(capability + 8);
	switch (read8(capability + 3)) {
	case COMMON:
		dev->common = at;
		break;
	case NOTIFY:
		dev->notify = at;
		break;
	case ISR:
		dev->isr = at;
		break;
	case DEVICE:
		dev->config = at;
		break;
	}
}

/* All vectors send the same message, to the first processor. */
static void set_messages_up(uintptr_t capability, uintptr_t table, unsigned number)
{
	unsigned vectors = (read16(capability + 2) & 0x7ff) + 1;
	for (unsigned i = 0; i < vectors; i++) {
		write32(table + 16 * i, 0xfee00000);
		write32(table + 16 * i + 4, 0);
		write32(table + 16 * i + 8, 0x30 + number);
		write32(table + 16 * i + 12, 0);
	}
	write16(capability + 2, MSIX_ENABLE);
}

static void switch_on(struct device *dev, unsigned number, uintptr_t registers)
{
	uintptr_t messages = registers + ROOM / 2;
	write32(dev->base + BAR + 4 * 1, messages);
	write32(dev->base + BAR + 4 * 4, registers);
	write32(dev->base + BAR + 4 * 5, 0);
	write16(dev->base + COMMAND, MEMORY | MASTER);
	for (unsigned at = read8(dev->base + CAPABILITIES); at; at = read8(dev->base + at + 1)) {
		uintptr_t capability = dev->base + at;
		if (read8(capability) == VENDOR_CAPABILITY)
			find_structure(dev, capability, registers);
		else if (read8(capability) == MSIX_CAPABILITY && dev->messages)
			set_messages_up(capability, messages, number);
	}
}

/* Behind the port of a slot is the bus of a number more, with a MiB of addresses. */
static void set_port_up(uintptr_t port, unsigned slot)
{
	unsigned bus = slot + 1, window = (WINDOW + bus * MIB) >> 16;
	write32(port + BUS_NUMBERS, bus << 8 | bus << 16);
	write32(port + MEMORY_WINDOW, window | window << 16);
	write32(port + PREFETCHABLE_WINDOW, 0x0000fff0);
	write16(port + COMMAND, MEMORY | MASTER);
}

static uintptr_t slot_of(uintptr_t port)
{
	for (unsigned at = read8(port + CAPABILITIES); at; at = read8(port + at + 1))
		if (read8(port + at) == EXPRESS_CAPABILITY)
			return port + at;
	fail("a port has no slot", port, 0);
}

/* Waits until there is a function of a kind behind a port. */
static void find_behind_port(struct device *dev, unsigned kind, unsigned number)
{
	for (unsigned slot = 0;; slot = (slot + 1) % SLOTS) {
		uintptr_t port = ECAM + (slot << 15);
		if (read32(port) == 0xffffffff || (read8(port + HEADER_TYPE) & 0x7f) != 1)
			continue;
		dev->slot = slot_of(port);
		if (!(read16(dev->slot + SLOT_STATUS) & PRESENT))
			continue;
		write16(dev->slot + SLOT_STATUS, SLOT_EVENTS);
		write16(dev->slot + SLOT_CONTROL, POWERED);
		set_port_up(port, slot);
		dev->base = ECAM + ((slot + 1) << 20);
		if (read32(dev->base) != (0x10401af4u | kind << 16))
			continue;
		dev->messages = 1;
		dev->irq = 0;
		return switch_on(dev, number, WINDOW + (slot + 1) * MIB);
	}
}

int is_wanted_back(const struct device *dev)
{
	return dev->slot && (read16(dev->slot + SLOT_STATUS) & BUTTON);
}

void give_up(struct device *dev)
{
	write16(dev->slot + SLOT_STATUS, SLOT_EVENTS);
	write16(dev->slot + SLOT_CONTROL, SWITCHED_OFF);
	if (read16(dev->slot + SLOT_STATUS) & PRESENT)
		fail("a device that was given up is present", 0, 0);
	if (read32(dev->base) != 0xffffffff)
		fail("a device that was given up is there", read32(dev->base), 0);
}

void find_function(struct device *dev, unsigned kind, unsigned number, enum transports how)
{
	if (how == PCI_PORT)
		return find_behind_port(dev, kind, number);
	for (unsigned slot = 0; slot < SLOTS; slot++) {
		dev->base = ECAM + (slot << 15);
		if (read32(dev->base) != (0x10401af4u | kind << 16))
			continue;
		dev->messages = how == PCI;
		dev->irq = dev->messages ? 0 : FIRST_IRQ + slot % 4;
		if (!dev->messages)
			route_interrupt(dev->irq, number, 0);
		switch_on(dev, number, WINDOW + slot * ROOM);
		return;
	}
	fail("there is no function", 0, kind);
}

void choose_messages(struct device *dev) { write16(dev->common + CONFIG_VECTOR, 0); }

void choose_queue_message(struct device *dev) { write16(dev->common + QUEUE_VECTOR, 1); }
