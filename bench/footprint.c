/* footprint.c -- how much memory a byte of the program's takes.
 *
 * 1 GiB (--mib N) of objects of random sizes, half of them leaf objects, all alive, in a table; 16 to 512 bytes,
 * or 1 to 32 KiB.  Then what is resident by the bytes that were asked for; the table and what was resident before
 * don't count.  Grey's own figures tell where the rest goes: records and bits by all that is mapped and not given
 * back, and the part of the spans that nobody asked for (cells larger than their objects, and cells nobody has).
 *
 * A heap that only grew: what fragmentation takes in the long run is not in it (fragments.c).
 */
#include "peer.h"

#include <unistd.h>

struct object {
    uint64_t size;
};
struct slot {
    struct object *object;
};
PEER_TYPE(slot_type, struct slot, object);
PEER_ROOT(struct slot *, table);

static const struct variant {
    const char *name, *sizes;
    uint32_t low, high; /* multiples of 8 */
} variants[] = {{"small", "16-512", 16, 512}, {"large", "1K-32K", 1024, 32768}};

static double resident(void)
{
    unsigned long all, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    BENCH_CHECK(file != NULL && fscanf(file, "%lu %lu", &all, &pages) == 2);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void print(const char *metric, const char *unit, double value, const struct bench_section *section,
                  const char *name)
{
    struct bench_result result = {"footprint", PEER_NAME, metric, unit, BENCH_LOWER, value};
    bench_print(&result, section, "%s", name);
}

#ifdef PEER_GREY
static void print_parts(double asked, const struct bench_section *section, const char *name)
{
    struct grey_stats stats = peer_stats();
    struct grey_metric objects, unused;
    BENCH_CHECK(grey_metric_read("/memory/classes/heap/objects:bytes", &objects) == 0);
    BENCH_CHECK(grey_metric_read("/memory/classes/heap/unused:bytes", &unused) == 0);
    double spans = (double)(objects.u64 + unused.u64);
    print("metadata", "%", 100 * (double)stats.metadata / (double)(stats.mapped - stats.released), section,
          name);
    print("waste", "%", 100 * (spans - asked) / spans, section, name);
}
#else
static void print_parts(double asked, const struct bench_section *section, const char *name)
{
    (void)asked, (void)section, (void)name;
}
#endif

int main(int argc, char **argv)
{
    struct bench_options options;
    bench_parse(argc, argv, &options);
    const struct variant *variant =
        options.variant != NULL && strcmp(options.variant, "large") == 0 ? &variants[1] : &variants[0];
    BENCH_CHECK(options.variant == NULL || strcmp(options.variant, variant->name) == 0);
    size_t mib = options.mib != 0 ? options.mib : options.quick ? 8 : 1024, n = 0;
    double most = (double)mib * 1048576, asked = 0;
    peer_start(options.workers);
    size_t slots = 2 * (mib << 20) / (variant->low + variant->high) * 5 / 4 + 64;
    peer_store(&table, (struct slot *)peer_new_array(&slot_type, slots));
    for (size_t i = 0; i < slots; i++) /* its pages are there before */
        peer_store(&table[i].object, (struct object *)NULL);

    uint64_t seed = options.seed;
    double before = resident();
    struct bench_section section;
    bench_begin(&section);
    for (; asked < most && n < slots; n++) {
        uint64_t random = bench_random(&seed);
        uint32_t range = (variant->high - variant->low) / 8 + 1;
        uint32_t size = variant->low + 8 * (uint32_t)(((random >> 32) * range) >> 32);
        struct object *object = (random & 1) != 0 ? peer_alloc_leaf(size) : peer_alloc(size);
        memset(object, 0, size);
        object->size = size;
        peer_store(&table[n].object, object);
        asked += size;
    }
    BENCH_CHECK(asked >= most);
    bench_end(&section);
    double sum = 0, held = resident() - before;
    for (size_t i = 0; i < n; i++)
        sum += (double)table[i].object->size;
    BENCH_CHECK(sum == asked);

    char name[64];
    snprintf(name, sizeof name, "%s,mib=%zu", variant->sizes, mib);
    print("resident_per_byte", "x", held / asked, &section, name);
    print_parts(asked, &section, name);
    return 0;
}
