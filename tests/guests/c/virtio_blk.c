/*
 * A disk, with several requests at a time, over and over: numbered records are written, read and made
 * zeros, and each sector has what was last written to it and is written once. Counts what was done.
 * What each sector has is where the host can compare it with the disk, and what each slot has done, by
 * which a request that is lost is found: its slot does no more.
 * `isa`, `one-ioapic`: see virtio.h.
 */
#include "virtio.h"

#define SLOTS DISK_SLOTS
#define SECTOR 512
/* Sectors that are used, and of one request at most. */
#define AREA DISK_SECTORS
#define MOST 8
#define MAGIC 0x64726f636572ull

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };
enum { F_BLK_DISCARD = 13, F_BLK_WRITE_ZEROES = 14 };
enum { CONFIG_CAPACITY = CONFIG };

static struct device dev;
static struct queue queue;
/* The number of the record that each sector has, 0 for zeros; sectors that a request is about. */
static uint64_t *const records = DISK_RECORDS;
static uint8_t *const busy = DISK_BUSY;
static uint64_t number;

static struct slot {
	struct {
		uint32_t type, priority;
		uint64_t sector;
	} header;
	struct {
		uint64_t sector;
		uint32_t count, flags;
	} range;
	uint8_t data[MOST][SECTOR];
	uint8_t status;
	unsigned first, count;
} slots[SLOTS];
/* Which slot a request has, by its id. */
static struct slot *owners[MAX_SIZE];

/* A word of a sector with a record. */
static inline uint64_t word(uint64_t sector, uint64_t record, unsigned i)
{
	if (!record)
		return 0;
	switch (i) {
	case 0:
		return MAGIC;
	case 1:
		return sector;
	case 2:
		return record;
	default:
		return record * 0x9e3779b97f4a7c15ull + sector * 64 + i;
	}
}

static void fill(uint8_t *data, uint64_t sector, uint64_t record)
{
	for (unsigned i = 0; i < SECTOR / 8; i++)
		((uint64_t *)data)[i] = word(sector, record, i);
}

static void check_sector(const uint8_t *data, uint64_t sector)
{
	const uint64_t *words = (const uint64_t *)data;
	for (unsigned i = 0; i < SECTOR / 8; i++) {
		if (words[i] == word(sector, records[sector], i))
			continue;
		print("sector ");
		print_number(sector);
		print("\n");
		fail("a record is not the one that was written", words[2], records[sector]);
	}
}

static void send(struct slot *slot, unsigned type, int indirect)
{
	struct buffer buffers[4];
	unsigned count = 0, half = SECTOR * slot->count / 2;
	slot->header.type = type;
	slot->header.sector = type == IN || type == OUT ? slot->first : 0;
	slot->status = 0xff;
	buffers[count++] = (struct buffer){ &slot->header, sizeof slot->header, 0 };
	if (type == IN || type == OUT) {
		/* Two parts that end within a sector. */
		unsigned part = half + 100;
		buffers[count++] = (struct buffer){ slot->data, part, type == IN };
		buffers[count++] = (struct buffer){ slot->data[0] + part, SECTOR * slot->count - part, type == IN };
	} else if (type == DISCARD || type == WRITE_ZEROES) {
		slot->range.sector = slot->first;
		slot->range.count = slot->count;
		slot->range.flags = 0;
		buffers[count++] = (struct buffer){ &slot->range, sizeof slot->range, 0 };
	}
	buffers[count++] = (struct buffer){ &slot->status, 1, 1 };
	unsigned id = add_request(&queue, buffers, count, indirect);
	if (id == NO_ID)
		fail("there is no room", queue.free, count);
	owners[id] = slot;
}

/* Sectors that no other request is about. */
static void choose(struct slot *slot)
{
	for (;;) {
		unsigned i, first = random_number() % AREA, count = 1 + random_number() % MOST;
		for (i = 0; i < count && first + i < AREA && !busy[first + i]; i++)
			;
		if (i < count)
			continue;
		slot->first = first;
		slot->count = count;
		memset(busy + first, 1, count);
		return;
	}
}

static void submit(struct slot *slot)
{
	unsigned choice = random_number() % 16;
	int indirect = random_number() & 1;
	if (choice == 0) {
		slot->count = 0;
		send(slot, FLUSH, indirect);
		return;
	}
	choose(slot);
	if (choice == 1 && has_feature(&dev, F_BLK_WRITE_ZEROES)) {
		send(slot, WRITE_ZEROES, indirect);
	} else if (choice < 9) {
		for (unsigned i = 0; i < slot->count; i++)
			fill(slot->data[i], slot->first + i, ++number);
		send(slot, OUT, indirect);
	} else {
		memset(slot->data, 0x5a, SECTOR * slot->count);
		send(slot, IN, indirect);
	}
}

static void complete(struct slot *slot)
{
	if (slot->status)
		fail("a request has failed", slot->status, slot->header.type);
	for (unsigned i = 0; i < slot->count; i++) {
		unsigned sector = slot->first + i;
		switch (slot->header.type) {
		case IN:
			check_sector(slot->data[i], sector);
			break;
		case OUT:
			records[sector] = ((uint64_t *)slot->data[i])[2];
			break;
		case WRITE_ZEROES:
			records[sector] = 0;
		}
		/* The host may look between any two of these. */
		barrier();
		busy[sector] = 0;
	}
	DISK_DONE[slot - slots]++;
}

static struct slot *await(void)
{
	uint32_t written;
	unsigned id = await_request(&queue, &written);
	struct slot *slot = owners[id];
	if (!slot)
		fail("a request was done twice", id, 0);
	owners[id] = 0;
	uint32_t wanted = (slot->header.type == IN ? SECTOR * slot->count : 0) + 1;
	if (written != wanted)
		fail("not as much was written as said", written, wanted);
	return slot;
}

/* A request by itself. */
static void do_one(unsigned type, unsigned first, unsigned count)
{
	slots[0].first = first;
	slots[0].count = count;
	send(&slots[0], type, 0);
	kick(&queue);
	if (await()->status)
		fail("a request has failed", slots[0].status, type);
}

static void begin(void)
{
	memset(busy, 0, AREA);
	for (unsigned first = 0; first < AREA; first += MOST) {
		for (unsigned i = 0; i < MOST; i++)
			fill(slots[0].data[i], first + i, records[first + i] = ++number);
		do_one(OUT, first, MOST);
	}
	do_one(FLUSH, 0, 0);
	for (unsigned i = 0; i < SLOTS; i++)
		submit(&slots[i]);
	kick(&queue);
}

void guest_main(void *info)
{
	find_device(&dev, 2, 0, transports_of(info));
	print("blk at irq ");
	print_number(dev.irq);
	print(", ");
	print_number(get_register(&dev, CONFIG_CAPACITY));
	print(" sectors\n");
	sti();
	start_device(&dev, ~0ull);
	set_up_queue(&dev, &queue, 0, 64);
	driver_ok(&dev);
	begin();
	for (;;) {
		struct slot *slot = await();
		complete(slot);
		submit(slot);
		kick(&queue);
		COUNTER++;
	}
}
