package queries

import (
	"context"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/headrace/headrace/internal/eventstore"
)

// SharingConfig bounds shared readings. The zero value works.
type SharingConfig struct {
	Keep    int           // rows kept in memory; 0 stands for 4096
	Readers int           // readings at the same time; 0 stands for 4
	Epoch   func() int32  // of the log: what was read in an older one is read anew; nil: it never changes
	Timeout time.Duration // of a reading, while the database cannot be reached too; 0 stands for 30 s
}

func (c SharingConfig) withDefaults() SharingConfig {
	c.Keep = or(c.Keep, 4096)
	c.Readers = or(c.Readers, 4)
	if c.Epoch == nil {
		c.Epoch = func() int32 { return 0 }
	}
	c.Timeout = or(c.Timeout, 30*time.Second)
	return c
}

// Sharing lets many subscribers who are told of the same change read the row once: what one of them reads answers all who
// need it as of the same position of the log or an earlier one. Readings take turns, so that subscribers leave
// connections to everybody else, and are repeated while the database cannot be reached. It is safe for concurrent use.
type Sharing struct {
	cfg   SharingConfig
	turns chan struct{} // holds a value for each reading under way

	mu   sync.Mutex
	kept *lru.Cache[shared, *reading]
}

// shared names a row.
type shared struct{ view, key string }

// reading is a row as of a position, once its batch is done.
type reading struct {
	position int64
	epoch    int32
	row      any // nil: there is none
	batch    *batch
}

// batch is what one caller reads for all.
type batch struct {
	view     string
	keys     []string
	readings []*reading // of the keys
	done     chan struct{}
	err      error
}

// NewSharing returns one that has read nothing yet.
func NewSharing(cfg SharingConfig) *Sharing {
	cfg = cfg.withDefaults()
	kept, err := lru.New[shared, *reading](cfg.Keep)
	if err != nil { // a size below 1
		panic(fmt.Sprintf("queries: a sharing that keeps %d rows", cfg.Keep))
	}
	return &Sharing{cfg: cfg, turns: make(chan struct{}, cfg.Readers), kept: kept}
}

// Shared returns the rows of a view's keys, nil where there is none, as of a position of the log that the view is known to
// include in an epoch, or a later one. When the log has another epoch by now, the rows are as they are. It calls read for
// those that nobody has read as of then, with a context of nobody in particular: what it returns must not depend on who
// asks. Rows are shared and must not be changed.
func Shared[R any](
	ctx context.Context, s *Sharing, view string, keys []string, position int64, epoch int32,
	read func(context.Context, []string) ([]*R, error),
) ([]*R, error) {
	readings, missing := s.claim(view, keys, position, epoch)
	if missing != nil {
		go s.fill(context.Background(), missing, func(ctx context.Context) error {
			rows, err := read(ctx, missing.keys)
			for i, row := range rows {
				missing.readings[i].row = row
			}
			return err
		})
	}
	rows := make([]*R, len(keys))
	for i, r := range readings {
		select {
		case <-r.batch.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if r.batch.err != nil {
			return nil, r.batch.err
		}
		rows[i], _ = r.row.(*R)
	}
	return rows, nil
}

// claim finds the readings of keys, and makes those that are missing, which the caller has to fill.
func (s *Sharing) claim(view string, keys []string, position int64, seen int32) (readings []*reading, missing *batch) {
	epoch := s.cfg.Epoch()
	if seen != epoch {
		position = 0 // it says nothing of the view as it is, and must not pass for a position of this epoch
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		r, known := s.kept.Get(shared{view, key})
		if !known || r.position < position || r.epoch != epoch {
			if missing == nil {
				missing = &batch{view: view, done: make(chan struct{})}
			}
			r = &reading{position: position, epoch: epoch, batch: missing}
			s.kept.Add(shared{view, key}, r)
			missing.keys, missing.readings = append(missing.keys, key), append(missing.readings, r)
		}
		readings = append(readings, r)
	}
	return readings, missing
}

// fill reads a batch. When that fails, the next who needs the rows reads them anew.
func (s *Sharing) fill(ctx context.Context, b *batch, read func(context.Context) error) {
	defer close(b.done)
	defer func() {
		if cause := recover(); cause != nil { // here it would end the process
			b.err = fmt.Errorf("reading rows of %s panicked: %v", b.view, cause)
		}
		if b.err != nil {
			s.forget(b)
		}
	}()
	b.err = s.Do(ctx, read)
}

// Do runs a reading that is one subscriber's own when it is its turn, again while the database cannot be reached.
func (s *Sharing) Do(ctx context.Context, read func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for {
		select {
		case s.turns <- struct{}{}:
			err = read(ctx)
			<-s.turns
		case <-ctx.Done():
			return fmt.Errorf("read shared rows: %w", ctx.Err())
		}
		if err == nil || !eventstore.Transient(err) || ctx.Err() != nil {
			return err
		}
		rest(ctx, sharingRetry)
	}
}

// sharingRetry is the pause before a reading is repeated.
const sharingRetry = 200 * time.Millisecond

func (s *Sharing) forget(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, key := range b.keys {
		if now, known := s.kept.Peek(shared{b.view, key}); known && now == b.readings[i] {
			s.kept.Remove(shared{b.view, key})
		}
	}
}
