package graph

import (
	"context"
	"fmt"

	"github.com/headrace/headrace/graph/model"
	"github.com/headrace/headrace/internal/eventstore"
	"github.com/headrace/headrace/internal/queries"
)

const (
	partDefault = 100   // rows of a live list's message that says no number
	partMax     = 1_000 // and at most
)

// partReader is what live lists need of a view's reader.
type partReader[R any, F any] interface {
	Part(ctx context.Context, filter F, first int, after *string) (queries.Slice[R], error)
	GetMany(ctx context.Context, ids []string) ([]*R, error)
}

// liveList tells one subscriber what a list holds, and then what changes in it. It remembers which rows it told of and at
// which position, and nothing else of them: what is to be told follows from that and from the row as it is.
type liveList[R any, F interface{ Passes(R) bool }] struct {
	root   *root
	view   string
	from   partReader[R, F]
	filter F
	first  int    // rows of a message
	after  *int64 // the client knows the list as of then; nil: it knows nothing
	id     func(*R) string
	at     func(*R) int64

	standing
	told     map[string]int64                // by id, the position of the row that the client has
	why      map[string]*queries.Degradation // by id, of the rows that are degraded as the client has them
	position int64                           // everything up to here was told
	yield    func(*model.ListChange[R], eventstore.Mark) bool
}

// follow streams the list. What is asked for wrongly is refused before anything is streamed.
func (l *liveList[R, F]) follow(ctx context.Context, first *int, after *int64) (<-chan *model.ListChange[R], error) {
	l.first = partDefault
	if first != nil {
		if *first < 1 || *first > partMax {
			return nil, &queries.ArgumentError{Argument: "first", Reason: fmt.Sprintf("must be between 1 and %d", partMax)}
		}
		l.first = *first
	}
	var err error
	if l.filter, err = narrowed(ctx, l.root, l.view, l.filter); err != nil {
		return nil, err
	}
	l.standing = l.root.stands()
	if l.after, err = l.root.resume(ctx, after, nil); err != nil {
		return nil, err
	}
	l.has.Position = given(l.after)
	return streamSeen(ctx, func(yield func(*model.ListChange[R], eventstore.Mark) bool) error {
		l.yield = yield
		return l.run(ctx)
	}), nil
}

// send tells the client, and where it goes on if it gets nothing after this message. False means that it has gone.
func (l *liveList[R, F]) send(m *model.ListChange[R]) bool {
	resumable := given(l.after)
	if m.Position != nil {
		resumable = *m.Position
	}
	return l.yield(m, l.mark(resumable))
}

// run finds out how far the view is before it reads any of it. So whatever the rows that are read do not include comes
// after that position, and is told afterwards.
func (l *liveList[R, F]) run(ctx context.Context) error {
	if _, err := l.root.ready(ctx, l.view, nil, nil, eventstore.Token{}); err != nil {
		return err
	}
	at, err := l.root.viewPosition(ctx, l.view)
	if err != nil {
		return err
	}
	if err := l.take(ctx, at.Epoch, at.Position); err != nil {
		return err
	}
	l.position = at.Position
	if l.after != nil && *l.after < l.root.Progress.ParkedMoved(l.view) {
		l.after = nil // rows have changed since whose last event is older
	}
	if more, err := l.snapshot(ctx); err != nil || !more {
		return err
	}
	changes, err := l.root.Feed.Changes(ctx, l.view, at)
	if err != nil {
		return err
	}
	for c, err := range changes {
		if err != nil {
			return err
		}
		if more, err := l.change(ctx, c); err != nil || !more {
			return err
		}
	}
	return nil
}

