/* heap/classes.h -- the size classes, one table.
 *
 * Bytes of a cell, and 8 KiB pages of a span of it.  The sizes are those of Go's runtime
 * (gc/sizeclasses.go) less 8 and 24, since cells are multiples of 16 (one mark bit stands for 16 bytes, AL-2), and
 * with seven more where two of Go's are so far apart that up to 16 % of a slot were lost (832, 1664, 2560,
 * 3840, 4608, 7680, 9216).  A span is the smallest whose tail wastes at most an eighth and which holds two
 * cells (one above 20 KiB).  Above the small end at most an eighth of a slot is lost, and at a span's end.
 */
#ifndef GREY_HEAP_CLASSES_H
#define GREY_HEAP_CLASSES_H

/* clang-format off */
#define HEAP_CLASSES(X) \
    X(16, 1) X(32, 1) X(48, 1) X(64, 1) X(80, 1) X(96, 1) X(112, 1) X(128, 1) X(144, 1) \
    X(160, 1) X(176, 1) X(192, 1) X(208, 1) X(224, 1) X(240, 1) X(256, 1) X(288, 1) X(320, 1) \
    X(352, 1) X(384, 1) X(416, 1) X(448, 1) X(480, 1) X(512, 1) X(576, 1) X(640, 1) X(704, 1) \
    X(768, 1) X(832, 1) X(896, 1) X(1024, 1) X(1152, 1) X(1280, 1) X(1408, 2) X(1536, 1) X(1664, 2) \
    X(1792, 1) X(2048, 1) X(2304, 2) X(2560, 1) X(2688, 1) X(3072, 2) X(3200, 2) X(3456, 3) \
    X(3840, 2) X(4096, 1) X(4608, 4) X(4864, 2) X(5376, 2) X(6144, 3) X(6528, 4) X(6784, 5) \
    X(6912, 6) X(7680, 2) X(8192, 2) X(9216, 5) X(9472, 5) X(9728, 4) X(10240, 4) X(10880, 3) \
    X(12288, 3) X(13568, 5) X(14336, 4) X(16384, 4) X(18432, 5) X(19072, 5) X(20480, 5) X(21760, 3) \
    X(24576, 3) X(27264, 7) X(28672, 4) X(32768, 4)
/* clang-format on */

enum {
#define X(bytes, pages) +1
    HEAP_N_CLASSES = 0 HEAP_CLASSES(X)
#undef X
};
enum { HEAP_SMALL_MAX = 32768 };

#endif
