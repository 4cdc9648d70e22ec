// binary_trees.go -- bench/binary_trees.c in Go.

package main

import (
	"fmt"
	"sync"
)

type tree struct{ left, right *tree }

func treeMake(depth int) *tree {
	if depth == 0 {
		return &tree{}
	}
	left, right := treeMake(depth-1), treeMake(depth-1)
	return &tree{left, right}
}

func (t *tree) count() int {
	if t.left == nil {
		return 1
	}
	return 1 + t.left.count() + t.right.count()
}

func (t *tree) check(depth int) { check(t.count() == 2<<depth-1, "a tree has lost nodes") }

func treesRun(depth int) {
	const minimum = 4
	treeMake(depth + 1).check(depth + 1)
	lasting := treeMake(depth)
	for d := minimum; d <= depth; d += 2 {
		for i := 0; i < 1<<(depth-d+minimum); i++ {
			treeMake(d).check(d)
		}
	}
	lasting.check(depth)
}

func binaryTrees(o *options) {
	threads, depth := or(o.threads, 1), 18
	if o.quick {
		depth = 12
	}
	depth = or(o.depth, depth)
	s := begin()
	var group sync.WaitGroup
	for i := 0; i < threads; i++ {
		group.Add(1)
		go func() {
			treesRun(depth)
			group.Done()
		}()
	}
	group.Wait()
	s.end()
	name := fmt.Sprintf("depth=%d,threads=%d", depth, threads)
	s.print("binary_trees", name, "time", "s", "lower", s.wall.Seconds())
	s.printPauses("binary_trees", name)
}
