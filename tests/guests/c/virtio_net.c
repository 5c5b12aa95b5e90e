/*
 * A network card: every frame of our kind comes back to who sent it. Frames carry numbers, each one more than the
 * last: none may be lost, come twice or in another order, and what follows the number must fit it.
 * Counts frames. `isa`, `one-ioapic`: interrupts of such a machine. `merge`: small receive buffers, several of
 * which a frame takes.
 */
#include "virtio.h"

enum { RX = 0, TX = 1 };
enum { MAC = 5, MRG_RXBUF = 15 };

#define HEADER 12
#define ETHERNET 14
#define BUFFERS 64
#define LARGE 2048
#define SMALL 400
#define RING 256

struct frame {
	unsigned count;
	unsigned buffer[MAX_BUFFERS];
	uint32_t length[MAX_BUFFERS];
};

static struct device dev;
static struct queue rx, tx;
static uint8_t memory[BUFFERS][LARGE];
static unsigned room;
/* Which buffer a request for a frame has; which frame one that sends has; by its id. */
static unsigned receiving[MAX_SIZE];
static struct frame sending[MAX_SIZE];
static uint32_t expected;
static int begun;

static void give(unsigned buffer)
{
	struct buffer one = { memory[buffer], room, 1 };
	memset(memory[buffer], 0xee, room);
	unsigned id = add_request(&rx, &one, 1, 0);
	if (id == NO_ID)
		fail("there is no room for a buffer", buffer, 0);
	receiving[id] = buffer;
}

static uint8_t byte_of(const struct frame *f, unsigned at)
{
	unsigned i = 0;
	for (; at >= f->length[i]; i++)
		at -= f->length[i];
	return memory[f->buffer[i]][at];
}

static void check(const struct frame *f, uint32_t length)
{
	uint32_t number = 0;
	if (length < HEADER + ETHERNET + 4)
		fail("a frame is too short", length, HEADER + ETHERNET + 4);
	for (unsigned i = 0; i < 4; i++)
		number |= (uint32_t)byte_of(f, HEADER + ETHERNET + i) << 8 * i;
	if (begun && number != expected)
		fail("a frame has another number", number, expected);
	begun = 1;
	expected = number + 1;
	for (unsigned at = HEADER + ETHERNET + 4; at < length; at++)
		if (byte_of(f, at) != (uint8_t)(number + at - HEADER))
			fail("a frame has other bytes", byte_of(f, at), (uint8_t)(number + at - HEADER));
}

static void send_back(struct frame *f)
{
	struct buffer parts[MAX_BUFFERS];
	memset(memory[f->buffer[0]], 0, HEADER);
	for (unsigned i = 0; i < f->count; i++)
		parts[i] = (struct buffer){ memory[f->buffer[i]], f->length[i], 0 };
	unsigned id = add_request(&tx, parts, f->count, f->count > 1);
	if (id == NO_ID)
		fail("there is no room to send", tx.free, f->count);
	sending[id] = *f;
	kick(&tx);
}

/* What was sent makes room for what comes. */
static void take_sent(void)
{
	uint32_t written;
	unsigned id;
	while ((id = take_request(&tx, &written)) != NO_ID) {
		if (!sending[id].count)
			fail("a frame was sent twice", id, 0);
		for (unsigned i = 0; i < sending[id].count; i++)
			give(sending[id].buffer[i]);
		sending[id].count = 0;
		kick(&rx);
	}
}

static void receive(unsigned id, uint32_t written)
{
	struct frame f = { 0 };
	uint32_t length = written;
	const uint8_t *header = memory[receiving[id]];
	unsigned count = header[10] | header[11] << 8;
	if (count < 1 || count > MAX_BUFFERS || (count > 1 && room == LARGE))
		fail("a frame takes so many buffers", count, 1);
	for (;;) {
		f.buffer[f.count] = receiving[id];
		f.length[f.count++] = written;
		if (f.count == count)
			break;
		if (written != room)
			fail("a buffer is not full", written, room);
		id = take_request(&rx, &written);
		if (id == NO_ID)
			fail("the rest of a frame is not there", f.count, count);
		length += written;
	}
	/* A host has frames of its own to say. */
	if (length < HEADER + ETHERNET || byte_of(&f, HEADER + 12) != 0x88 || byte_of(&f, HEADER + 13) != 0xb5) {
		for (unsigned i = 0; i < f.count; i++)
			give(f.buffer[i]);
		kick(&rx);
		return;
	}
	check(&f, length);
	send_back(&f);
	COUNTER++;
}

void guest_main(void *start_info)
{
	int merge = has_word(start_info, "merge");
	room = merge ? SMALL : LARGE;
	find_device(&dev, 1, 0, transports_of(start_info));
	start_device(&dev, 1ull << MAC | (merge ? 1ull << MRG_RXBUF : 0) | 1ull << F_INDIRECT |
				   1ull << F_EVENT_IDX | 1ull << F_PACKED);
	set_up_queue(&dev, &rx, RX, RING);
	set_up_queue(&dev, &tx, TX, RING);
	for (unsigned buffer = 0; buffer < BUFFERS; buffer++)
		give(buffer);
	driver_ok(&dev);
	kick(&rx);
	print("net ");
	for (unsigned i = 0; i < 6; i++)
		print_hex(get_register(&dev, CONFIG + i) & 0xff);
	print(" at irq ");
	print_number(dev.irq);
	print("\n");
	for (;;) {
		uint32_t written;
		unsigned id = await_request(&rx, &written);
		receive(id, written);
		take_sent();
	}
}
