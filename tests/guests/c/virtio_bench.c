/*
 * Keeps a disk or a network card as busy as it can, and prints a letter for each batch that is done:
 * what a benchmark counts. By the words of the command line:
 * `read`, `write`: a disk. Requests of 4 KiB anywhere on it, 32 at a time or with `single` one; with
 *   `large` of 1 MiB, one behind the other, 4 at a time.
 * `send`: a network card. Frames of 60 bytes, or with `large` of 1514, that nobody answers; with `loop`
 *   of 60 bytes, or 32,000, each of which the network brings back before another goes.
 * `both`: a disk and a card, at the same time: writes or reads of 4 KiB, and frames of 60 bytes.
 * `isa`, `one-ioapic`: see virtio.h.
 */
#include "virtio.h"

enum { IN = 0, OUT = 1 };
enum { RX = 0, TX = 1 };
/* Without it, the device flushes after each write. */
enum { F_BLK_FLUSH = 9 };

#define SECTOR 512
#define SMALL 4096
#define LARGE (1 << 20)
#define DEPTH 32
#define LARGE_DEPTH 4
/* Requests of a batch. */
#define BATCH 500
#define LARGE_BATCH 20

#define HEADER 12
#define FRAMES 128
#define FRAME_BATCH 2000
#define SHORT_FRAME 60
#define LONG_FRAME 1514
#define JUMBO_FRAME 32000
/* Frames of a loop that are under way: a socket's buffer holds them. */
#define LOOP_DEPTH 4

/* Memory that is none of the program's. */
static uint8_t *const data = (uint8_t *)0x1000000;

static struct device dev, card;
static struct queue queue, rx, tx;
static unsigned done, batch;

static struct request {
	struct {
		uint32_t type, priority;
		uint64_t sector;
	} header;
	uint8_t status;
} requests[DEPTH];
static struct request *owners[MAX_SIZE];
static unsigned type, size, depth;
static uint64_t sectors, next;

static void count(void)
{
	if (++done < batch)
		return;
	done = 0;
	print(".");
}

static void submit(struct request *request)
{
	uint64_t places = sectors / (size / SECTOR);
	uint64_t place = size == LARGE ? next++ % places : random_number() % places;
	request->header.type = type;
	request->header.sector = place * (size / SECTOR);
	struct buffer buffers[] = {
		{ &request->header, sizeof request->header, 0 },
		{ data + (request - requests) * (uintptr_t)size, size, type == IN },
		{ &request->status, 1, 1 },
	};
	unsigned id = add_request(&queue, buffers, 3, 1);
	if (id == NO_ID)
		fail("there is no room", queue.free, 3);
	owners[id] = request;
}

static void begin_disk(void *info)
{
	int large = has_word(info, "large");
	size = large ? LARGE : SMALL;
	depth = has_word(info, "single") ? 1 : large ? LARGE_DEPTH : DEPTH;
	batch = large ? LARGE_BATCH : BATCH;
	find_device(&dev, 2, 0, transports_of(info));
	sectors = get_register(&dev, CONFIG);
	start_device(&dev, 1ull << F_BLK_FLUSH | 1ull << F_INDIRECT | 1ull << F_EVENT_IDX);
	set_up_queue(&dev, &queue, 0, 128);
	driver_ok(&dev);
	for (unsigned i = 0; i < depth; i++)
		submit(&requests[i]);
	kick(&queue);
}

/* Makes a new request for each that is done, from one on. */
static void go_on_with_disk(unsigned id)
{
	uint32_t written;
	do {
		if (owners[id]->status)
			fail("a request has failed", owners[id]->status, type);
		submit(owners[id]);
		count();
	} while ((id = take_request(&queue, &written)) != NO_ID);
	kick(&queue);
}

static void keep_disk_busy(void *info)
{
	uint32_t written;
	begin_disk(info);
	for (;;)
		go_on_with_disk(await_request(&queue, &written));
}

/* The frame is behind what a disk's requests use. */
static uint8_t *const frame = (uint8_t *)0x1000000 + LARGE_DEPTH * LARGE;

static void send_frame(unsigned length)
{
	struct buffer one = { frame, HEADER + length, 0 };
	if (add_request(&tx, &one, 1, 0) == NO_ID)
		fail("there is no room to send", tx.free, 1);
}

static void give_buffer(unsigned length)
{
	struct buffer one = { data, HEADER + length, 1 };
	if (add_request(&rx, &one, 1, 0) == NO_ID)
		fail("there is no room for a buffer", rx.free, 1);
}

static void begin_sending(unsigned length)
{
	for (unsigned i = 0; i < FRAMES; i++)
		send_frame(length);
	kick(&tx);
}

static void send_for_ever(unsigned length)
{
	uint32_t written;
	begin_sending(length);
	for (;;) {
		await_request(&tx, &written);
		do {
			send_frame(length);
			count();
		} while (take_request(&tx, &written) != NO_ID);
		kick(&tx);
	}
}

static void loop_for_ever(unsigned length)
{
	uint32_t written;
	for (unsigned i = 0; i < FRAMES; i++)
		give_buffer(length);
	kick(&rx);
	for (unsigned i = 0; i < LOOP_DEPTH; i++)
		send_frame(length);
	kick(&tx);
	for (;;) {
		await_request(&rx, &written);
		do {
			give_buffer(length);
			while (take_request(&tx, &written) != NO_ID)
				;
			send_frame(length);
			count();
		} while (take_request(&rx, &written) != NO_ID);
		kick(&rx);
		kick(&tx);
	}
}

/* `number` is the card's interrupt's. */
static void begin_network(void *info, unsigned number)
{
	find_device(&card, 1, number, transports_of(info));
	start_device(&card, 1ull << F_EVENT_IDX);
	set_up_queue(&card, &rx, RX, 256);
	set_up_queue(&card, &tx, TX, 256);
	driver_ok(&card);
	/* To everybody, of the type for experiments. */
	memset(frame + HEADER, 0xff, 6);
	frame[HEADER + 6] = 0x52;
	frame[HEADER + 12] = 0x88;
	frame[HEADER + 13] = 0xb5;
}

static void keep_network_busy(void *info)
{
	int large = has_word(info, "large"), loop = has_word(info, "loop");
	batch = FRAME_BATCH;
	begin_network(info, 0);
	if (loop)
		loop_for_ever(large ? JUMBO_FRAME : SHORT_FRAME);
	send_for_ever(large ? LONG_FRAME : SHORT_FRAME);
}

/* Counts requests of the disk alone. */
static void keep_both_busy(void *info)
{
	uint32_t written;
	begin_network(info, 1);
	begin_disk(info);
	begin_sending(SHORT_FRAME);
	for (;;) {
		cli();
		arm_queue(&queue);
		arm_queue(&tx);
		unsigned id = take_request(&queue, &written), sent = take_request(&tx, &written);
		if (id == NO_ID && sent == NO_ID) {
			sleep_for_interrupt();
			continue;
		}
		sti();
		if (id != NO_ID)
			go_on_with_disk(id);
		if (sent == NO_ID)
			continue;
		do
			send_frame(SHORT_FRAME);
		while (take_request(&tx, &written) != NO_ID);
		kick(&tx);
	}
}

void guest_main(void *info)
{
	type = has_word(info, "write") ? OUT : IN;
	sti();
	if (has_word(info, "both"))
		keep_both_busy(info);
	if (has_word(info, "send") || has_word(info, "loop"))
		keep_network_busy(info);
	keep_disk_busy(info);
}
