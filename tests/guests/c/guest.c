/* Text on COM1, the command line, interrupts. */
#include "guest.h"

static void put(char c)
{
	while (!(in8(0x3f8 + 5) & 0x20))
		;
	out8(0x3f8, c);
}

void print(const char *text)
{
	while (*text)
		put(*text++);
}

void print_number(uint64_t value)
{
	if (value >= 10)
		print_number(value / 10);
	put('0' + value % 10);
}

void print_hex(uint64_t value)
{
	if (value >= 16)
		print_hex(value / 16);
	put("0123456789abcdef"[value % 16]);
}

void fail(const char *what, uint64_t got, uint64_t want)
{
	cli();
	CHECK = ERROR_ACCESS;
	print("FAIL ");
	print(what);
	print(": 0x");
	print_hex(got);
	print(", not 0x");
	print_hex(want);
	print("\n");
	leave(1);
}

int has_word(const void *start_info, const char *word)
{
	/* struct hvm_start_info: u64 cmdline_paddr at 24. */
	const char *text = *(const char *const *)((const char *)start_info + 24);
	while (text && *text) {
		size_t n = 0;
		while (word[n] && text[n] == word[n])
			n++;
		if (!word[n] && (!text[n] || text[n] == ' '))
			return 1;
		while (*text && *text != ' ')
			text++;
		while (*text == ' ')
			text++;
	}
	return 0;
}

void route_interrupt(unsigned gsi, unsigned number, int edge)
{
	/* The second one has the GSIs from 24 on. */
	uintptr_t ioapic = gsi < 24 ? IOAPIC : IOAPIC2;
	unsigned pin = gsi % 24;
	write32(ioapic, 0x10 + 2 * pin + 1);
	write32(ioapic + 0x10, 0);
	write32(ioapic, 0x10 + 2 * pin);
	write32(ioapic + 0x10, (0x30 + number) | (edge ? 0 : 1 << 15));
}

uint32_t random_number(void)
{
	static uint32_t state;
	state = state * 1664525 + 1013904223;
	return state >> 8;
}

void *memset(void *to, int value, size_t size)
{
	void *start = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(value) : "memory");
	return start;
}

void *memcpy(void *to, const void *from, size_t size)
{
	void *start = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size)::"memory");
	return start;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;
	for (; size; size--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}