// snapshot tells what is in the list, part by part. More is false when the client has gone.
func (l *liveList[R, F]) snapshot(ctx context.Context) (more bool, err error) {
	l.told, l.why = map[string]int64{}, map[string]*queries.Degradation{}
	var cursor *string
	for {
		var part queries.Slice[R]
		under, err := l.root.inOneEpoch(func() error {
			return l.root.sharing.Do(ctx, func(ctx context.Context) (err error) {
				part, err = l.from.Part(ctx, l.filter, l.first, cursor)
				return err
			})
		})
		if err != nil {
			return false, err
		}
		newest := int64(0) // a row may be of later than the position that the list began at
		for i := range part.Rows {
			newest = max(newest, l.at(&part.Rows[i]))
		}
		if err := l.take(ctx, under, newest); err != nil {
			return false, err
		}
		message := &model.ListChange[R]{Kind: model.ListSnapshot}
		for i := range part.Rows {
			row := marked(l.root, l.view, &part.Rows[i])
			if !l.root.sees(ctx, l.view, row) {
				continue
			}
			l.tell(row)
			if l.after != nil && l.at(row) <= *l.after && degradation(row) == nil {
				message.Unchanged = append(message.Unchanged, l.id(row))
			} else {
				message.Rows = append(message.Rows, row)
			}
		}
		if err := l.bound(); err != nil {
			return false, err
		}
		if !part.HasNext {
			at := l.position // a copy: the message is encoded while the list goes on
			message.Kind, message.Position = model.ListSnapshotEnd, &at
		}
		if !l.send(message) || !part.HasNext {
			return ctx.Err() == nil, nil
		}
		cursor = &part.Cursors[len(part.Cursors)-1]
	}
}

// change tells what became of the keys that changed, in messages of l.first rows. The last one has the new position: a
// client that misses it begins again with all of them.
func (l *liveList[R, F]) change(ctx context.Context, c queries.Changes) (more bool, err error) {
	var rows []*R
	under, err := l.root.inOneEpoch(func() (err error) {
		rows, err = queries.Shared(ctx, l.root.sharing, l.root.Progress.Edition(l.view), c.Keys, c.Position, c.Epoch, l.from.GetMany)
		return err
	})
	newest := int64(0)
	for _, row := range rows {
		if row != nil {
			newest = max(newest, l.at(row))
		}
	}
	if err == nil {
		err = l.take(ctx, c.Epoch, c.Position)
	}
	if err == nil {
		err = l.take(ctx, under, newest)
	}
	if err != nil {
		return false, err
	}
	before := l.position
	message := &model.ListChange[R]{Kind: model.ListChanged, Position: &before}
	for i, row := range rows {
		if len(message.Rows)+len(message.Removed) == l.first {
			if !l.send(message) {
				return false, nil
			}
			message = &model.ListChange[R]{Kind: model.ListChanged, Position: &before}
		}
		passes := row != nil && l.filter.Passes(*row) && l.root.sees(ctx, l.view, row)
		l.note(message, c.Keys[i], row, passes)
	}
	l.position = c.Position
	if err := l.bound(); err != nil {
		return false, err
	}
	if len(message.Rows)+len(message.Removed) == 0 {
		return true, nil
	}
	message.Position = &c.Position
	return l.send(message), nil
}

// note adds a row to a message, if the client does not have it as it is. Passes says that it is in the list now.
func (l *liveList[R, F]) note(message *model.ListChange[R], id string, row *R, passes bool) {
	at, told := l.told[id]
	row = marked(l.root, l.view, row)
	switch {
	case passes && (!told || at < l.at(row) || !same(degradation(row), l.why[id])):
		l.tell(row)
		message.Rows = append(message.Rows, row)
	case !passes && told:
		delete(l.told, id)
		delete(l.why, id)
		message.Removed = append(message.Removed, id)
	}
}

// tell notes what the client has of a row.
func (l *liveList[R, F]) tell(row *R) {
	id := l.id(row)
	l.told[id] = l.at(row)
	if why := degradation(row); why != nil {
		l.why[id] = why
	} else {
		delete(l.why, id)
	}
}

func (l *liveList[R, F]) bound() error {
	if limit := l.root.maxLiveRows; len(l.told) > limit {
		return coded(codeListTooLarge, "the list holds more than %d rows; narrow the filter", limit)
	}
	return nil
}
