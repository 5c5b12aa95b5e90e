#include "virtio.h"

#define TRANSPORTS 0xfeb00000u

static struct device *devices[4];

uint32_t get_register(const struct device *dev, unsigned reg)
{
	return dev->common ? get_pci_register(dev, reg) : read32(dev->base + reg);
}

void set_register(const struct device *dev, unsigned reg, uint32_t value)
{
	if (dev->common)
		set_pci_register(dev, reg, value);
	else
		write32(dev->base + reg, value);
}

void guest_interrupt(unsigned number)
{
	struct device *dev = devices[number];
	uint32_t causes = get_register(dev, INTERRUPT_STATUS);
	if (!dev->common)
		set_register(dev, INTERRUPT_ACK, causes);
	if (dev->messages)
		causes |= USED_BUFFER;
	dev->causes |= causes;
	dev->interrupts++;
}

enum transports transports_of(const void *start_info)
{
	return has_word(start_info, "pci") ? PCI :
	       has_word(start_info, "pci-port") ? PCI_PORT :
	       has_word(start_info, "pci-line") ? PCI_LINE :
	       has_word(start_info, "isa") ? ISA :
	       has_word(start_info, "one-ioapic") ? ACPI_ONE_IOAPIC : ACPI;
}

void find_device(struct device *dev, unsigned kind, unsigned number, enum transports how)
{
	devices[number] = dev;
	dev->common = 0;
	if (how == PCI || how == PCI_LINE || how == PCI_PORT)
		return find_function(dev, kind, number, how);
	static const uint8_t first_irq[] = { [ACPI] = 24, [ACPI_ONE_IOAPIC] = 16, [ISA] = 5 };
	for (int i = how == ACPI ? 23 : 7; i >= 0; i--) {
		dev->base = TRANSPORTS + 0x200 * i;
		if (read32(dev->base) != 0x74726976 || get_register(dev, DEVICE_ID) != kind)
			continue;
		dev->irq = first_irq[how] + i;
		route_interrupt(dev->irq, number, how != ACPI_ONE_IOAPIC);
		return;
	}
	fail("there is no device", 0, kind);
}

int has_feature(const struct device *dev, unsigned bit) { return dev->features >> bit & 1; }

