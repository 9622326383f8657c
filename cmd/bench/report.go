package main

import (
	"fmt"
	"io"
	"time"
)

// row is a line of a table: a case, its median, and what it is compared with.
type row struct {
	name   string
	result sample
	base   string  // the name of what the ratio is to; empty: no ratio
	ratio  float64 // to the base
	target string  // what was aimed at; empty: nothing
}

func printTable(w io.Writer, title, unit string, rows []row) {
	fmt.Fprintf(w, "\n### %s\n\n| case | %s | p50 | p99 | ratio | target |\n| --- | ---: | ---: | ---: | ---: | ---: |\n", title, unit)
	for _, r := range rows {
		ratio := ""
		if r.base != "" {
			ratio = fmt.Sprintf("%.2f × %s", r.ratio, r.base)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", r.name, count(r.result.rate), short(r.result.p50), short(r.result.p99), ratio, r.target)
	}
}

// count prints a rate with thousands separated.
func count(rate float64) string {
	n := int64(rate + 0.5)
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", count(float64(n/1000)), n%1000)
}

func short(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
