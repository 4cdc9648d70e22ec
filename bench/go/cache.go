// cache.go -- bench/cache.c in Go; clients are goroutines with a thread of the system each, so that they
// sleep as precisely.

package main

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	parts, batch       = 1024, 16
	leastWords, atMost = 2, 64
	sizeSalt           = 0x9e3779b97f4a7c15
)

type item struct {
	chain, newer, older *item
	key, value          []byte // every word of both is the key's number
	hash                uint64
}

type part struct {
	lock           sync.Mutex
	buckets        []*item
	newest, oldest *item
	entries        int
}

type client struct {
	seed                    random
	operations, hits, looks uint64
	start, end              time.Time
	period                  float64 // ns between arrivals
	copied, key             [atMost * 8]byte
	latency                 histogram
}

var (
	cacheParts         [parts]part
	partMost           int
	cacheKeys, hotKeys uint32
	cacheClients       []*client
	cacheLoads         section
	cacheDuration      time.Duration
	bucketMask         uint64
)

func hashOf(number uint64) uint64 {
	r := random(number)
	return r.next()
}

func randomBytes(r uint64) int {
	return 8 * (leastWords + int((r>>32)*(atMost-leastWords+1)>>32))
}

func fillWords(into []byte, number uint64) {
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&into[0])), len(into)/8)
	for i := range words {
		words[i] = number
	}
}

func (c *client) keyMake(number uint64) []byte {
	key := c.key[:randomBytes(hashOf(number)*sizeSalt)]
	fillWords(key, number)
	return key
}

func (p *part) bucket(hash uint64) **item { return &p.buckets[hash/parts&bucketMask] }

func (p *part) find(hash uint64, key []byte) *item {
	i := *p.bucket(hash)
	for i != nil && (i.hash != hash || !bytes.Equal(i.key, key)) {
		i = i.chain
	}
	return i
}

func (p *part) remove(i *item) {
	if i.newer != nil {
		i.newer.older = i.older
	} else {
		p.newest = i.older
	}
	if i.older != nil {
		i.older.newer = i.newer
	} else {
		p.oldest = i.newer
	}
}

func (p *part) add(i *item) {
	i.newer, i.older = nil, p.newest
	if p.newest != nil {
		p.newest.newer = i
	} else {
		p.oldest = i
	}
	p.newest = i
}

func (p *part) touch(i *item) {
	if p.newest != i {
		p.remove(i)
		p.add(i)
	}
}

func (p *part) insert(i *item) {
	bucket := p.bucket(i.hash)
	i.chain, *bucket = *bucket, i
	p.add(i)
	if p.entries++; p.entries <= partMost {
		return
	}
	oldest := p.oldest
	link := p.bucket(oldest.hash)
	for *link != oldest {
		link = &(*link).chain
	}
	*link = oldest.chain
	p.remove(oldest)
	p.entries--
}

func (p *part) replace(hash uint64, key, value []byte) bool {
	i := p.find(hash, key)
	if i != nil {
		i.value = value
		p.touch(i)
	}
	return i != nil
}

func (c *client) put(number uint64) {
	hash, key := hashOf(number), c.keyMake(number)
	p := &cacheParts[hash%parts]
	value := make([]byte, randomBytes(c.seed.next()))
	fillWords(value, number)
	p.lock.Lock()
	done := p.replace(hash, key, value)
	p.lock.Unlock()
	if done {
		return
	}
	made := &item{key: append([]byte(nil), key...), value: value, hash: hash}
	p.lock.Lock()
	if !p.replace(hash, key, value) {
		p.insert(made)
	}
	p.lock.Unlock()
}

func (c *client) look(number uint64) bool {
	hash, key := hashOf(number), c.keyMake(number)
	p := &cacheParts[hash%parts]
	p.lock.Lock()
	i, n := p.find(hash, key), 0
	if i != nil {
		n = copy(c.copied[:], i.value)
		p.touch(i)
	}
	p.lock.Unlock()
	if i == nil {
		return false
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&c.copied[0])), n/8)
	check(words[0] == number && words[len(words)-1] == number, "a value isn't the key's")
	return true
}

func (c *client) operate() {
	r, among := c.seed.next(), cacheKeys
	if r&4 != 0 {
		among = hotKeys
	}
	number := uint64(c.seed.below(among))
	c.operations++
	if r&3 == 0 {
		c.put(number)
		return
	}
	c.looks++
	if c.look(number) {
		c.hits++
	} else {
		c.put(number)
	}
}

