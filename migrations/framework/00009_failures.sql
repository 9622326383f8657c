-- +goose Up
-- A stream whose events cannot be handled by a projection or policy: they wait, in order, from the first that could not.
-- The queue itself is the log, from that position up to the checkpoint. Rows are found by the checkpoint's name and have no
-- foreign key, so that writing them locks nothing else; whoever drops a checkpoint deletes them.
create table parked_streams (
    checkpoint       text collate "C" not null,
    shard            smallint    not null default 0,
    stream           text collate "C" not null,
    position         bigint      not null,           -- of the first event that was not handled
    event_id         uuid        not null,
    type             text collate "C" not null,
    types            text[] collate "C" not null,    -- of the events that wait with it; none: all
    reason           text        not null,
    attempts         int         not null default 1,
    parked_at        timestamptz not null default clock_timestamp(),
    tried_at         timestamptz not null default clock_timestamp(),
    requested_at     timestamptz,                    -- what an operator asked the owner for, until it is done
    requested_action text check (requested_action in ('retry', 'skip')),
    requested_by     text,
    requested_reason text,
    constraint parked_streams_pkey primary key (checkpoint, shard, stream)
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.01);

-- Events that were passed over for good, by the policy of a projection or by an operator.
create table skipped_events (
    checkpoint text collate "C" not null,
    position   bigint      not null,
    event_id   uuid        not null,
    stream     text collate "C" not null,
    type       text collate "C" not null,
    reason     text        not null,
    skipped_by text        not null,
    skipped_at timestamptz not null default clock_timestamp(),
    constraint skipped_events_pkey primary key (checkpoint, position)
);

alter table checkpoints
    add column parked         int    not null default 0, -- streams now
    add column parked_changes bigint not null default 0, -- goes up with each change of parked_streams
    add column parked_moved   bigint not null default 0; -- the position when that last happened

-- +goose Down
alter table checkpoints drop column parked, drop column parked_changes, drop column parked_moved;
drop table skipped_events;
drop table parked_streams;
