/* BinaryTrees.java -- bench/binary_trees.c in Java. */
final class BinaryTrees {
    private static final int MINIMUM = 4;

    private static final class Tree {
        final Tree left, right;

        Tree(Tree left, Tree right) {
            this.left = left;
            this.right = right;
        }

        int count() { return left == null ? 1 : 1 + left.count() + right.count(); }
    }

    private BinaryTrees() {}

    private static Tree make(int depth) {
        return depth == 0 ? new Tree(null, null) : new Tree(make(depth - 1), make(depth - 1));
    }

    private static void check(Tree tree, int depth) {
        Bench.check(tree.count() == (2 << depth) - 1, "a tree has lost nodes");
    }

    private static void all(int depth) {
        check(make(depth + 1), depth + 1);
        Tree lasting = make(depth);
        for (int d = MINIMUM; d <= depth; d += 2)
            for (int i = 0; i < 1 << (depth - d + MINIMUM); i++)
                check(make(d), d);
        check(lasting, depth);
    }

    static void measure() {
        int threads = Math.max(Bench.threads, 1);
        int depth = Bench.depth != 0 ? Bench.depth : Bench.quick ? 12 : 18;
        Bench.Section section = Bench.Section.begin();
        Bench.run(threads, i -> all(depth));
        section.end();
        String name = "depth=" + depth + ",threads=" + threads;
        section.print("binary_trees", name, "time", "s", "lower", section.wall / 1e9);
        section.printCollections("binary_trees", name);
    }
}
