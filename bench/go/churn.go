// churn.go -- bench/churn.c in Go.

package main

import (
	"encoding/binary"
	"fmt"
	"sync"
	"unsafe"
)

type churnVariant struct {
	name, sizes       string
	low, high, slots  int
	buffers           bool
	count, quickCount int
}

var churnVariants = []churnVariant{
	{"small", "16-512", 16, 512, 10000, false, 10000000, 200000},
	{"large", "1K-32K", 1024, 32768, 10000, false, 300000, 15000},
	{"buffers", "32K-1M", 32768, 1048576, 128, true, 200000, 1000},
}

// Where C allocates memory in which every word may be a pointer, Go has a slice of pointers.
func churnMake(v *churnVariant, r uint64, tag uint64) []byte {
	size := (v.low + int((r>>32)*uint64(v.high-v.low+1)>>32)) &^ 7
	var object []byte
	if v.buffers || r&1 != 0 {
		object = make([]byte, size)
	} else {
		words := make([]unsafe.Pointer, size/8)
		object = unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	}
	if v.buffers {
		for i := 4096; i < size; i += 4096 {
			object[i] = byte(r)
		}
	}
	if v.buffers || r&1 != 0 { // a number among pointers isn't allowed
		binary.LittleEndian.PutUint64(object, tag)
		binary.LittleEndian.PutUint64(object[size-8:], tag)
	}
	return object
}

func churnCheck(object []byte, tag uint64) {
	first := binary.LittleEndian.Uint64(object)
	check(first == binary.LittleEndian.Uint64(object[len(object)-8:]), "the ends of an object differ")
	check(first == 0 || first == tag, "an object is somebody else's")
}

func churnRun(v *churnVariant, count int, thread uint64, seed random) {
	ring := make([][]byte, v.slots)
	for i, slot := 0, 0; i < count; i++ {
		tag := (thread<<48 | uint64(slot)<<24) ^ 0x5bd1e995a5a5c3c3
		object := churnMake(v, seed.next(), tag)
		if ring[slot] != nil {
			churnCheck(ring[slot], tag)
		}
		ring[slot] = object
		if slot++; slot == v.slots {
			slot = 0
		}
	}
}

func churn(o *options) {
	v := &churnVariants[0]
	for i := range churnVariants {
		if churnVariants[i].name == o.variant {
			v = &churnVariants[i]
		}
	}
	threads, count := or(o.threads, 1), v.count
	if o.quick {
		count = v.quickCount
	}
	s := begin()
	var group sync.WaitGroup
	for i := 0; i < threads; i++ {
		group.Add(1)
		go func(i int) {
			churnRun(v, count, uint64(i), random(o.seed+uint64(i)))
			group.Done()
		}(i)
	}
	group.Wait()
	s.end()
	name := fmt.Sprintf("%s,threads=%d", v.sizes, threads)
	millions := float64(count) * float64(threads) / 1e6
	s.print("churn", name, "rate", "M/s", "higher", millions/s.wall.Seconds())
	s.print("churn", name, "cpu_per_alloc", "ns", "lower", float64(s.cpu)/(millions*1e6))
	s.printPauses("churn", name)
}
