// main.go -- the workloads as a Go programmer would write them: the peer "go" of scripts/bench.
//
//	peer_go binary_trees|graph|churn|cache [options of the C programs]
//
// The algorithms are those of the C files of the same names, whose heads say what is measured, and so are
// options, result lines and checks (bench.h).  The collector is as it comes: GOGC=100, which is what
// GREY_GC=100 means too.  This file is bench.c's part: options, costs, results.
package main

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"runtime"
	"runtime/metrics"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	quick                                                bool
	threads, workers, depth, seconds, rate, entries, mib int
	variant                                              string
	seed                                                 uint64
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "bench: failed: "+format+"\n", arguments...)
	os.Exit(1)
}

func check(ok bool, what string) {
	if !ok {
		fail("%s", what)
	}
}

func parse(arguments []string) *options {
	o := &options{seed: 1}
	numbers := map[string]*int{"--threads": &o.threads, "--workers": &o.workers, "--depth": &o.depth,
		"--seconds": &o.seconds, "--rate": &o.rate, "--entries": &o.entries, "--mib": &o.mib}
	for i := 0; i < len(arguments); i++ {
		name := arguments[i]
		if name == "--quick" || name == "--full" {
			o.quick = o.quick || name == "--quick"
			continue
		}
		if i++; i == len(arguments) {
			fail("%s needs a value", name)
		}
		if name == "--variant" {
			o.variant = arguments[i]
			continue
		}
		number, err := strconv.ParseUint(arguments[i], 10, 32)
		switch into := numbers[name]; {
		case err != nil:
			fail("%s: %s", name, err)
		case name == "--seed":
			o.seed = number
		case into != nil:
			*into = int(number)
		default:
			fail("no option %s", name)
		}
	}
	return o
}

func or(given, otherwise int) int {
	if given != 0 {
		return given
	}
	return otherwise
}

// splitmix64, as in bench.h.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb
	return z ^ (z >> 31)
}

func (r *random) below(n uint32) uint32 { return uint32((r.next() >> 32) * uint64(n) >> 32) }

// What a measured section cost.
type section struct {
	wall, cpu time.Duration
	start     time.Time
	rss       float64 // peak, MiB
}

func cpu() time.Duration {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil, "getrusage")
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func begin() *section {
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // where refused, the peak is the program's
	return &section{cpu: cpu(), start: time.Now()}
}

func (s *section) end() {
	s.wall = time.Since(s.start)
	s.cpu = cpu() - s.cpu
	text, err := os.ReadFile("/proc/self/status")
	check(err == nil, "/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			s.rss = kib / 1024
		}
	}
}

func (s *section) print(workload, name, metric, unit, better string, value float64) {
	fmt.Printf("result workload=%s peer=go case=%s metric=%s value=%.6g unit=%s better=%s "+
		"cpu_s=%.6g rss_mib=%.1f\n", workload, name, metric, value, unit, better, s.cpu.Seconds(), s.rss)
}

func median(values []float64) float64 {
	sort.Float64s(values)
	return values[(len(values)-1)/2]
}

// What the collector adds to a result: its stops of the world, from the runtime's histogram.
func (s *section) printPauses(workload, name string) {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	sample := []metrics.Sample{{Name: "/gc/pauses:seconds"}}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	var n, seen uint64
	for _, count := range h.Counts {
		n += count
	}
	if n == 0 {
		return
	}
	var points []string
	p99, longest := 0.0, 0.0
	for i, count := range h.Counts {
		if count == 0 {
			continue
		}
		low, high := math.Max(h.Buckets[i], 0), h.Buckets[i+1]
		points = append(points, fmt.Sprintf("%.6g:%d", low*1e6, count))
		if seen < n-n/100 {
			p99 = high
		}
		seen += count
		longest = high
	}
	s.print(workload, name, "pause_p99", "us", "lower", p99*1e6)
	s.print(workload, name, "pause_max", "us", "lower", longest*1e6)
	s.print(workload, name, "collections", "n", "lower", float64(stats.NumGC))
	printSeries(workload, name, "pause:stop", points)
}

func printSeries(workload, name, series string, points []string) {
	fmt.Printf("series workload=%s peer=go case=%s name=%s unit=us points=%s\n",
		workload, name, series, strings.Join(points, ","))
}

// bench.h's histogram of times in ns.
const steps = 64

type histogram struct {
	counts     [59 * steps]uint64
	n, longest uint64
}

func (h *histogram) count(ns uint64) {
	i := ns
	if ns >= steps {
		shift := uint64(57 - bits.LeadingZeros64(ns))
		i = shift*steps + ns>>shift
	}
	h.counts[i]++
	h.n++
	if ns > h.longest {
		h.longest = ns
	}
}

func (h *histogram) merge(from *histogram) {
	for i, count := range from.counts {
		h.counts[i] += count
	}
	h.n += from.n
	if from.longest > h.longest {
		h.longest = from.longest
	}
}

func (h *histogram) percentile(fraction float64) float64 {
	below, seen := uint64(fraction*float64(h.n)), uint64(0)
	for i := uint64(0); i < uint64(len(h.counts)); i++ {
		if seen += h.counts[i]; seen > below {
			shift := uint64(0)
			if i >= 2*steps {
				shift = i/steps - 1
			}
			high := (i-shift*steps+1)<<shift - 1
			return math.Min(float64(high), float64(h.longest))
		}
	}
	return float64(h.longest)
}

func (h *histogram) print(workload, name, series string) {
	var points []string
	for i := 0; ; i++ {
		rest := 0.5 * math.Pow(10, -float64(i)/8)
		if rest*float64(h.n) < 1 {
			break
		}
		points = append(points, fmt.Sprintf("%.9g:%.6g", 1-rest, h.percentile(1-rest)/1e3))
	}
	printSeries(workload, name, series, append(points, fmt.Sprintf("1:%.6g", float64(h.longest)/1e3)))
}

func main() {
	workloads := map[string]func(*options){
		"binary_trees": binaryTrees, "graph": graph, "churn": churn, "cache": cache}
	if len(os.Args) < 2 || workloads[os.Args[1]] == nil {
		fail("usage: %s binary_trees|graph|churn|cache [options]", os.Args[0])
	}
	workloads[os.Args[1]](parse(os.Args[2:]))
}
