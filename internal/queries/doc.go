// Package queries turns the log into views, answers from them, and says how far they have come.
//
// A View is one row per key: it declares which row an event changes and what the row is afterwards, as a pure
// function. Per batch of events the package loads the rows concerned with one round trip, folds in Go, and writes
// what changed with one more. Where a row per key does not fit, On queues SQL. Both become a Projection, which
// is what a consumer of the log runs: live, catching up and rebuilding are the same code.
//
// It promises:
//   - A table equals the fold of the log up to its checkpoint, however events were batched, repeated batches aside,
//     which the checkpoint keeps away: it moves in the transaction that Apply writes in.
//   - Progress.Wait returns nil only when the serving table includes what the token stands for. Otherwise it says in a
//     typed error what is in the way. It never lets a stale answer pass silently.
//   - Tail.Events yields each event after a position once, in order, from history into the present.
//   - Feed tells of a change only when the view includes it, and of every change, merged when the subscriber is slow.
//   - Rebuild fills a table beside the one that serves, and goes on where it was when it was stopped or killed. Switch and
//     Rollback change tables in one transaction, and no reader goes back behind what it waited for.
//   - A slow subscriber or waiter costs others nothing.
//
// It does not promise that a view is current when nobody waits, that every single change reaches a slow
// watcher (the newest does; event subscriptions are what Tail is for), or that rows changed by hand are noticed. A projection
// may commit without waiting for the disk, since it is replayed from the log: after a crash of Postgres a view may
// stand earlier than before it, until its consumer has caught up and reported anew.
//
// # Tables, generations and names
//
// A migration makes the table of each version of a view's shape, named cart_v1, and the SQL view of the stable name, cart.
// Readers know only that. The views table says which version and generation serves. A rebuild makes the next generation,
// cart_v1_2, like the serving table, and fills it. After a switch the replaced one stays, for Rollback, until Drop. A
// table's checkpoint has its name. The lease of one that is kept is held for good by "retired", so that its consumer
// stops, and that of one that is being filled by "filling"; its workers' checkpoints are the shards of cart_v1_2.fill.
package queries
