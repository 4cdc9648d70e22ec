// graph.go -- bench/graph.c in Go; a collection is runtime.GC(), which includes the sweep, as Grey's does.

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

type node struct {
	edges       [4]*node
	id, visited uint64
	_           [2]uint64
}

type entry struct {
	chain, newer, older *entry
	value               *[8]uint64
	key                 uint64
	_                   [3]uint64
}

const lists = 64

var (
	roots  [lists]*node
	table  []*entry
	newest *entry
)

func nodesMake(n int) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = &node{id: uint64(i)}
	}
	return nodes
}

func buildRandom(n int, seed *random) {
	nodes := nodesMake(n)
	for _, node := range nodes {
		for i := range node.edges {
			node.edges[i] = nodes[seed.below(uint32(n))]
		}
	}
	for i := range roots {
		roots[i] = nodes[seed.below(uint32(n))]
	}
}

func buildSubtree(id *uint64, n int) *node {
	if n == 0 {
		return nil
	}
	node := &node{id: *id}
	*id++
	node.edges[0] = buildSubtree(id, (n-1)/2)
	node.edges[1] = buildSubtree(id, n-1-(n-1)/2)
	return node
}

func buildTree(n int, _ *random) {
	var id uint64
	roots[0] = buildSubtree(&id, n)
}

func link(nodes []*node) {
	length := len(nodes) / lists
	for list := range roots {
		part := nodes[list*length : (list+1)*length]
		for i := 0; i+1 < length; i++ {
			part[i].edges[0] = part[i+1]
		}
		roots[list] = part[0]
	}
}

func buildLists(n int, _ *random) { link(nodesMake(n)) }

func buildShuffled(n int, seed *random) {
	nodes := nodesMake(n)
	for i := n - 1; i > 0; i-- {
		j := seed.below(uint32(i + 1))
		nodes[i], nodes[j] = nodes[j], nodes[i]
	}
	link(nodes)
}

func buildCache(n int, seed *random) {
	entries, buckets := n/2, 1
	for buckets < entries {
		buckets *= 2
	}
	table = make([]*entry, buckets)
	for i := 0; i < entries; i++ {
		e := &entry{key: seed.next(), value: new([8]uint64), older: newest}
		for word := range e.value {
			e.value[word] = e.key
		}
		bucket := &table[e.key&uint64(buckets-1)]
		e.chain, *bucket = *bucket, e
		if newest != nil {
			newest.newer = e
		}
		newest = e
	}
}

func walkNodes(n int, pass uint64) (objects, sum uint64) {
	stack := make([]*node, 0, n+lists)
	visit := func(next *node) {
		if next != nil && next.visited != pass {
			next.visited = pass
			stack = append(stack, next)
		}
	}
	for _, root := range roots {
		visit(root)
	}
	for len(stack) > 0 {
		node := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		check(node.id < uint64(n), "a node's number is wrong")
		objects++
		sum += node.id * node.id
		for _, next := range node.edges {
			visit(next)
		}
	}
	return
}

func walkCache(_ int, _ uint64) (objects, sum uint64) {
	for e := newest; e != nil; e = e.older {
		check(e.value[0] == e.key && e.value[7] == e.key, "a value is wrong")
		objects += 2
		sum += e.key
	}
	objects++
	return
}

func stepNodes(at any, r uint64) any {
	if node, ok := at.(*node); ok && node != nil && node.edges[r&3] != nil {
		return node.edges[r&3]
	}
	return roots[(r>>2)%lists]
}

func stepCache(at any, r uint64) any {
	if e, ok := at.(*entry); ok && e != nil {
		if r&1 != 0 {
			return e.older
		}
		return e.chain
	}
	return table[r&uint64(len(table)-1)]
}

type shape struct {
	build func(int, *random)
	walk  func(int, uint64) (uint64, uint64)
	step  func(any, uint64) any
}

var shapes = map[string]shape{
	"random":   {buildRandom, walkNodes, stepNodes},
	"tree":     {buildTree, walkNodes, stepNodes},
	"lists":    {buildLists, walkNodes, stepNodes},
	"shuffled": {buildShuffled, walkNodes, stepNodes},
	"cache":    {buildCache, walkCache, stepCache},
}

func mutate(s shape, seed random, done *atomic.Bool, taken *atomic.Uint64) {
	ring := make([]any, 1024)
	var at any
	for !done.Load() {
		for i := 0; i < 256; i++ {
			r := seed.next()
			at = s.step(at, r>>16)
			if i%8 != 0 {
				ring[r%1024] = at
			} else {
				ring[r%1024] = &node{}
			}
		}
		taken.Add(256)
	}
}

func graph(o *options) {
	if o.variant == "" {
		o.variant = "random"
	}
	s, known := shapes[o.variant]
	check(known, "no such variant")
	mib, rounds := 1024, 5
	if o.quick {
		mib, rounds = 8, 2
	}
	mib = or(o.mib, mib)
	n := mib << 20 / 64
	processors := runtime.GOMAXPROCS(0)
	debug.SetGCPercent(-1)
	seed := random(o.seed)
	s.build(n, &seed)
	objects, sum := s.walk(n, 1)
	if o.workers != 0 {
		processors = o.workers
		if o.threads > processors {
			processors = o.threads
		}
		runtime.GOMAXPROCS(processors)
	}
	runtime.GC()
	debug.SetGCPercent(100)

	var done atomic.Bool
	var taken atomic.Uint64
	var group sync.WaitGroup
	for i := 0; i < o.threads; i++ {
		group.Add(1)
		go func(i int) {
			mutate(s, random(o.seed+uint64(i)), &done, &taken)
			group.Done()
		}(i)
	}
	var wall, used []float64
	var all section
	var steps uint64
	var total time.Duration
	for i := 0; i < rounds; i++ {
		before := taken.Load()
		one := begin()
		runtime.GC()
		one.end()
		wall = append(wall, float64(one.wall))
		used = append(used, float64(one.cpu))
		steps += taken.Load() - before
		total += one.wall
		all.cpu += one.cpu / time.Duration(rounds)
		if one.rss > all.rss {
			all.rss = one.rss
		}
	}
	done.Store(true)
	group.Wait()
	name := fmt.Sprintf("%s,mib=%d,workers=%d,busy=%d", o.variant, mib, o.workers, o.threads)
	all.print("graph", name, "collection", "ms", "lower", median(wall)/1e6)
	all.print("graph", name, "wall_per_object", "ns", "lower", median(wall)/float64(objects))
	all.print("graph", name, "cpu_per_object", "ns", "lower", median(used)/float64(objects))
	if o.threads != 0 {
		all.print("graph", name, "mutators", "M/s", "higher", float64(steps)/float64(total.Microseconds()))
	}
	after, sumAfter := s.walk(n, 2)
	check(after == objects && sumAfter == sum, "the graph has changed")
}
