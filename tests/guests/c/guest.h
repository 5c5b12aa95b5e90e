/* What guest programs in C have instead of a library. See guest.c. */
#pragma once
#include <stdint.h>
#include <stddef.h>

/* Words that the host reads while the program runs: layout.inc. */
#define COUNTER (*(volatile uint64_t *)0x200000)
#define CHECK (*(volatile uint64_t *)0x200018)
#define DISK_RECORDS ((uint64_t *)0x203000)
#define DISK_SECTORS 64
#define DISK_BUSY ((uint8_t *)0x203200)
#define DISK_DONE ((volatile uint64_t *)0x203240)
#define DISK_SLOTS 8
#define ERROR_ACCESS 18

#define IOAPIC 0xfec00000u
#define IOAPIC2 0xfec10000u

void guest_main(void *start_info);
/* Interrupt `number`, of those that route_interrupt has set up. Called with interrupts off. */
void guest_interrupt(unsigned number);
/* Ends the program with a value for isa-debug-exit. */
void leave(unsigned value) __attribute__((noreturn));

void print(const char *text);
void print_number(uint64_t value);
void print_hex(uint64_t value);
/* Says what is wrong, tells the host by CHECK, and stops. */
void fail(const char *what, uint64_t got, uint64_t want) __attribute__((noreturn));
/* Whether the command line has a word. */
int has_word(const void *start_info, const char *word);
/* Sends an interrupt line (GSI) to guest_interrupt, level-triggered unless `edge`. */
void route_interrupt(unsigned gsi, unsigned number, int edge);
/* Pseudo-random numbers. */
uint32_t random_number(void);

void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);
int memcmp(const void *a, const void *b, size_t size);

static inline void cli(void) { __asm__ volatile("cli" ::: "memory"); }
static inline void sti(void) { __asm__ volatile("sti" ::: "memory"); }
/* Lets interrupts in and sleeps until there is one; they are off again afterwards. */
static inline void sleep_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }
static inline void fence(void) { __asm__ volatile("mfence" ::: "memory"); }
static inline void barrier(void) { __asm__ volatile("" ::: "memory"); }
static inline uint8_t in8(uint16_t port)
{
	uint8_t value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
static inline uint32_t read32(uintptr_t at) { return *(volatile uint32_t *)at; }
static inline void write32(uintptr_t at, uint32_t value) { *(volatile uint32_t *)at = value; }
