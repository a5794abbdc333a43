/* The most that one core computes: multiply-adds on registers, without memory access.
 *
 *     cc -O2 -march=native peak.c -o peak && ./peak
 *
 * Prints "int8 SET GOPS" and "fp32 SET GFLOPS" for the widest instruction set the compiler may use
 * here; a multiply and an addition are two operations. Without AVX2 it prints nothing. AMX is not
 * used: a CPU that has it can do more. peak.py reads the lines.
 */
#include <stdio.h>
#include <time.h>

#if defined __AVX2__ && defined __FMA__
#include <immintrin.h>

/* Independent sums, so that none waits for another: an instruction takes 4 or 5 cycles and two start
 * in each. With two operands and a product they fit AVX2's sixteen registers. */
#define SUMS 12
#define ROUNDS 100000
/* Bursts under a millisecond; the best counts, because a neighbour does not disturb all of them. */
#define BURSTS 100

#if defined __AVX512F__
typedef __m512 floats;
#define FP32 "avx512f"
#define FLOATS(x) _mm512_set1_ps(x)
#define FMA(sum) _mm512_fmadd_ps(a, b, sum)
#else
typedef __m256 floats;
#define FP32 "avx2"
#define FLOATS(x) _mm256_set1_ps(x)
#define FMA(sum) _mm256_fmadd_ps(a, b, sum)
#endif

#if defined __AVX512VNNI__
typedef __m512i ints;
#define INT8 "avx512_vnni"
#define DOT(sum) _mm512_dpbusd_epi32(sum, a, b)
#elif defined __AVXVNNI__
typedef __m256i ints;
#define INT8 "avx_vnni"
#define DOT(sum) _mm256_dpbusd_avx_epi32(sum, a, b)
#elif defined __AVX512BW__
typedef __m512i ints;
#define INT8 "avx512bw"
#define DOT(sum) \
    _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)))
#else
typedef __m256i ints;
#define INT8 "avx2"
#define DOT(sum) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#endif

/* Tells the compiler that the value may have changed, so that it neither drops nor moves the work. */
#define OPAQUE(value) __asm__ volatile("" : "+x"(value))

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

/* subtle: twelve variables and not an array, which compilers keep on the stack. */
#define EACH(act) act(0) act(1) act(2) act(3) act(4) act(5) act(6) act(7) act(8) act(9) act(10) act(11)
#define BEGIN(i) sum##i = a;
#define STEP(i) OPAQUE(a); sum##i = MULTIPLY_ADD(sum##i); OPAQUE(sum##i);
#define BURST(type, zero)                                                                        \
    type a = zero, b = zero;                                                                     \
    type sum0, sum1, sum2, sum3, sum4, sum5, sum6, sum7, sum8, sum9, sum10, sum11;               \
    OPAQUE(b);                                                                                   \
    EACH(BEGIN)                                                                                  \
    double began = now();                                                                        \
    for (int round = 0; round < ROUNDS; round++) {                                               \
        EACH(STEP)                                                                               \
    }                                                                                            \
    return now() - began;

static double int8_burst(void) {
#define MULTIPLY_ADD DOT
    ints none = {0};
    BURST(ints, none)
#undef MULTIPLY_ADD
}

static double fp32_burst(void) {
#define MULTIPLY_ADD FMA
    BURST(floats, FLOATS(0.0f))
}

/* Return 10^9 operations per second of the best burst. */
static double best(double (*burst)(void), double operations) {
    double least = burst();
    for (int i = 1; i < BURSTS; i++) {
        double seconds = burst();
        least = seconds < least ? seconds : least;
    }
    return operations * SUMS * ROUNDS / least * 1e-9;
}

int main(void) {
    printf("int8 %s %.1f\n", INT8, best(int8_burst, 2.0 * sizeof(ints)));
    printf("fp32 %s %.1f\n", FP32, best(fp32_burst, 2.0 * sizeof(floats) / sizeof(float)));
    return 0;
}
#else
int main(void) { return 0; }
#endif
