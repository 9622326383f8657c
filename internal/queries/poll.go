package queries

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// lookUpTimeout bounds one look at the checkpoints, so that a database that hangs is asked again.
var lookUpTimeout = 2 * time.Second

// poll looks up the checkpoints of views that somebody waits for and that did not advance in this process just now,
// until nobody waits. The first look is after the delay.
func (p *Progress) poll(delay time.Duration) {
	for {
		p.pause(delay)
		names, more := p.toLookUp()
		if !more {
			return
		}
		moved := false
		if len(names) > 0 {
			started := time.Now()
			found, err := p.lookUp(names)
			if err == nil { // else the callers' deadlines answer
				moved = p.learn(found, names, started)
			}
		}
		if moved || delay == 0 {
			delay = p.cfg.PollMin
		} else {
			delay = min(2*delay, p.cfg.PollMax)
		}
	}
}

// pause waits for the delay, or for PollMin from the moment when another caller begins to wait.
func (p *Progress) pause(delay time.Duration) {
	if delay == 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return
	case <-p.nudge:
	}
	timer.Reset(min(delay, p.cfg.PollMin))
	<-timer.C
}

// toLookUp lists the views to look up. More is false when nobody waits: the poller ends.
func (p *Progress) toLookUp() (names []string, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, v := range p.views {
		if len(v.waiters) == 0 {
			continue
		}
		more = true
		if !p.reached[v.checkpoint].fresh(p.cfg.PollMax) {
			names = append(names, name)
		}
	}
	p.polling = more
	return names, more
}

func (p *Progress) lookUp(names []string) ([]serving, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookUpTimeout)
	defer cancel()
	epoch, _ := p.store.Epoch()
	rows, err := p.pool.Query(ctx, sqlServing, names)
	if err != nil {
		return nil, fmt.Errorf("look up checkpoints: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByName[serving])
	if err != nil {
		return nil, fmt.Errorf("look up checkpoints: %w", err)
	}
	for i := range found {
		// A checkpoint is in the history of the database that it is in, also where nothing moved it since that began.
		found[i].Epoch = max(found[i].Epoch, epoch)
	}
	// Before anybody is told of the positions, so that who waits for one knows what is missing in what it reads then.
	return found, p.learnParked(ctx, found)
}

// learn takes over what was looked up, and answers waiters. It reports whether a checkpoint moved.
func (p *Progress) learn(found []serving, asked []string, started time.Time) (moved bool) {
	var tell []func()
	defer func() { // without the lock
		for _, f := range tell {
			f()
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	missing := make(map[string]bool, len(asked))
	for _, name := range asked {
		missing[name] = true
	}
	for _, rows := range views(found) {
		delete(missing, rows[0].Name)
		before := p.view(rows[0].Name).checkpoint
		moved = p.learnView(rows, started) || moved
		if now := rows[0].Checkpoint; before != "" && before != now {
			tell = append(tell, p.switchedParked(before, now))
		}
	}
	for name := range missing {
		p.view(name).fail(0, &UnknownProjectionError{Projection: name})
		delete(p.views, name)
	}
	return moved
}

// learnView is learn for the shards of one view. The caller holds the lock.
func (p *Progress) learnView(rows []serving, started time.Time) (moved bool) {
	v, checkpoint := p.view(rows[0].Name), rows[0].Checkpoint
	if v.checkpoint != "" && v.checkpoint != checkpoint {
		close(p.switched)
		p.switched = make(chan struct{})
	}
	v.checkpoint, v.head, v.behind = checkpoint, rows[0].Head, behind(rows)
	at := tokens(rows)
	seen := p.reached[checkpoint]
	if begun := rows[0].Shards > 0; len(seen) == 0 || (begun && len(seen) != len(at)) {
		seen = make(reach, len(at))
	}
	for shard := range seen {
		if seen[shard].local.After(started) || shard >= len(at) {
			continue // what this process committed meanwhile is newer, and has woken its waiters
		}
		moved = moved || seen[shard].at.Position != at[shard].Position
		seen[shard].at = at[shard]
	}
	p.reached[checkpoint] = seen
	v.wake(seen.least().Position)
	for _, row := range rows {
		if err := row.halted(); err != nil && row.Shard < len(seen) && !seen[row.Shard].local.After(started) {
			v.fail(row.Position, err)
		}
	}
	return moved
}

// Follow runs a projection's serving generation, as run does it, and goes over to the next generation when a rebuild has
// switched to it: run's context ends and run is called again. A projection of another version than the one that
// serves runs as well, so that its table is kept ready. Follow returns what run returns before that, an
// *UnknownProjectionError, or nil when the context ends; while the database does not answer it asks again.
func (p *Progress) Follow(ctx context.Context, projection Projection, run func(context.Context, Projection) error) error {
	pause := followRetryMin
	for ctx.Err() == nil {
		generation, err := p.generation(ctx, projection)
		if unknown := (*UnknownProjectionError)(nil); errors.As(err, &unknown) {
			return err
		}
		if err != nil {
			if ctx.Err() == nil {
				p.cfg.Logger.WarnContext(ctx, "a projection does not run yet; it is tried again", "projection", projection.Name, "error", err)
			}
			rest(ctx, pause/2+rand.N(pause))
			pause = min(2*pause, followRetryMax)
			continue
		}
		pause = followRetryMin
		err = p.followOne(ctx, projection.At(generation), run)
		if !errors.Is(err, errSwitched) {
			return err
		}
	}
	return nil
}

// followRetryMin and followRetryMax bound the pauses of Follow while it cannot find out which generation serves.
const (
	followRetryMin = 50 * time.Millisecond
	followRetryMax = 5 * time.Second
)

var errSwitched = errors.New("another generation serves")

// followOne runs one generation until another serves.
func (p *Progress) followOne(ctx context.Context, projection Projection, run func(context.Context, Projection) error) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() { ended <- run(running, projection) }()
	tick := time.NewTicker(p.cfg.FollowPoll)
	defer tick.Stop()
	for {
		p.mu.Lock()
		switched := p.switched
		p.mu.Unlock()
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-tick.C:
		case <-switched: // somebody waits, and must not wait for the tick
		}
		// A look that fails is repeated: the projection does not depend on it.
		if now, err := p.generation(ctx, projection); err == nil && now != projection.Generation {
			stop(errSwitched)
			<-ended //nolint:errcheck // it was told to end
			return errSwitched
		}
		p.lookParked(ctx, projection.Checkpoint()) // nor on this
	}
}

// generation is the one to run: the serving one, or for another version than serves, the newest there is.
func (p *Progress) generation(ctx context.Context, projection Projection) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lookUpTimeout)
	defer cancel()
	var version, generation, newest int
	err := p.pool.QueryRow(ctx, sqlGenerations, projection.Name, projection.Version).Scan(&version, &generation, nil, &newest)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, &UnknownProjectionError{Projection: projection.Name}
	}
	if err != nil {
		return 0, fmt.Errorf("look up which generation of %s serves: %w", projection.Name, err)
	}
	if version != projection.Version {
		return newest, nil
	}
	checkpoint, tell := projection.At(generation).Checkpoint(), func() {}
	p.mu.Lock()
	if v := p.view(projection.Name); v.checkpoint != checkpoint {
		before := v.checkpoint
		v.checkpoint = checkpoint
		v.wake(p.reached[checkpoint].least().Position)
		tell = p.switchedParked(before, checkpoint)
	}
	p.mu.Unlock()
	tell()
	return generation, nil
}
