package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/headrace/headrace/internal/queries"
)

// How often progress is told where no bar is drawn: as lines for people, and as JSON for programs.
const (
	lineEvery = 5 * time.Second
	jsonEvery = time.Second
)

// progressLine is a line of progress with --json.
type progressLine struct {
	Event     string        `json:"event"` // "progress"
	View      string        `json:"view"`
	Table     string        `json:"table"`
	Phase     queries.Phase `json:"phase"`
	Workers   int           `json:"workers"`
	Position  int64         `json:"position"` // of the hindmost worker
	Head      int64         `json:"head"`
	Events    int64         `json:"events"` // applied by this run
	PerSecond float64       `json:"eventsPerSecond"`
	ETA       float64       `json:"secondsLeft"` // -1: not known yet
	Throttled string        `json:"throttled"`   // why it slows itself
}

// shown shows the progress of a fill: a bar on a terminal, else a line now and then.
type shown struct {
	out   output
	err   io.Writer
	json  bool
	bar   *progressbar.ProgressBar // nil: lines
	began time.Time
	told  time.Time
	every time.Duration

	workers map[int]queries.RebuildProgress
	start   int64 // the hindmost position when the run began
	last    progressLine
}

func newShown(out output, to *os.File, asJSON bool) *shown {
	s := &shown{out: out, err: to, json: asJSON, began: time.Now(), told: time.Now(), every: lineEvery, start: -1, workers: map[int]queries.RebuildProgress{}}
	if asJSON {
		s.every, s.told = jsonEvery, time.Time{}
	} else if term.IsTerminal(int(to.Fd())) {
		s.every = 0
		s.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(to), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("events"), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
	}
	return s
}

// progress takes what a worker tells.
func (s *shown) progress(p queries.RebuildProgress) {
	now := time.Now()
	next := s.last.Phase != "" && p.Phase != s.last.Phase
	changed := p.Phase != s.last.Phase || p.Throttled != s.last.Throttled
	s.workers[p.Worker] = p
	s.last = s.sum(p, now)
	switch {
	case s.bar != nil && next && s.bar.IsFinished(): // which has the log taken, and what is done now takes its time
		fmt.Fprintln(s.err, s.last.text())
	case s.bar != nil:
		s.draw()
	case changed || now.Sub(s.told) >= s.every:
		s.told = now
		if s.json {
			line(s.out, s.last)
		} else {
			fmt.Fprintln(s.err, s.last.text())
		}
	}
}

// sum is where all workers are together.
func (s *shown) sum(p queries.RebuildProgress, now time.Time) progressLine {
	l := progressLine{
		Event: "progress", View: p.View, Table: p.Checkpoint, Phase: p.Phase, Workers: p.Workers, Position: p.Position, Head: p.Head,
		ETA: -1, Throttled: p.Throttled,
	}
	for _, w := range s.workers {
		l.Events += w.Events
		if p.Phase == queries.PhaseFill && w.Phase == queries.PhaseFill {
			l.Position = min(l.Position, w.Position)
		}
	}
	if s.start < 0 {
		s.start = l.Position
	}
	seconds := now.Sub(s.began).Seconds()
	l.PerSecond = float64(l.Events) / seconds
	if gone := l.Position - s.start; l.Position >= l.Head {
		l.ETA = 0
	} else if gone > 0 {
		l.ETA = seconds / float64(gone) * float64(l.Head-l.Position)
	}
	return l
}

func (s *shown) draw() {
	label := s.last.Table + " " + string(s.last.Phase)
	if s.last.Throttled != "" {
		label += " (slowed: " + s.last.Throttled + ")"
	}
	s.bar.Describe(label)
	s.bar.ChangeMax64(max(s.last.Head, 1))
	// What cannot be drawn is not worth a failed rebuild.
	_ = s.bar.Set64(s.last.Position)
}

func (l progressLine) text() string {
	left := "unknown time"
	if l.ETA >= 0 {
		left = time.Duration(l.ETA * float64(time.Second)).Round(time.Second).String()
	}
	text := fmt.Sprintf("%s: %s, position %d of %d (%.0f%%), %.0f events/s, %s left", l.Table, l.Phase, l.Position, l.Head,
		100*float64(l.Position)/float64(max(1, l.Head)), l.PerSecond, left)
	if l.Throttled != "" {
		text += "; slowed: " + l.Throttled
	}
	return text
}

// end clears the bar.
func (s *shown) end() {
	if s.bar != nil {
		_ = s.bar.Clear()
	}
}
