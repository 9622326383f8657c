-- +goose Up
-- An operator may bid a checkpoint stand still: nobody takes it until it is resumed. And the table that the serving one
-- replaced is remembered, so that a rollback needs no guess.
alter table checkpoints
    add column paused_at timestamptz,
    add column paused_by text;
alter table views add column previous text collate "C";
update views v set previous = (
    select t.tablename from pg_tables t
    where t.schemaname = current_schema() and t.tablename <> v.table_name
      and t.tablename ~ ('^' || v.name || '_v' || v.version::text || '(_[0-9]+)?$')
    order by length(t.tablename) desc, t.tablename desc limit 1
);

-- +goose Down
alter table views drop column previous;
alter table checkpoints drop column paused_at, drop column paused_by;
