package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// The names of the prepared statements of a committer's connection.
const (
	nameLock     = "headrace_lock"
	nameLockFull = "headrace_lock_full"
	nameOne      = "headrace_append_one"
	nameMany     = "headrace_append_many"
	nameJudged   = "headrace_append_judged"
	nameFull     = "headrace_append_full"
	nameGuard    = "headrace_guard"
)

// committer sends batches over a connection of its own. A caller's context never reaches that connection.
type committer struct {
	store   *Store
	conn    *pgx.Conn
	encoder encoder
	pause   time.Duration // before the next attempt to connect
	looked  time.Time     // when the connection last said which history it leads to
	guard   guard
}

// lookAgain is how long a connection is used or rests before it is looked at: whether it leads to the same history, and
// whether it still lives. One that Postgres or something on the way closed meanwhile would leave the next batch's outcome
// unknown, although nothing was sent. The look takes a round trip.
const lookAgain = time.Second

// run takes and commits batches until the appender is closed and empty.
func (a *appender) run() {
	c := &committer{store: a.store}
	defer c.disconnect()
	var batch []*pending
	for {
		if batch = a.take(batch); len(batch) == 0 {
			return
		}
		c.commit(batch)
		a.done(batch)
	}
}

// commit sends the batch and answers each of its requests. A batch that Postgres refuses as a whole is sent again one
// by one, so that only the guilty request fails.
func (c *committer) commit(batch []*pending) {
	answers, err := c.send(batch)
	for attempt := 1; errors.Is(err, errHistory) && attempt < 4; attempt++ {
		if batch = c.current(batch); len(batch) == 0 {
			return
		}
		answers, err = c.send(batch)
	}
	if err == nil {
		c.store.count(batch, answers)
		for i, p := range batch {
			p.answer <- answers[i]
		}
		return
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == sqlStateReadOnly {
		c.disconnect() // this was the primary, and is none any more
	}
	if errors.As(err, &refused) && blamesValue(refused.Code) && !errors.Is(err, errHistory) && !c.broken() && len(batch) > 1 {
		for i := range batch {
			c.commit(batch[i : i+1])
		}
		return
	}
	for _, p := range batch {
		p.answer <- answer{err: c.failure(p, err)}
	}
}

// current answers the requests that were decided on another epoch than the newest, and returns the others.
func (c *committer) current(batch []*pending) []*pending {
	epoch, _ := c.store.Epoch()
	var others []*pending
	for _, p := range batch {
		if p.request.Epoch == 0 || p.request.Epoch == epoch {
			others = append(others, p)
		} else {
			p.answer <- answer{err: &HistoryError{Stream: p.parts[0].stream, Epoch: epoch}}
		}
	}
	return others
}

const sqlStateReadOnly = "25006"

// blamesValue tells whether an error may be the fault of one request: data, integrity, or a limit. Others, such as a
// timeout, would hit each request again.
func blamesValue(code string) bool {
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23") || strings.HasPrefix(code, "54")
}

// errNotSent marks failures before anything reached Postgres.
var errNotSent = errors.New("the append was not sent")

func (c *committer) failure(p *pending, err error) error {
	var refused *pgconn.PgError
	if errors.Is(err, errNotSent) || errors.Is(err, errHistory) || errors.As(err, &refused) && (!c.broken() || refused.Code == sqlStateReadOnly) {
		return fmt.Errorf("appending to %s: %w", p.parts[0].stream, explain(err))
	}
	return &UnknownOutcomeError{CommandID: p.request.CommandID.ID, Err: err}
}

func (c *committer) broken() bool { return c.conn == nil || c.conn.IsClosed() }

// send runs one batch in one round trip: lock, append, and the commit that ends the implicit transaction.
func (c *committer) send(batch []*pending) ([]answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.store.cfg.SendTimeout)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	c.guard = c.store.guard()
	for _, p := range batch {
		if p.request.Epoch != 0 && p.request.Epoch != c.guard.epoch {
			return nil, errHistory
		}
	}
	answers, err := c.roundTrip(ctx, c.encoder.encode(batch), batch)
	if errors.Is(err, errRefused) {
		answers, err = c.roundTrip(ctx, c.encoder.encodeJudged(batch), batch)
	}
	if errors.Is(err, errHistory) {
		c.looked = time.Time{}
	}
	if err != nil {
		return nil, err
	}
	c.resolve(batch, answers)
	return answers, nil
}

func (c *committer) roundTrip(ctx context.Context, plan plan, batch []*pending) ([]answer, error) {
	pipeline := c.conn.PgConn().StartPipeline(ctx)
	c.store.sendStatement(pipeline, plan.lock, c.guard.values())
	c.store.sendStatement(pipeline, plan.statement, plan.values)
	answers, err := c.receive(pipeline, plan, batch)
	if closeErr := pipeline.Close(); err == nil {
		err = closeErr
	}
	return answers, err
}

