/* Bench.java -- the workloads as a Java programmer would write them: the peer "java" of scripts/bench, which
 * runs it on ZGC.
 *
 *     java -XX:+UseZGC -Xmx... -cp DIR Bench binary_trees|cache [options of the C programs]
 *
 * Algorithms, options, result lines and checks are those of the C files.  This file is bench.c's part.
 *
 * A JVM takes the heap that it is allowed, so -Xmx is part of the comparison: scripts/bench gives it twice
 * what lives.  Peak memory is the peak of the committed heap plus all else that is resident at the end: in
 * this version ZGC maps its heap three times, and the resident set counts each.
 */
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.function.IntConsumer;

final class Bench {
    static boolean quick;
    static int threads, depth, seconds, rate, entries;
    static long seed = 1;

    private Bench() {}

    static void check(boolean ok, String what) {
        if (!ok) {
            System.err.println("bench: failed: " + what + " (seed " + seed + ")");
            Runtime.getRuntime().halt(1);
        }
    }

    private static void parse(String[] arguments) {
        for (int i = 1; i < arguments.length; i++) {
            String name = arguments[i];
            if (name.equals("--quick") || name.equals("--full")) {
                quick |= name.equals("--quick");
                continue;
            }
            check(++i < arguments.length, name + " needs a value");
            int value = Integer.parseUnsignedInt(arguments[i]);
            switch (name) {
            case "--threads" -> threads = value;
            case "--depth" -> depth = value;
            case "--seconds" -> seconds = value;
            case "--rate" -> rate = value;
            case "--entries" -> entries = value;
            case "--seed" -> seed = value;
            case "--mib", "--workers" -> { } // of workloads that this peer hasn't
            default -> check(false, "no option " + name);
            }
        }
    }

    /* splitmix64, as in bench.h. */
    static final class Random {
        private long state;

        Random(long seed) { state = seed; }

        long next() {
            state += 0x9e3779b97f4a7c15L;
            long z = state;
            z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
            z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
            return z ^ (z >>> 31);
        }

        int below(int n) { return (int) (((next() >>> 32) * n) >>> 32); }
    }

    /* What a measured section cost. */
    static final class Section {
        long wall, cpu;
        double rss;

        static Section begin() {
            Section section = new Section();
            for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans())
                pool.resetPeakUsage();
            section.cpu = cpuNow();
            section.wall = System.nanoTime();
            return section;
        }

        void end() {
            wall = System.nanoTime() - wall;
            cpu = cpuNow() - cpu;
            rss = resident() + heapPeak();
        }

        private static long cpuNow() {
            return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
                .getProcessCpuTime();
        }

        private static double heapPeak() {
            for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans())
                if (pool.getName().equals("ZHeap"))
                    return pool.getPeakUsage().getCommitted() / 1048576.0;
            check(false, "run it with -XX:+UseZGC");
            return 0;
        }

        /* All but the heap, which is shared memory. */
        private static double resident() {
            double kib = 0;
            try {
                for (String line : Files.readAllLines(Path.of("/proc/self/status")))
                    if (line.startsWith("RssAnon:") || line.startsWith("RssFile:"))
                        kib += Double.parseDouble(line.replaceAll("[^0-9]", ""));
            } catch (IOException e) {
                check(false, e.toString());
            }
            return kib / 1024;
        }

        void print(String workload, String name, String metric, String unit, String better, double value) {
            System.out.printf(Locale.ROOT,
                "result workload=%s peer=java case=%s metric=%s value=%.6g unit=%s better=%s"
                    + " cpu_s=%.6g rss_mib=%.1f%n",
                workload, name, metric, value, unit, better, cpu / 1e9, rss);
        }

        void printCollections(String workload, String name) {
            for (var collector : ManagementFactory.getGarbageCollectorMXBeans())
                if (collector.getName().equals("ZGC Cycles"))
                    print(workload, name, "collections", "n", "lower", collector.getCollectionCount());
        }
    }

    /* bench.h's histogram of times in ns. */
    static final class Histogram {
        private static final int STEPS = 64;
        private final long[] counts = new long[59 * STEPS];
        long n, longest;

        void count(long ns) {
            int shift = ns < STEPS ? 0 : 57 - Long.numberOfLeadingZeros(ns);
            counts[ns < STEPS ? (int) ns : shift * STEPS + (int) (ns >> shift)]++;
            n++;
            longest = Math.max(longest, ns);
        }

        void merge(Histogram from) {
            for (int i = 0; i < counts.length; i++)
                counts[i] += from.counts[i];
            n += from.n;
            longest = Math.max(longest, from.longest);
        }

        void clear() {
            Arrays.fill(counts, 0);
            n = longest = 0;
        }

        double percentile(double fraction) {
            long below = (long) (fraction * n), seen = 0;
            for (int i = 0; i < counts.length; i++) {
                seen += counts[i];
                if (seen > below) {
                    int shift = i < 2 * STEPS ? 0 : i / STEPS - 1;
                    return Math.min(((long) (i - shift * STEPS + 1) << shift) - 1, longest);
                }
            }
            return longest;
        }

        void print(String workload, String name, String series) {
            StringBuilder points = new StringBuilder();
            for (int i = 0;; i++) {
                double rest = 0.5 * Math.pow(10, -i / 8.0);
                if (rest * n < 1)
                    break;
                points.append(String.format(Locale.ROOT, "%.9f:%.6g,", 1 - rest, percentile(1 - rest) / 1e3));
            }
            System.out.printf(Locale.ROOT,
                "series workload=%s peer=java case=%s name=%s unit=us points=%s1:%.6g%n", workload,
                name, series, points, longest / 1e3);
        }
    }

    /* Runs the task on n threads and waits for them. */
    static void run(int n, IntConsumer task) {
        Thread[] all = new Thread[n];
        for (int i = 0; i < n; i++) {
            int number = i;
            all[i] = new Thread(() -> {
                try {
                    task.accept(number);
                } catch (Throwable e) {
                    check(false, e.toString());
                }
            });
            all[i].start();
        }
        try {
            for (Thread thread : all)
                thread.join();
        } catch (InterruptedException e) {
            check(false, e.toString());
        }
    }

    public static void main(String[] arguments) {
        check(arguments.length > 0, "which workload?");
        parse(arguments);
        switch (arguments[0]) {
        case "binary_trees" -> BinaryTrees.measure();
        case "cache" -> Cache.measure();
        default -> check(false, "no workload " + arguments[0]);
        }
    }
}
