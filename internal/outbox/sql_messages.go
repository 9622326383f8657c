package outbox

// The statements on the outbox table.
const (
	// sqlClaim claims messages that are due and hides them from others for a while: limit, seconds, the limit of attempts,
	// why a message is dead whose attempts are used up, and the topics, or null for all. An attempt counts before it is
	// made, and one whose outcome nobody wrote down has failed, so that a message that ends its process does not come back
	// for ever: it is buried here.
	sqlClaim = `
update outbox o set attempts = o.attempts + case when o.attempts < $3::int then 1 else 0 end,
	available_at = clock_timestamp() + make_interval(secs => $2),
	dead_at = case when o.attempts >= $3 then clock_timestamp() end,
	last_error = case when o.attempts >= $3 then concat($4::text, '; before that: ' || o.last_error) else o.last_error end
from (
	select id from outbox
	where dead_at is null and available_at <= clock_timestamp() and ($5::text[] is null or topic = any($5))
	order by available_at limit $1 for update skip locked
) due
where o.id = due.id
returning o.id, o.topic, o.key, o.payload::text, o.headers, o.attempts, o.created_at, o.available_at, o.dead_at is not null`

	// sqlNextDue tells in how many seconds the next message is due: the topics, or null for all.
	sqlNextDue = `
select extract(epoch from available_at - clock_timestamp())::float8 from outbox
where dead_at is null and ($1::text[] is null or topic = any($1)) order by available_at limit 1`

	// sqlDelivered deletes messages that are as they were claimed: one that was claimed again belongs to that claim, and
	// one that a receiver has sent back is to come again.
	sqlDelivered = `
delete from outbox o using unnest($1::uuid[], $2::timestamptz[]) as f(id, claimed)
where o.id = f.id and o.available_at = f.claimed`

	// sqlReturn takes a message back that was delivered, or buries it: id, topic, key, payload, headers, when it was
	// created, the attempt that failed, the seconds to wait, the error, whether it is dead. While a newer attempt has failed
	// or is in hand nothing is done: the message comes again by that.
	sqlReturn = `
insert into outbox as o (id, topic, key, payload, headers, created_at, attempts, available_at, last_error, dead_at)
values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + make_interval(secs => $8), $9,
	case when $10::boolean then clock_timestamp() end)
on conflict (id) do update set headers = excluded.headers, attempts = excluded.attempts,
	available_at = excluded.available_at, last_error = excluded.last_error, dead_at = excluded.dead_at
where o.attempts <= excluded.attempts and o.dead_at is null
returning o.dead_at is not null`

	// sqlFailed returns messages for another attempt, or buries them: by message its id, its claim, the seconds to wait, the
	// error, whether it is dead, and whether this was no attempt. A message that was claimed again in the meantime, or that
	// a receiver has sent back, is left alone. It names those that are dead.
	sqlFailed = `
with failed as (
	update outbox o set last_error = f.error, attempts = o.attempts - case when f.untried then 1 else 0 end,
		available_at = clock_timestamp() + make_interval(secs => f.wait),
		dead_at = case when f.dead then clock_timestamp() end
	from unnest($1::uuid[], $2::timestamptz[], $3::float8[], $4::text[], $5::bool[], $6::bool[])
		as f(id, claimed, wait, error, dead, untried)
	where o.id = f.id and o.available_at = f.claimed and o.dead_at is null
	returning o.id, o.dead_at
)
select id from failed where dead_at is not null`

	// sqlBacklog tells of the outbox and of the inbox how many messages are due and how many are dead, each counted up to
	// $1, and for how many seconds the first of them has been due.
	sqlBacklog = `
select
	(select count(*) from (select from outbox where dead_at is null and available_at <= clock_timestamp() limit $1) due),
	(select count(*) from (select from outbox where dead_at is not null limit $1) dead),
	coalesce((select greatest(0, extract(epoch from clock_timestamp() - available_at)) from outbox
		where dead_at is null order by available_at limit 1), 0)::float8,
	(select count(*) from (select from inbox where handled_at is null and dead_at is null
		and available_at <= clock_timestamp() limit $1) due),
	(select count(*) from (select from inbox where dead_at is not null and handled_at is null limit $1) dead),
	coalesce((select greatest(0, extract(epoch from clock_timestamp() - available_at)) from inbox
		where handled_at is null and dead_at is null order by available_at limit 1), 0)::float8`

	sqlListDead = `
select id, topic, key, payload::text, headers, attempts, created_at, dead_at, coalesce(last_error, '') from outbox
where dead_at is not null order by dead_at, id limit $1`

	sqlRetryDead = `
update outbox set dead_at = null, attempts = 0, headers = headers - 'returned', available_at = clock_timestamp()
where dead_at is not null and id = any($1)`

	sqlDiscardDead = `delete from outbox where dead_at is not null and id = any($1)`
)

