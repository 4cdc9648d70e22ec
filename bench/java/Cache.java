/* Cache.java -- bench/cache.c in Java: keys and values are arrays of long. */
import java.util.Arrays;
import java.util.concurrent.locks.LockSupport;

final class Cache {
    private static final int PARTS = 1024, BATCH = 16, LEAST_WORDS = 2, WORDS = 64;

    private static final class Entry {
        Entry chain, newer, older;
        long[] key, value; // every word of both is the key's number
        long hash;
    }

    private static final class Part {
        Entry[] buckets;
        Entry newest, oldest;
        int entries;

        int bucket(long hash) { return (int) ((hash >>> 10) & (buckets.length - 1)); }

        Entry find(long hash, long[] key, int words) {
            Entry entry = buckets[bucket(hash)];
            while (entry != null
                   && (entry.hash != hash || !Arrays.equals(entry.key, 0, entry.key.length, key, 0, words)))
                entry = entry.chain;
            return entry;
        }

        void remove(Entry entry) {
            if (entry.newer != null)
                entry.newer.older = entry.older;
            else
                newest = entry.older;
            if (entry.older != null)
                entry.older.newer = entry.newer;
            else
                oldest = entry.newer;
        }

        void add(Entry entry) {
            entry.newer = null;
            entry.older = newest;
            if (newest != null)
                newest.newer = entry;
            else
                oldest = entry;
            newest = entry;
        }

        void touch(Entry entry) {
            if (newest != entry) {
                remove(entry);
                add(entry);
            }
        }

        boolean replace(long hash, long[] key, int words, long[] value) {
            Entry entry = find(hash, key, words);
            if (entry == null)
                return false;
            entry.value = value;
            touch(entry);
            return true;
        }

        void insert(Entry entry) {
            int bucket = bucket(entry.hash);
            entry.chain = buckets[bucket];
            buckets[bucket] = entry;
            add(entry);
            if (++entries <= partMost)
                return;
            Entry old = oldest;
            bucket = bucket(old.hash);
            if (buckets[bucket] == old)
                buckets[bucket] = old.chain;
            else {
                Entry before = buckets[bucket];
                while (before.chain != old)
                    before = before.chain;
                before.chain = old.chain;
            }
            remove(old);
            entries--;
        }
    }

    private static final class Client {
        final Bench.Random random;
        final long[] key = new long[WORDS], copy = new long[WORDS];
        final Bench.Histogram latency = new Bench.Histogram();
        long operations, hits, looks;

        Client(long seed) { random = new Bench.Random(seed); }

        int keyMake(long number) {
            int words = randomWords(hash(number) * 0x9e3779b97f4a7c15L);
            Arrays.fill(key, 0, words, number);
            return words;
        }

        void put(long number) {
            long hash = hash(number);
            int words = keyMake(number);
            Part part = parts[(int) (hash & (PARTS - 1))];
            long[] value = new long[randomWords(random.next())];
            Arrays.fill(value, number);
            synchronized (part) {
                if (part.replace(hash, key, words, value))
                    return;
            }
            Entry entry = new Entry();
            entry.hash = hash;
            entry.key = Arrays.copyOf(key, words);
            entry.value = value;
            synchronized (part) {
                if (!part.replace(hash, key, words, value))
                    part.insert(entry);
            }
        }

        boolean look(long number) {
            long hash = hash(number);
            int words = keyMake(number), length;
            Part part = parts[(int) (hash & (PARTS - 1))];
            synchronized (part) {
                Entry entry = part.find(hash, key, words);
                if (entry == null)
                    return false;
                length = entry.value.length;
                System.arraycopy(entry.value, 0, copy, 0, length);
                part.touch(entry);
            }
            Bench.check(copy[0] == number && copy[length - 1] == number, "a value isn't the key's");
            return true;
        }

        void operate() {
            long bits = random.next();
            long number = random.below((bits & 4) != 0 ? hotKeys : keys);
            operations++;
            if ((bits & 3) == 0) {
                put(number);
                return;
            }
            looks++;
            if (look(number))
                hits++;
            else
                put(number);
        }

        void closedLoop(long end) {
            while (System.nanoTime() < end)
                for (int i = 0; i < BATCH; i++)
                    operate();
        }

