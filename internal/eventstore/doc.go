// Package eventstore keeps the log: every event that was ever recorded, in one order.
//
// It promises:
//
//   - Every event has a position, 1, 2, 3, … without holes, in the order in which commits became visible. Who sees
//     position n sees, or can read, all of 1..n.
//   - An append with an expected version is accepted once or refused, whole; versions within a stream have no holes. An
//     append that was acknowledged is on disk, as far as Postgres's synchronous_commit and the disk keep their word.
//   - The same command id twice has one effect and the same receipt, for as long as receipts are kept.
//   - A unique key that one stream has claimed, no other can claim until it is released.
//   - Events are never changed or deleted; the database refuses it.
//
// It does not promise that an append whose answer got lost was written, or was not: that is an UnknownOutcomeError, and
// a repeat with the same command id finds the truth. It does not scale writes beyond one writer section: all appends to
// a log take turns on one lock, which is why they travel in batches.
//
// See docs/adr/0001-the-log-lock-and-the-appender.md for the reasons.
package eventstore
