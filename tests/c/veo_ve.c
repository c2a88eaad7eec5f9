/* The VE library of the tests: cc -shared -fPIC. */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONTEXTS 8
#define RECORDS 4096

uint64_t records[CONTEXTS][RECORDS];
uint64_t counts[CONTEXTS];
volatile uint64_t gate, entered;

uint64_t zero(void) { return 0; }
int64_t minus_one(void) { return -1; }
uint64_t node(void) { return strtoul(getenv("VE_NODE_NUMBER"), NULL, 10); }
uint64_t process(void) { return (uint64_t)getpid(); }
uint64_t thread(void) { return (uint64_t)pthread_self(); }

/* Order of arrival, per context. */
uint64_t append(uint64_t context, uint64_t value)
{
    records[context][counts[context]++] = value;
    return value + 1;
}

uint64_t wait_for_gate(uint64_t value)
{
    entered = 1;
    while (gate < value)
        usleep(1000);
    return gate;
}

uint64_t for_ever(void)
{
    for (;;)
        usleep(1000);
}

int64_t widths(int8_t a, uint8_t b, int16_t c, uint16_t d, int32_t e, uint32_t f, int64_t g, uint64_t h)
{
    return a == -8 && b == 200 && c == -1600 && d == 60000 && e == -320000 && f == 4000000000U &&
           g == -64000000000LL && h == 18000000000000000000ULL;
}

int64_t mixed(int i, double a, float b, double c, int j, double d, double e, double f, double g, double h,
              double k, float l, long m, long n, long o, long p, double q, char r)
{
    return i == 1 && a == 0.5 && b == 1.5F && c == 2.5 && j == 2 && d == 3.5 && e == 4.5 && f == 5.5 &&
           g == 6.5 && h == 7.5 && k == 8.5 && l == 9.5F && m == 3 && n == 4 && o == 5 && p == 6 &&
           q == 10.5 && r == 'r';
}

/* Floating-point results as VEO has them: bits in an integer, a float's in the upper half as a card's register has them. */
uint64_t product(double a, double b)
{
    double result = a * b;
    uint64_t bits;
    memcpy(&bits, &result, sizeof bits);
    return bits;
}

uint64_t quotient(float a, float b)
{
    float result = a / b;
    uint32_t bits;
    memcpy(&bits, &result, sizeof bits);
    return (uint64_t)bits << 32;
}

/* Not what VEO asks for: done all the same, and its result is not passed on. */
double kept;
double twice(double a) { return kept = 2 * a; }
float half(float a) { return kept = a / 2; }

/* Every argument is its number: the first ten are looked at. */
uint64_t many(long a, long b, long c, long d, long e, long f, long g, long h, long i, long j)
{
    return a == 0 && b == 1 && c == 2 && d == 3 && e == 4 && f == 5 && g == 6 && h == 7 && i == 8 && j == 9;
}

struct point {
    int32_t x, y;
    double weight;
};

/* in is read, out is written, both are turned over. */
uint64_t points(const struct point *in, struct point *both, struct point *out, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += (uint64_t)in[i].x;
        both[i].x = -both[i].x;
        out[i].y = in[i].y + both[i].y;
        out[i].weight = in[i].weight * 2;
    }
    ((struct point *)in)[0].x = 77; /* its own copy: the caller's stays */
    return sum;
}

uint64_t sum_bytes(const unsigned char *bytes, uint64_t size)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < size; i++)
        sum += bytes[i];
    return sum;
}

uint64_t fill_bytes(unsigned char *bytes, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i % 253);
    return size;
}

uint64_t misaligned(const void *pointer) { return (uintptr_t)pointer % 16; }

/* How deep the stack of this context may be used, in MiB. */
uint64_t use_stack(uint64_t mib)
{
    volatile char block[1 << 20];
    memset((char *)block, (int)mib, sizeof block);
    return mib <= 1 ? (uint64_t)block[5] : use_stack(mib - 1) + (uint64_t)(block[7] - block[9]);
}

uint64_t touch_null(void)
{
    *(volatile int *)16 = 1;
    return 0;
}

/* Whether this thread blocks a signal. */
uint64_t blocks(int signal)
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return (uint64_t)sigismember(&mask, signal);
}

static volatile sig_atomic_t rung;

static void ring(int signal) { rung = signal; }

/* The signal that alarm(2) sends, in a process that waits for it. */
uint64_t alarmed(void)
{
    signal(SIGALRM, ring);
    alarm(1);
    while (!rung)
        usleep(1000);
    return (uint64_t)rung;
}

uint64_t terminate(void) { return (uint64_t)raise(SIGTERM); }
uint64_t divide(int a, int b) { return (uint64_t)(a / b); }
uint64_t give_up(void) { abort(); }
uint64_t leave(int code)
{
    exit(code);
}

static char *at_end;

static void say_end(void)
{
    FILE *file = fopen(at_end, "w");
    if (file) {
        fputs("ended", file);
        fclose(file);
    }
}

/* exit(3) writes to that file. */
uint64_t tell_end(const char *path)
{
    at_end = strdup(path);
    return (uint64_t)atexit(say_end);
}
