// Package outbox brings what was committed to those who must know: events from the log to projections, policies and
// subscribers, and messages from the outbox table to the outside. Everything travels through Watermill's Publisher and
// Subscriber, so that any of its brokers can carry it; Local is the one within a process.
//
// The parts, in the order in which data passes them:
//
//   - Relay reads runs of consecutive events behind its cursor and publishes each run as one message.
//   - Consumer receives runs, and reads from the log what it did not receive. Its checkpoint and what Apply wrote are
//     one transaction.
//   - Dispatcher delivers the messages of the outbox table: work that is not a fact, such as an e-mail to send.
//
// What the package promises:
//
//   - Every event reaches Apply once and in order, as far as its effects in the database go, whatever the broker does:
//     drop, repeat, reorder. Postgres is trusted and the broker is not.
//   - At most one process writes a projection. Ownership is a lease with an epoch in the projection's checkpoint row,
//     judged by the database's clock; a process that overslept its lease writes nothing.
//   - An event that cannot be handled stops its consumer exactly before it and no other consumer, unless the subscription
//     says otherwise: then its stream alone waits, in order, until an operator has it tried again, or the event is skipped.
//   - Each outbox message is delivered at least once, or kept as a dead letter.
//
// What it does not promise: exactly-once delivery to the outside (React and outbox messages may repeat; receivers dedupe
// by event id and message id), any order among outbox messages, or safety from a broker that forges well-formed events.
package outbox
