-- +goose Up
-- The processes that are alive, as far as leases are concerned: each says again and again, by the database's clock, until
-- when it is to be taken for alive, and which checkpoints it would work on. Whoever takes a lease looks here whether another
-- has fewer. A row that has run out means nothing, and is deleted by whoever is left.
create table nodes (
    id         text collate "C" not null primary key, -- lease_owner of its checkpoints
    started_at timestamptz not null default clock_timestamp(),
    seen_until timestamptz not null,
    host       text        not null default '',       -- for people
    pid        int         not null default 0,
    wants      text[] collate "C" not null default '{}' -- name:shard of each checkpoint that it works on or stands by for
) with (fillfactor = 20, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

-- +goose Down
drop table nodes;
