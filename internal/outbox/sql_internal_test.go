package outbox

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/headrace/headrace/internal/pgtest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	statements := map[string]string{
		"sqlInboxPut": sqlInboxPut, "sqlInboxClaim": sqlInboxClaim, "sqlInboxDue": sqlInboxDue, "sqlInboxHandled": sqlInboxHandled,
		"sqlInboxFailed": sqlInboxFailed, "sqlInboxColumns": "", "sqlInboxList": sqlInboxList, "sqlInboxShow": sqlInboxShow,
		"sqlInboxRetry": sqlInboxRetry, "sqlInboxDiscard": sqlInboxDiscard, "sqlInboxForget": sqlInboxForget,
		"sqlCreate": sqlCreate, "sqlShards": sqlShards, "sqlBacklog": sqlBacklog, "sqlTake": sqlTake, "sqlLook": sqlLook, "sqlReload": sqlReload, "sqlRenew": sqlRenew,
		"sqlRelease": sqlRelease, "sqlHalt": sqlHalt, "sqlAdvance": sqlAdvance, "sqlStamp": sqlStamp, "sqlJudge": sqlJudge, "sqlRewind": sqlRewind, "sqlAsync": sqlAsync,
		"sqlClaim": sqlClaim, "sqlNextDue": sqlNextDue, "sqlDelivered": sqlDelivered, "sqlFailed": sqlFailed, "sqlReturn": sqlReturn,
		"sqlListDead": sqlListDead, "sqlRetryDead": sqlRetryDead, "sqlDiscardDead": sqlDiscardDead,
		"sqlParkedStreams": sqlParkedStreams, "sqlParkedChanges": sqlParkedChanges, "sqlPark": sqlPark,
		"sqlParkedMove": sqlParkedMove, "sqlUnpark": sqlUnpark, "sqlSkip": sqlSkip, "sqlCountParked": sqlCountParked,
		"sqlParkedRequests": sqlParkedRequests, "sqlListParked": sqlListParked, "sqlWaiting": sqlWaiting, "sqlAsk": sqlAsk,
		"sqlToWorkOn": "", "sqlCountAsked": sqlCountAsked,
		"sqlListSkipped": sqlListSkipped, "sqlBeat": sqlBeat, "sqlSurplus": sqlSurplus, "sqlLeave": sqlLeave, "sqlNotify": sqlNotify,
		"sqlBeginBatch": "", // several statements, which cannot be prepared as one
	}
	for _, name := range []string{"sql.go", "sql_messages.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				if _, listed := statements[spec.Names[0].Name]; !listed {
					t.Errorf("%s is not checked here", spec.Names[0].Name)
				}
			}
			return true
		})
	}
	conn, err := pgtest.Pool(t).Acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for name, sql := range statements {
		if sql == "" {
			continue
		}
		if _, err := conn.Conn().Prepare(context.Background(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, sql := range strings.Split(beginBatch(time.Second), ";") {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}