// The statements on the inbox table.
const (
	// sqlInboxPut writes a message down unless its id is known: topic, id, digest, size, payload, headers, the seconds until
	// it is due, why it is dead or empty. It tells whether it did, and else the digest that is known, if it is to be seen yet.
	sqlInboxPut = `
with put as (
	insert into inbox (topic, id, digest, size, payload, headers, received_at, available_at, dead_at, last_error)
	values ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp() + make_interval(secs => $7),
		case when $8::text <> '' then clock_timestamp() end, nullif($8::text, ''))
	on conflict do nothing
	returning digest
)
select exists (select from put), (select digest from inbox where topic = $1 and id = $2)`

	// sqlInboxClaim claims messages that are due and hides them from others for a while, or buries them, as sqlClaim does:
	// limit, topics, seconds, the limit of attempts, why a message is dead whose attempts are used up.
	sqlInboxClaim = `
update inbox i set attempts = i.attempts + case when i.attempts < $4::int then 1 else 0 end,
	available_at = clock_timestamp() + make_interval(secs => $3),
	dead_at = case when i.attempts >= $4 then clock_timestamp() end,
	last_error = case when i.attempts >= $4 then concat($5::text, '; before that: ' || i.last_error) else i.last_error end
from (
	select topic, id from inbox
	where handled_at is null and dead_at is null and available_at <= clock_timestamp() and topic = any($2)
	order by available_at limit $1 for update skip locked
) due
where i.topic = due.topic and i.id = due.id
returning i.topic, i.id, i.payload, i.headers, i.attempts, i.received_at, i.dead_at is not null`

	// sqlInboxDue tells in how many seconds the next message of some topics is due.
	sqlInboxDue = `
select extract(epoch from available_at - clock_timestamp())::float8 from inbox
where handled_at is null and dead_at is null and topic = any($1) order by available_at limit 1`

	// sqlInboxHandled notes that messages were handled, whoever else has them in hand by now.
	sqlInboxHandled = `
update inbox i set handled_at = clock_timestamp(), dead_at = null, payload = null, headers = '{}', last_error = null
from unnest($1::text[], $2::text[]) as f(topic, id)
where i.topic = f.topic and i.id = f.id and i.handled_at is null`

	// sqlInboxFailed returns messages for another attempt, or buries them: by message its topic, id, the attempt that failed,
	// the seconds to wait, the error, whether it is dead, and whether this was no attempt. A message that was claimed again
	// in the meantime is left to its new claim. It names those that are dead.
	sqlInboxFailed = `
with failed as (
	update inbox i set last_error = f.error, attempts = i.attempts - case when f.untried then 1 else 0 end,
		available_at = clock_timestamp() + make_interval(secs => f.wait),
		dead_at = case when f.dead then clock_timestamp() end
	from unnest($1::text[], $2::text[], $3::int[], $4::float8[], $5::text[], $6::bool[], $7::bool[])
		as f(topic, id, attempt, wait, error, dead, untried)
	where i.topic = f.topic and i.id = f.id and i.attempts = f.attempt and i.dead_at is null and i.handled_at is null
	returning i.topic, i.id, i.last_error, i.dead_at
)
select topic, id, last_error from failed where dead_at is not null`

	sqlInboxColumns = `
select topic, id, case when handled_at is not null then 'handled' when dead_at is not null then 'dead' else 'waiting' end,
	attempts, received_at, available_at, dead_at, handled_at, size, coalesce(last_error, ''), headers, `

	// sqlInboxList lists the messages in a state, of one topic or, empty, of all.
	sqlInboxList = sqlInboxColumns + `null::bytea from inbox
where case $1::text when 'handled' then handled_at is not null when 'dead' then dead_at is not null and handled_at is null
	else dead_at is null and handled_at is null end and $2 in ('', topic)
order by received_at, topic, id limit $3`

	sqlInboxShow = sqlInboxColumns + `payload from inbox where topic = $1 and id = $2`

	sqlInboxRetry = `
update inbox set dead_at = null, attempts = 0, available_at = clock_timestamp()
where topic = $1 and id = any($2) and dead_at is not null and handled_at is null and octet_length(payload) = size`

	sqlInboxDiscard = `
update inbox set handled_at = clock_timestamp(), payload = null, headers = '{}', last_error = 'discarded: ' || last_error
where topic = $1 and id = any($2) and dead_at is not null and handled_at is null`

	// sqlInboxForget deletes some of the messages that were handled so many seconds ago.
	sqlInboxForget = `
delete from inbox where (topic, id) in (
	select topic, id from inbox where handled_at < clock_timestamp() - make_interval(secs => $1)
	order by handled_at limit $2 for update skip locked
)`
)
