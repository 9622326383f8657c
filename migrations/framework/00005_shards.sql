-- +goose Up
-- A projection may be the work of several owners, each of which takes the events of its share of the streams. Each has a
-- row, and every row says how many there must be: a checkpoint that lacks a row has not come anywhere yet.
alter table checkpoints
    add column shards smallint not null default 1,
    add constraint checkpoints_shard_of_shards check (shard >= 0 and shard < shards);

-- +goose Down
alter table checkpoints drop constraint checkpoints_shard_of_shards, drop column shards;
