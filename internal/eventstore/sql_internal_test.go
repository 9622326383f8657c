package eventstore

import (
	"testing"

	"github.com/headrace/headrace/internal/pgtest"
)

func TestEveryStatementFitsTheSchema(t *testing.T) {
	t.Parallel()
	conn, err := pgtest.Pool(t).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for name, sql := range map[string]string{
		"lock": sqlLock, "lockFull": sqlLockFull, "one": sqlAppendOne, "many": sqlAppendMany, "judged": sqlAppendJudged,
		"full": sqlAppendFull, "guard": sqlGuard, "settle": sqlSettle, "isolation": sqlIsolation,
		"probe": sqlProbe, "receipt": sqlReceipt, "forget": sqlForget, "readStream": sqlReadStream, "backward": sqlReadStreamBackward,
		"readLog": sqlReadLog, "readLogTypes": sqlReadLogTypes, "readLogStream": sqlReadLogStream, "eventAt": sqlEventAt, "eventsAt": sqlEventsAt,
		"logHead": sqlLogHead, "headAndEvent": sqlHeadAndEvent, "streamVersion": sqlStreamVersion, "eventID": sqlEventID,
		"snapshot": sqlSnapshot, "lastOf": sqlLastOf, "positionAt": sqlPositionAt, "judgeClaims": sqlJudgeClaims,
		"readLogShard": sqlReadLogShard,
		"lockHere":     lockHere(sqlLock), "lockFullHere": lockHere(sqlLockFull),
		"history": sqlHistory, "historyBlind": sqlHistoryBlind, "historyLock": sqlHistoryLock, "adopt": sqlAdopt, "raise": sqlRaise,
		"examine": sqlExamine, "dense": sqlDense, "raises": sqlRaises,
		"checkMark": sqlCheckMark, "checkToken": sqlCheckToken,
	} {
		if _, err := conn.Conn().Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