void start_device(struct device *dev, uint64_t wanted)
{
	set_register(dev, STATUS, 0);
	set_register(dev, STATUS, ACKNOWLEDGE);
	set_register(dev, STATUS, ACKNOWLEDGE | DRIVER);
	dev->offered = 0;
	for (unsigned word = 0; word < 2; word++) {
		set_register(dev, DEVICE_FEATURES_SEL, word);
		dev->offered |= (uint64_t)get_register(dev, DEVICE_FEATURES) << 32 * word;
	}
	dev->features = dev->offered & (wanted | 1ull << F_VERSION_1);
	for (unsigned word = 0; word < 2; word++) {
		set_register(dev, DRIVER_FEATURES_SEL, word);
		set_register(dev, DRIVER_FEATURES, dev->features >> 32 * word);
	}
	set_register(dev, STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
	if (!(get_register(dev, STATUS) & FEATURES_OK))
		fail("features were refused", dev->features, dev->offered);
	dev->causes = 0;
	if (dev->messages)
		choose_messages(dev);
}

static void set_address(struct device *dev, unsigned reg, const void *at)
{
	set_register(dev, reg, (uintptr_t)at);
	set_register(dev, reg + 4, (uintptr_t)at >> 32);
}

void set_up_queue(struct device *dev, struct queue *q, unsigned index, unsigned size)
{
	memset(q, 0, sizeof *q);
	q->owner = dev;
	q->index = index;
	q->size = q->free = size;
	q->avail_wrap = q->used_wrap = 1;
	for (unsigned i = 0; i < size; i++)
		q->next[i] = i + 1;
	set_register(dev, QUEUE_SEL, index);
	if (size > get_register(dev, QUEUE_NUM_MAX) || size > MAX_SIZE)
		fail("the queue is too small", get_register(dev, QUEUE_NUM_MAX), size);
	set_register(dev, QUEUE_NUM, size);
	set_address(dev, QUEUE_DESC, q->desc);
	set_address(dev, QUEUE_DRIVER, q->driver);
	set_address(dev, QUEUE_DEVICE, q->device);
	if (dev->messages)
		choose_queue_message(dev);
	set_register(dev, QUEUE_READY, 1);
}

void driver_ok(struct device *dev) { set_register(dev, STATUS, get_register(dev, STATUS) | DRIVER_OK); }

static void fill_table(struct queue *q, unsigned id, const struct buffer *buffers, unsigned count)
{
	int packed = has_feature(q->owner, F_PACKED);
	for (unsigned i = 0; i < count; i++) {
		uint16_t flags = buffers[i].writable ? WRITE : 0;
		uint16_t next = i + 1 < count ? NEXT : 0;
		struct desc *d = &q->tables[id][i];
		d->addr = (uintptr_t)buffers[i].at;
		d->len = buffers[i].length;
		d->a = packed ? 0 : flags | next;
		d->b = packed ? flags : i + 1;
	}
}

static unsigned take_id(struct queue *q, unsigned descriptors)
{
	unsigned id = q->free_head;
	q->free_head = q->next[id];
	q->free -= descriptors;
	q->taken[id] = descriptors;
	q->added++;
	return id;
}

static unsigned add_split(struct queue *q, const struct buffer *buffers, unsigned count, int indirect)
{
	unsigned id = take_id(q, indirect ? 1 : count);
	if (indirect) {
		fill_table(q, id, buffers, count);
		q->desc[id] = (struct desc){ (uintptr_t)q->tables[id], 16 * count, INDIRECT, 0 };
	} else {
		unsigned at = id;
		for (unsigned i = 0; i < count; i++) {
			int last = i + 1 == count;
			uint16_t flags = (buffers[i].writable ? WRITE : 0) | (last ? 0 : NEXT);
			unsigned next = last ? 0 : q->free_head;
			q->desc[at] = (struct desc){ (uintptr_t)buffers[i].at, buffers[i].length, flags, next };
			if (!last) {
				q->free_head = q->next[next];
				q->next[at] = next;
				at = next;
			}
		}
	}
	q->driver[2 + q->avail % q->size] = id;
	barrier();
	*(volatile uint16_t *)&q->driver[1] = ++q->avail;
	return id;
}

static void place(struct queue *q, struct desc d, uint16_t flags, int head, unsigned *at, unsigned *wrap)
{
	struct desc *to = &q->desc[*at];
	to->addr = d.addr;
	to->len = d.len;
	to->a = d.a;
	flags |= *wrap ? AVAIL : USED;
	if (!head)
		to->b = flags;
	if (++*at == q->size) {
		*at = 0;
		*wrap ^= 1;
	}
}

static unsigned add_packed(struct queue *q, const struct buffer *buffers, unsigned count, int indirect)
{
	unsigned id = take_id(q, indirect ? 1 : count);
	unsigned at = q->avail, wrap = q->avail_wrap;
	unsigned head = at;
	uint16_t head_flags = wrap ? AVAIL : USED;
	if (indirect) {
		fill_table(q, id, buffers, count);
		place(q, (struct desc){ (uintptr_t)q->tables[id], 16 * count, id, 0 }, INDIRECT, 1, &at, &wrap);
		head_flags |= INDIRECT;
	} else {
		for (unsigned i = 0; i < count; i++) {
			uint16_t flags = (buffers[i].writable ? WRITE : 0) | (i + 1 < count ? NEXT : 0);
			struct desc d = { (uintptr_t)buffers[i].at, buffers[i].length, id, 0 };
			place(q, d, flags, i == 0, &at, &wrap);
			if (i == 0)
				head_flags |= flags;
		}
	}
	barrier();
	*(volatile uint16_t *)&q->desc[head].b = head_flags;
	q->avail = at;
	q->avail_wrap = wrap;
	return id;
}

unsigned add_request(struct queue *q, const struct buffer *buffers, unsigned count, int indirect)
{
	indirect = indirect && has_feature(q->owner, F_INDIRECT);
	if (q->free < (indirect ? 1 : count))
		return NO_ID;
	return has_feature(q->owner, F_PACKED) ? add_packed(q, buffers, count, indirect) :
						 add_split(q, buffers, count, indirect);
}

static int wants_kick(const struct queue *q)
{
	const volatile uint16_t *device = q->device;
	int event_idx = has_feature(q->owner, F_EVENT_IDX);
	if (has_feature(q->owner, F_PACKED)) {
		/* Some descriptors too many times rather than once too few. */
		return device[1] != 1;
	}
	if (!event_idx)
		return !(device[0] & 1);
	uint16_t event = device[2 + 4 * q->size];
	return (uint16_t)(q->avail - event - 1) < q->added;
}

void kick(struct queue *q)
{
	fence();
	if (wants_kick(q))
		set_register(q->owner, QUEUE_NOTIFY, q->index);
	q->added = 0;
}

static void release(struct queue *q, unsigned id)
{
	unsigned last = id;
	if (id >= q->size || !q->taken[id])
		fail("a request was done that there is not", id, q->size);
	if (!has_feature(q->owner, F_PACKED))
		for (unsigned i = 1; i < q->taken[id]; i++)
			last = q->next[last];
	q->free += q->taken[id];
	q->taken[id] = 0;
	q->next[last] = q->free_head;
	q->free_head = id;
}

static unsigned take_packed(struct queue *q, uint32_t *written)
{
	volatile struct desc *d = &q->desc[q->used];
	uint16_t both = AVAIL | USED;
	if ((d->b & both) != (q->used_wrap ? both : 0))
		return NO_ID;
	barrier();
	unsigned id = d->a;
	*written = d->len;
	if (id >= q->size)
		fail("a request was done that there is not", id, q->size);
	q->used += q->taken[id];
	if (q->used >= q->size) {
		q->used -= q->size;
		q->used_wrap ^= 1;
	}
	release(q, id);
	return id;
}

unsigned take_request(struct queue *q, uint32_t *written)
{
	if (has_feature(q->owner, F_PACKED))
		return take_packed(q, written);
	const volatile uint16_t *device = q->device;
	if (device[1] == q->used)
		return NO_ID;
	barrier();
	const volatile uint32_t *entry = (const volatile uint32_t *)&device[2 + 4 * (q->used % q->size)];
	unsigned id = entry[0];
	*written = entry[1];
	q->used++;
	release(q, id);
	return id;
}

void arm_queue(struct queue *q)
{
	volatile uint16_t *driver = q->driver;
	if (!has_feature(q->owner, F_EVENT_IDX)) {
		driver[has_feature(q->owner, F_PACKED)] = 0;
	} else if (has_feature(q->owner, F_PACKED)) {
		driver[0] = q->used | q->used_wrap << 15;
		barrier();
		driver[1] = 2;
	} else {
		driver[2 + q->size] = q->used;
	}
	fence();
}

unsigned await_request(struct queue *q, uint32_t *written)
{
	for (;;) {
		cli();
		arm_queue(q);
		unsigned id = take_request(q, written);
		if (id != NO_ID) {
			sti();
			return id;
		}
		sleep_for_interrupt();
	}
}

void await_cause(struct device *dev, uint32_t cause)
{
	cli();
	while (!(dev->causes & cause))
		sleep_for_interrupt();
	dev->causes &= ~cause;
	sti();
}