var binaryFormat = []int16{1}

// receive reads the results; they stand when the pipeline's end arrived, which is after the commit.
func (c *committer) receive(pipeline *pgconn.Pipeline, plan plan, batch []*pending) ([]answer, error) {
	answers, err := readAppend(pipeline, plan, batch)
	if err != nil {
		return nil, err
	}
	end, err := pipeline.GetResults()
	if err != nil {
		return nil, err
	}
	if _, ok := end.(*pgconn.PipelineSync); !ok {
		return nil, errWire
	}
	var newest Token
	for i := range answers {
		if answers[i].err != nil || answers[i].receipt.Duplicate {
			continue
		}
		c.store.memory.keep(answers[i].receipt.Token)
		if answers[i].receipt.Token.Position > newest.Position {
			newest = answers[i].receipt.Token
		}
	}
	c.store.committed(newest)
	return answers, nil
}

// readAppend sends what the pipeline holds, and reads the lock's and the append's results.
func readAppend(pipeline *pgconn.Pipeline, plan plan, batch []*pending) ([]answer, error) {
	if err := pipeline.Sync(); err != nil {
		return nil, err
	}
	log, err := readLock(pipeline)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code == sqlStateDivision {
		return nil, fmt.Errorf("%w: %w", errHistory, err)
	}
	if err != nil {
		return nil, err
	}
	return plan.read(pipeline, log, batch)
}

type identity struct {
	id    uuid.UUID
	epoch int32
}

func readLock(pipeline *pgconn.Pipeline) (identity, error) {
	var log identity
	err := eachRow(pipeline, func(row [][]byte) (err error) {
		if log.id, err = readUUID(row[0]); err != nil {
			return err
		}
		log.epoch, err = readInt4(row[1])
		return err
	})
	if err == nil && log.id == uuid.Nil {
		err = errors.New("the table log has no row")
	}
	return log, err
}

func eachRow(pipeline *pgconn.Pipeline, f func(row [][]byte) error) error {
	results, err := pipeline.GetResults()
	if err != nil {
		return err
	}
	reader, ok := results.(*pgconn.ResultReader)
	if !ok {
		return errWire
	}
	var failed error
	for reader.NextRow() {
		if failed == nil {
			failed = f(reader.Values())
		}
	}
	if _, err := reader.Close(); err != nil {
		return err
	}
	return failed
}

// resolve completes, outside the lock, the answers that need another look: the receipt of a known command id, and the
// version that a stream was found at. It asks on the committer's own connection, since the pool's may all be in use for long.
func (c *committer) resolve(batch []*pending, answers []answer) {
	ctx, cancel := context.WithTimeout(context.Background(), c.store.cfg.SendTimeout)
	defer cancel()
	for i, p := range batch {
		var conflict *ConflictError
		switch {
		case answers[i].receipt.Duplicate:
			receipt, err := knownReceipt(ctx, c.conn, p.request.CommandID)
			answers[i] = answer{receipt, err}
		case errors.As(answers[i].err, &conflict) && conflict.Actual < 0:
			actual, err := streamVersion(ctx, c.conn, conflict.Stream)
			if err != nil {
				answers[i].err = fmt.Errorf("%w; and reading its version: %w", errConflict, err)
				continue
			}
			conflict.Actual = actual
		}
	}
}

var errConflict = errors.New("the stream is not at the expected version")

// connect makes the connection when there is none, with a pause that grows while that fails.
func (c *committer) connect(ctx context.Context) error {
	if !c.broken() && time.Since(c.looked) > lookAgain && c.look(ctx, c.conn) != nil {
		_ = c.conn.Close(ctx)
	}
	if !c.broken() {
		return nil
	}
	time.Sleep(c.pause)
	c.pause = min(max(2*c.pause, 5*time.Millisecond), time.Second)
	config := c.store.pool.Config().ConnConfig.Copy()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting the appender: %w", err)
	}
	err = c.look(ctx, conn)
	if err == nil {
		err = c.store.prepareStatements(ctx, conn)
	}
	if err != nil {
		_ = conn.Close(ctx)
		return err
	}
	c.conn, c.pause = conn, 0
	return nil
}

// look finds out which history a connection leads to.
func (c *committer) look(ctx context.Context, conn *pgx.Conn) error {
	_, canWrite, err := c.store.look(ctx, conn)
	if err == nil && !canWrite {
		err = errStandby
	}
	if err == nil {
		c.looked = time.Now()
	}
	return err
}

func (c *committer) disconnect() {
	if !c.broken() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.conn.Close(ctx)
	}
}
