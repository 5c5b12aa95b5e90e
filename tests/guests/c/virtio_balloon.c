/*
 * A memory balloon over a pool of pages. Each page that is in the guest's hands has a number of its own at
 * both ends; one that comes back from the balloon has to be empty. Gives back as many as the device asks
 * for, or with the word `churn` some number or other, over and over. Counts pages that were given back or
 * taken again; tells statistics: the pages that are left (4), how often it was asked (0). With
 * `report` it reports pages as free, one after the other, that have to be empty then.
 * `code`: executes what it has given back, prints what came of it, and ends.
 * `isa`, `one-ioapic`: see virtio.h.
 */
#include "virtio.h"

#define POOL 0x1000000ull
#define PAGES 4096
#define PAGE 4096
#define BATCH 64
/* Pages that are reported, behind the pool. */
#define FREE_PAGES 512
#define FREE_AREA (POOL + PAGES * PAGE)

enum { NUM_PAGES = CONFIG, ACTUAL = CONFIG + 4 };
enum { F_STATS_VQ = 1, F_REPORTING = 5 };

static struct device dev;
static struct queue inflate, deflate, stats, reporting;
/* Which pages the balloon has: the first of an order in which neighbours are now together, now apart. */
static unsigned in_balloon;
static uint32_t numbers[BATCH];
static uint8_t told[20];
static uint64_t asked;
static uint32_t reports;

static volatile uint64_t *page_at(unsigned index)
{
	unsigned place = index & 64 ? index : (index & ~63u) | ((index * 5) & 63);
	return (volatile uint64_t *)(POOL + (uint64_t)place * PAGE);
}

static uint64_t pattern_of(unsigned index) { return 0xba11000000000000ull + index; }

static void own(unsigned index)
{
	volatile uint64_t *page = page_at(index);
	page[0] = page[511] = pattern_of(index);
}

static void check_owned(unsigned index)
{
	volatile uint64_t *page = page_at(index);
	if (page[0] != pattern_of(index) || page[511] != pattern_of(index))
		fail("a page has lost what was in it", page[0], pattern_of(index));
}

static void check_empty(volatile uint64_t *page)
{
	if (page[0] || page[511])
		fail("a page that was given back is not empty", page[0], (uintptr_t)page);
}

static void tell_actual(void) { set_register(&dev, ACTUAL, in_balloon); }

static void tell_statistics(void)
{
	uint64_t left = PAGES - in_balloon;
	told[0] = 4;
	memcpy(told + 2, &left, 8);
	told[10] = 0;
	memcpy(told + 12, &asked, 8);
	struct buffer buffer = { told, sizeof told, 0 };
	add_request(&stats, &buffer, 1, 0);
	kick(&stats);
}

/* The device asks for statistics by giving the last ones back. */
static void answer_question(void)
{
	uint32_t written;
	arm_queue(&stats);
	if (take_request(&stats, &written) == NO_ID)
		return;
	asked++;
	tell_statistics();
}

static void send(struct queue *queue, unsigned count)
{
	uint32_t written;
	struct buffer buffer = { numbers, 4 * count, 0 };
	add_request(queue, &buffer, 1, random_number() & 1);
	kick(queue);
	await_request(queue, &written);
}

static void give_back(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		check_owned(in_balloon + i);
		/* The last one first, as Linux does. */
		numbers[count - 1 - i] = (uintptr_t)page_at(in_balloon + i) / PAGE;
	}
	send(&inflate, count);
	in_balloon += count;
}

static void take_again(unsigned count)
{
	in_balloon -= count;
	for (unsigned i = 0; i < count; i++)
		numbers[i] = (uintptr_t)page_at(in_balloon + i) / PAGE;
	send(&deflate, count);
	for (unsigned i = 0; i < count; i++) {
		check_empty(page_at(in_balloon + i));
		own(in_balloon + i);
	}
}

static void move_towards(unsigned target)
{
	unsigned wanted = target > in_balloon ? target - in_balloon : in_balloon - target;
	unsigned count = wanted < BATCH ? wanted : BATCH;
	if (target > in_balloon)
		give_back(count);
	else
		take_again(count);
	tell_actual();
	COUNTER += count;
}

static void report_free(void)
{
	uint32_t written;
	struct buffer buffers[2];
	for (unsigned i = 0; i < 2; i++) {
		volatile uint64_t *page = (volatile uint64_t *)(FREE_AREA + (reports++ % FREE_PAGES) * PAGE);
		page[0] = page[511] = 1;
		buffers[i] = (struct buffer){ (void *)page, PAGE, 1 };
	}
	add_request(&reporting, buffers, 2, 1);
	kick(&reporting);
	await_request(&reporting, &written);
	for (unsigned i = 0; i < 2; i++)
		check_empty(buffers[i].at);
	COUNTER++;
}

static void bring_up(void)
{
	start_device(&dev, ~0ull);
	set_up_queue(&dev, &inflate, 0, 16);
	set_up_queue(&dev, &deflate, 1, 16);
	set_up_queue(&dev, &stats, 2, 2);
	if (has_feature(&dev, F_REPORTING))
		set_up_queue(&dev, &reporting, 3, 16);
	driver_ok(&dev);
	if (has_feature(&dev, F_STATS_VQ))
		tell_statistics();
}

/*
 * A page ends in `mov eax, 1; ret`, the next one begins with `ret`. Without the code there are zeros, which
 * are `add [rax], al`.
 */
static uint64_t execute(const uint8_t *code, uint64_t *scratch)
{
	uint64_t result = (uintptr_t)scratch;
	__asm__ volatile("call *%1" : "+a"(result) : "r"(code) : "memory", "cc");
	return result;
}

static void execute_given_back(void)
{
	static const uint8_t code[] = { 0xb8, 1, 0, 0, 0, 0xc3, 0, 0, 0xc3 };
	static uint64_t scratch;
	uint8_t *at = (uint8_t *)POOL + PAGE - 8;
	unsigned kept = 0;
	for (unsigned round = 0; round < 100; round++) {
		memcpy(at, code, sizeof code);
		if (execute(at, &scratch) != 1)
			fail("code was not executed", round, 0);
		numbers[0] = POOL / PAGE;
		send(&inflate, 1);
		kept += execute(at, &scratch) == 1;
		send(&deflate, 1);
	}
	print("executed what was given back ");
	print_number(kept);
	print(" times\n");
	leave(0);
}

void guest_main(void *info)
{
	int churns = has_word(info, "churn"), reports_free = has_word(info, "report");
	find_device(&dev, 5, 0, transports_of(info));
	sti();
	bring_up();
	if (has_word(info, "code"))
		execute_given_back();
	for (unsigned i = 0; i < PAGES; i++)
		own(i);
	print("balloon at irq ");
	print_number(dev.irq);
	print("\n");
	unsigned target = 0;
	for (;;) {
		cli();
		answer_question();
		if (!churns)
			target = get_register(&dev, NUM_PAGES);
		else if (target == in_balloon)
			target = random_number() % PAGES;
		if (target > PAGES)
			target = PAGES;
		if (target == in_balloon && !reports_free)
			sleep_for_interrupt();
		sti();
		if (target != in_balloon)
			move_towards(target);
		if (reports_free)
			report_free();
	}
}
