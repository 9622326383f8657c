package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// operation is one unit of load. It is called by one goroutine at a time for each worker, with a running number.
type operation func(ctx context.Context, worker, n int) error

// sample is what one run of a case measured.
type sample struct {
	rate     float64 // units per second
	p50, p99 time.Duration
}

// run drives op from workers goroutines for d and counts units for each call that succeeded. The first error ends the
// run: a benchmark that hides failures measures something else.
func run(ctx context.Context, workers, units int, d time.Duration, op operation) (sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	latencies := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	var once sync.Once
	var failure error
	start := time.Now()
	deadline := start.Add(d)
	for w := range workers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<14)
			for n := 0; ctx.Err() == nil; n++ {
				begin := time.Now()
				if begin.After(deadline) {
					break
				}
				if err := op(ctx, w, n); err != nil {
					once.Do(func() { failure = err })
					cancel()
					break
				}
				mine = append(mine, time.Since(begin))
			}
			latencies[w] = mine
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	if failure != nil {
		return sample{}, failure
	}
	all := slices.Concat(latencies...)
	return summarise(all, units, elapsed), nil
}

func summarise(latencies []time.Duration, units int, elapsed time.Duration) sample {
	if len(latencies) == 0 {
		return sample{}
	}
	slices.Sort(latencies)
	return sample{
		rate: float64(len(latencies)*units) / elapsed.Seconds(),
		p50:  latencies[len(latencies)/2],
		p99:  latencies[len(latencies)*99/100],
	}
}

// median picks the sample with the middle rate, whole, so that its latencies belong to its rate.
func median(samples []sample) sample {
	sorted := slices.Clone(samples)
	slices.SortFunc(sorted, func(a, b sample) int {
		switch {
		case a.rate < b.rate:
			return -1
		case a.rate > b.rate:
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}
