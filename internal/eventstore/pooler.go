package eventstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// FitPooler finds out whether a pooler stands before the database that config leads to which does not keep a client's
// prepared statements, as PgBouncer before 1.21 in transaction mode, and makes config right for that: statements are then
// parsed anew whenever they are sent, and only their descriptions are kept, by the client. It reports whether it did so,
// for which it connects once. What the connection string says itself, in default_query_exec_mode, is left as it is.
//
// A pooler in session mode cannot be told from one in transaction mode, and is treated as that. Where it is known to be in
// session mode, default_query_exec_mode=cache_statement saves the parsing.
func FitPooler(ctx context.Context, config *pgx.ConnConfig) (fitted bool, err error) {
	if strings.Contains(config.ConnString(), "default_query_exec_mode") {
		return false, nil
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	kept, err := keepsStatements(ctx, conn.PgConn())
	if err != nil {
		return false, fmt.Errorf("finding out whether prepared statements are kept: %w", err)
	}
	if !kept {
		config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return !kept, nil
}

// keepsStatements tells whether a statement that the connection prepares is there for later transactions. It is where the
// connection leads to Postgres itself, which then works under the process id that the client was told; poolers tell ids of
// their own. And it is behind a pooler that takes care of statements: there Postgres has it under a name of the
// pooler's. All is one implicit transaction, on one connection of the pooler's, and leaves nothing behind in it.
func keepsStatements(ctx context.Context, conn *pgconn.PgConn) (bool, error) {
	name := "headrace_probe_" + rand.Text()
	pipeline := conn.StartPipeline(ctx)
	pipeline.SendPrepare(name, sqlProbe, nil)
	pipeline.SendQueryPrepared(name, [][]byte{[]byte(name)}, nil, binaryFormat)
	pipeline.SendDeallocate(name)
	direct, asNamed, err := readProbe(pipeline, conn.PID())
	if closeErr := pipeline.Close(); err == nil {
		err = closeErr
	}
	return direct || !asNamed, err
}

func readProbe(pipeline *pgconn.Pipeline, told uint32) (direct, asNamed bool, err error) {
	if err := pipeline.Sync(); err != nil {
		return false, false, err
	}
	if _, err := pipeline.GetResults(); err != nil {
		return false, false, err
	}
	err = eachRow(pipeline, func(row [][]byte) error {
		pid, err := readInt4(row[0])
		direct, asNamed = uint32(pid) == told, len(row[1]) == 1 && row[1][0] == 1
		return err
	})
	return direct, asNamed, err
}

// statementTexts are the statements of an append, by the names under which they are prepared.
func statementTexts() map[string]string {
	return map[string]string{
		nameLock: lockHere(sqlLock), nameLockFull: lockHere(sqlLockFull), nameOne: sqlAppendOne, nameMany: sqlAppendMany,
		nameJudged: sqlAppendJudged, nameFull: sqlAppendFull, nameGuard: sqlGuard,
	}
}

// prepare makes the connection ready for sendStatement.
func (s *Store) prepareStatements(ctx context.Context, conn *pgx.Conn) error {
	if !s.named {
		return nil
	}
	for name, sql := range s.statements {
		if _, err := conn.Prepare(ctx, name, sql); err != nil {
			return fmt.Errorf("preparing %s: %w", name, explain(err))
		}
	}
	return nil
}

// sendStatement adds a statement of an append to the pipeline: by its name, or where names are not kept with its text,
// which takes no round trip more, but Postgres has to parse and plan it.
func (s *Store) sendStatement(pipeline *pgconn.Pipeline, name string, values [][]byte) {
	if s.named {
		pipeline.SendQueryPrepared(name, values, binaryFormat, binaryFormat)
		return
	}
	pipeline.SendQueryParams(s.statements[name], values, nil, binaryFormat, binaryFormat)
}

const (
	sqlStateNoStatement    = "26000"
	sqlStateStatementTwice = "42P05"
)

// explain adds what helps to an error which says that prepared statements get lost.
func explain(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == sqlStateNoStatement || refused.Code == sqlStateStatementTwice) {
		return fmt.Errorf("prepared statements are not kept, as behind a pooler in transaction mode: open the pool with FitPooler, "+
			"or say default_query_exec_mode=cache_describe in the database's URL: %w", err)
	}
	return err
}