        void openLoop(long start, long end, double period) {
            for (long arrival = 0;; arrival++) {
                long due = start + (long) (arrival * period);
                if (due >= end)
                    return;
                for (long wait = due - System.nanoTime(); wait > 0; wait = due - System.nanoTime())
                    LockSupport.parkNanos(wait);
                for (int i = 0; i < BATCH; i++) {
                    operate();
                    latency.count(System.nanoTime() - due);
                }
            }
        }
    }

    private static final Part[] parts = new Part[PARTS];
    private static int partMost, keys, hotKeys;
    private static Client[] clients;
    private static long duration;
    private static final Bench.Section loads = new Bench.Section(); // what they cost together

    private Cache() {}

    private static long hash(long number) { return new Bench.Random(number).next(); }

    private static int randomWords(long bits) {
        return LEAST_WORDS + (int) (((bits >>> 32) * (WORDS - LEAST_WORDS + 1)) >>> 32);
    }

    private static double closed(String name) {
        Bench.Section section = Bench.Section.begin();
        long end = System.nanoTime() + duration;
        Bench.run(clients.length, i -> clients[i].closedLoop(end));
        section.end();
        long operations = 0, hits = 0, looks = 0;
        for (Client client : clients) {
            operations += client.operations;
            hits += client.hits;
            looks += client.looks;
        }
        Bench.check(2 * hits > looks, "few hits: it isn't the cache that is measured");
        double rate = operations / (section.wall / 1e9);
        section.print("cache", name + ",load=closed", "capacity", "k/s", "higher", rate / 1e3);
        return rate;
    }

    private static void open(double rate, String name) {
        double period = BATCH * clients.length / rate * 1e9;
        for (Client client : clients)
            client.latency.clear();
        Bench.Section section = Bench.Section.begin();
        long start = System.nanoTime() + 1000000;
        Bench.run(clients.length,
            i -> clients[i].openLoop(start + (long) (period * i / clients.length), start + duration, period));
        section.end();
        Bench.Histogram latency = new Bench.Histogram();
        for (Client client : clients)
            latency.merge(client.latency);
        section.print("cache", name, "rate", "k/s", "higher", latency.n / (section.wall / 1e6));
        String[] names = {"p50", "p99", "p99.9", "p99.99", "max"};
        double[] fractions = {0.5, 0.99, 0.999, 0.9999, 1};
        for (int i = 0; i < names.length; i++)
            section.print("cache", name, names[i], "us", "lower", latency.percentile(fractions[i]) / 1e3);
        latency.print("cache", name, "latency");
        loads.cpu += section.cpu;
        loads.rss = Math.max(loads.rss, section.rss);
    }

    /* The open loop's code is new to the compiler, whose work would be in the first load's latencies. */
    private static void warmUp(double capacity) {
        long end = System.nanoTime() + duration / 10;
        double period = 4 * BATCH * clients.length / capacity * 1e9;
        Bench.run(clients.length, i -> clients[i].openLoop(System.nanoTime(), end, period));
    }

    static void measure() {
        int threads = Bench.threads != 0 ? Bench.threads : Runtime.getRuntime().availableProcessors();
        int entries = Bench.entries != 0 ? Bench.entries : Bench.quick ? 20000 : 2000000;
        duration = Bench.seconds != 0 ? Bench.seconds * 1000000000L : Bench.quick ? 100000000L : 15000000000L;
        Bench.check(entries >= 2 * PARTS, "--entries: too few");
        keys = entries + entries / 4;
        hotKeys = keys / 10;
        partMost = entries / PARTS;
        int buckets = 1;
        while (buckets < partMost)
            buckets *= 2;
        for (int i = 0; i < PARTS; i++) {
            parts[i] = new Part();
            parts[i].buckets = new Entry[buckets];
        }
        clients = new Client[threads];
        for (int i = 0; i < threads; i++)
            clients[i] = new Client(Bench.seed + i);
        Bench.run(threads, i -> {
            for (long n = (long) entries * i / threads; n < (long) entries * (i + 1) / threads; n++)
                clients[i].put(n);
        });

        String name = "entries=" + entries + ",threads=" + threads;
        double capacity = closed(name);
        warmUp(capacity);
        if (Bench.rate != 0)
            open(Bench.rate, name + ",load=" + Bench.rate + "/s");
        else
            for (int percent = 25; percent <= 75; percent += 25)
                open(capacity * percent / 100, name + ",load=" + percent + "%");
        loads.printCollections("cache", name);
    }
}