func cacheRun(what func(i int, c *client)) {
	var group sync.WaitGroup
	for i, c := range cacheClients {
		group.Add(1)
		go func(i int, c *client) {
			runtime.LockOSThread() // it sleeps in the system, precisely; the runtime's timers don't
			what(i, c)
			runtime.UnlockOSThread()
			group.Done()
		}(i, c)
	}
	group.Wait()
}

func (c *client) open() {
	for arrival := 0; ; arrival++ {
		due := c.start.Add(time.Duration(float64(arrival) * c.period))
		if !due.Before(c.end) {
			return
		}
		for wait := time.Until(due); wait > 0; wait = time.Until(due) {
			pause := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&pause, nil) // a signal may end it
		}
		for i := 0; i < batch; i++ {
			c.operate()
			c.latency.count(uint64(time.Since(due)))
		}
	}
}

func cacheOpen(rate float64, name string) {
	s := begin()
	start := time.Now().Add(time.Millisecond)
	period := batch * float64(len(cacheClients)) / rate * 1e9
	cacheRun(func(i int, c *client) {
		c.latency = histogram{}
		c.period = period
		c.start = start.Add(time.Duration(period * float64(i) / float64(len(cacheClients))))
		c.end = start.Add(cacheDuration)
		c.open()
	})
	s.end()
	var latency histogram
	for _, c := range cacheClients {
		latency.merge(&c.latency)
	}
	s.print("cache", name, "rate", "k/s", "higher", float64(latency.n)/s.wall.Seconds()/1e3)
	for _, p := range []struct {
		name     string
		fraction float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}} {
		s.print("cache", name, p.name, "us", "lower", latency.percentile(p.fraction)/1e3)
	}
	latency.print("cache", name, "latency")
	cacheLoads.cpu += s.cpu
	if s.rss > cacheLoads.rss {
		cacheLoads.rss = s.rss
	}
}

func cache(o *options) {
	const timerSlack = 29 // PR_SET_TIMERSLACK; later threads inherit it
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, timerSlack, 1, 0)
	threads, entries := or(o.threads, runtime.NumCPU()), 2000000
	cacheDuration = 15 * time.Second
	if o.quick {
		entries, cacheDuration = 20000, 100*time.Millisecond
	}
	entries = or(o.entries, entries)
	if o.seconds != 0 {
		cacheDuration = time.Duration(o.seconds) * time.Second
	}
	check(entries >= 2*parts, "--entries: too few")
	cacheKeys = uint32(entries + entries/4)
	hotKeys = cacheKeys / 10
	partMost = entries / parts
	buckets := 1
	for buckets < partMost {
		buckets *= 2
	}
	bucketMask = uint64(buckets - 1)
	for i := range cacheParts {
		cacheParts[i].buckets = make([]*item, buckets)
	}
	for i := 0; i < threads; i++ {
		cacheClients = append(cacheClients, &client{seed: random(o.seed + uint64(i))})
	}
	cacheRun(func(i int, c *client) {
		for number := entries * i / threads; number < entries*(i+1)/threads; number++ {
			c.put(uint64(number))
		}
	})

	name := fmt.Sprintf("entries=%d,threads=%d", entries, threads)
	s := begin()
	cacheRun(func(_ int, c *client) {
		for time.Since(s.start) < cacheDuration {
			for i := 0; i < batch; i++ {
				c.operate()
			}
		}
	})
	s.end()
	var operations, hits, looks uint64
	for _, c := range cacheClients {
		operations += c.operations
		hits += c.hits
		looks += c.looks
	}
	check(2*hits > looks, "few hits: it isn't the cache that is measured")
	capacity := float64(operations) / s.wall.Seconds()
	s.print("cache", name+",load=closed", "capacity", "k/s", "higher", capacity/1e3)
	if o.rate != 0 {
		cacheOpen(float64(o.rate), fmt.Sprintf("%s,load=%d/s", name, o.rate))
	} else {
		for percent := 25; percent <= 75; percent += 25 {
			cacheOpen(capacity*float64(percent)/100, fmt.Sprintf("%s,load=%d%%", name, percent))
		}
	}
	cacheLoads.printPauses("cache", name)
}
