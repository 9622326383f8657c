-- +goose Up
-- Messages of others, from their arrival to the end of the work on them, and for ever after that the ids of those that
-- were handled: a message that comes again is known. What is waiting or dead is kept as it came, byte for byte.
create table inbox (
    available_at timestamptz not null,            -- when it is due; moved on by each failed attempt
    received_at  timestamptz not null,
    handled_at   timestamptz,                     -- set when it was handled, or discarded
    dead_at      timestamptz,                     -- set when it is of no use to try again
    size         bigint      not null,            -- bytes of the payload as it came; more than are kept when it was too large
    attempts     int         not null default 0,
    topic        text collate "C" not null,
    id           text collate "C" not null,
    digest       bytea       not null,            -- SHA-256 of the payload: the same id with another content is noticed
    payload      bytea,                           -- null when handled
    headers      jsonb       not null default '{}',
    last_error   text,
    constraint inbox_pkey primary key (topic, id),
    constraint inbox_payload check (payload is not null or handled_at is not null)
) with (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05);
create index inbox_due on inbox (available_at) where handled_at is null and dead_at is null;
create index inbox_dead on inbox (dead_at) where dead_at is not null and handled_at is null;
create index inbox_handled on inbox (handled_at) where handled_at is not null;

-- Where a checkpoint was begun, in the words of the subscription, so that a later change of them is noticed.
alter table checkpoints add column begun_from text not null default '';

-- +goose Down
alter table checkpoints drop column begun_from;
drop table inbox;
