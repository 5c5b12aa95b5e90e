/*
 * The entropy device, with several requests at a time, over and over: each is done once, all of it is
 * filled and nothing else. Counts what was done. `isa`, `one-ioapic`: see virtio.h.
 * `pci-port`: it waits for one behind a port, and gives it up when that is asked for, requests and all.
 * `broken`: every malformed ring once, with a good request after each; then it ends.
 */
#include "virtio.h"

#define SLOTS 4
#define ROOM 512
#define FILL 0xa5

static struct device dev;
static struct queue queue;
static uint8_t memory[SLOTS][ROOM];
/* Which slot a request has, by its id, and how much was asked for. */
static struct {
	unsigned slot, length, busy;
} requests[MAX_SIZE];

static void submit(unsigned slot)
{
	struct buffer buffers[MAX_BUFFERS];
	unsigned count = 1 + random_number() % 3, length = 0;
	memset(memory[slot], FILL, ROOM);
	for (unsigned i = 0; i < count; i++) {
		unsigned size = 32 + random_number() % 64;
		buffers[i] = (struct buffer){ memory[slot] + 128 * i, size, 1 };
		length += size;
		/* Where each buffer ends is kept behind the last one. */
		memory[slot][ROOM - 1 - i] = size;
	}
	unsigned id = add_request(&queue, buffers, count, random_number() & 1);
	if (id == NO_ID)
		fail("there is no room", queue.free, count);
	requests[id].slot = slot;
	requests[id].length = length;
	requests[id].busy = count;
}

static unsigned check(unsigned id, uint32_t written)
{
	if (!requests[id].busy)
		fail("a request was done twice", id, 0);
	if (written != requests[id].length)
		fail("not all was filled", written, requests[id].length);
	uint8_t *slot = memory[requests[id].slot];
	for (unsigned i = 0; i < requests[id].busy; i++) {
		unsigned size = slot[ROOM - 1 - i], same = 0;
		for (unsigned j = 0; j < size; j++)
			same += slot[128 * i + j] == FILL;
		if (same > size / 2)
			fail("a buffer is not random", same, 0);
		for (unsigned j = size; j < 128 && 128 * i + j < ROOM - 8; j++)
			if (slot[128 * i + j] != FILL)
				fail("more was written than there is room", j, size);
	}
	requests[id].busy = 0;
	return requests[id].slot;
}

static void bring_up(void)
{
	start_device(&dev, ~0ull);
	set_up_queue(&dev, &queue, 0, 8);
	driver_ok(&dev);
	memset(requests, 0, sizeof requests);
}

/* Until it is to be given up. */
static void work(void)
{
	for (unsigned slot = 0; slot < 2; slot++)
		submit(slot);
	kick(&queue);
	while (!is_wanted_back(&dev)) {
		uint32_t written;
		unsigned id = await_request(&queue, &written);
		submit(check(id, written));
		kick(&queue);
		COUNTER++;
	}
}

/* Makes a descriptor available as it is: `flags` beside those of the ring. */
static void show(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct desc *d = &queue.desc[0];
	d->addr = addr;
	d->len = len;
	if (has_feature(&dev, F_PACKED)) {
		d->a = 0;
		barrier();
		*(volatile uint16_t *)&d->b = flags | AVAIL;
	} else {
		d->a = flags;
		d->b = next;
		queue.driver[2] = 0;
		barrier();
		*(volatile uint16_t *)&queue.driver[1] = 1;
	}
	fence();
	set_register(&dev, QUEUE_NOTIFY, 0);
}

static void expect_reset(unsigned number)
{
	await_cause(&dev, CONFIG_CHANGE);
	uint32_t status = get_register(&dev, STATUS);
	if (!(status & NEEDS_RESET))
		fail("the device does not need a reset", status, number);
	uint32_t written;
	bring_up();
	submit(0);
	kick(&queue);
	unsigned id = await_request(&queue, &written);
	check(id, written);
	COUNTER++;
	bring_up();
}

static void break_rings(void)
{
	static struct desc table[2];
	uint64_t good = (uintptr_t)memory[0];
	unsigned number = 0;
	bring_up();
	int packed = has_feature(&dev, F_PACKED);
	show(good, 0, WRITE, 0);
	expect_reset(number++);
	show(0xd0000000, 16, WRITE, 0);
	expect_reset(number++);
	show(0xffffffffffffff00, 0x200, WRITE, 0);
	expect_reset(number++);
	show(good, 0xffffffff, WRITE, 0);
	expect_reset(number++);
	show((uintptr_t)table, 8, INDIRECT, 0);
	expect_reset(number++);
	show((uintptr_t)table, 0, INDIRECT, 0);
	expect_reset(number++);
	show(0xd0000000, 16, INDIRECT, 0);
	expect_reset(number++);
	show((uintptr_t)table, 16, INDIRECT | NEXT, 1);
	expect_reset(number++);
	table[0] = (struct desc){ good, 16, packed ? 0 : INDIRECT, packed ? 0 : 0 };
	if (!packed) {
		show((uintptr_t)table, 16, INDIRECT, 0);
		expect_reset(number++);
		show(good, 16, WRITE | NEXT, 0);
		expect_reset(number++);
		show(good, 16, WRITE | NEXT, 9);
		expect_reset(number++);
		queue.driver[2] = 8;
		*(volatile uint16_t *)&queue.driver[1] = 1;
		set_register(&dev, QUEUE_NOTIFY, 0);
		expect_reset(number++);
		*(volatile uint16_t *)&queue.driver[1] = 9;
		set_register(&dev, QUEUE_NOTIFY, 0);
		expect_reset(number++);
	} else {
		for (unsigned i = 0; i < 8; i++)
			queue.desc[i] = (struct desc){ good, 16, 0, WRITE | NEXT | AVAIL };
		set_register(&dev, QUEUE_NOTIFY, 0);
		expect_reset(number++);
	}
	/* A queue that lies nowhere. */
	start_device(&dev, ~0ull);
	set_register(&dev, QUEUE_SEL, 0);
	set_register(&dev, QUEUE_NUM, 8);
	set_register(&dev, QUEUE_DESC, 0xd0000000);
	set_register(&dev, QUEUE_READY, 1);
	driver_ok(&dev);
	expect_reset(number++);
	print("broken ok ");
	print_number(number);
	print("\n");
	leave(0);
}

void guest_main(void *info)
{
	for (;;) {
		find_device(&dev, 4, 0, transports_of(info));
		print("rng at irq ");
		print_number(dev.irq);
		print("\n");
		sti();
		if (has_word(info, "broken"))
			break_rings();
		bring_up();
		work();
		give_up(&dev);
		print("given up\n");
	}
}
