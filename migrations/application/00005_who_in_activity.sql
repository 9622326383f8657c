-- +goose Up
-- What an activity's actor was allowed, and the request it came by. Columns that lines may lack are added to all tables of
-- the version, so that old and new programs run beside each other; `projections rebuild activity` fills them for lines
-- that are there.
-- +goose StatementBegin
do $$
declare generation text;
begin
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^activity_v1(_[0-9]+)?$'
    loop
        execute format('alter table %I add column roles jsonb not null default ''[]'', '
            'add column request_id text collate "C" not null default ''''', generation);
    end loop;
    execute format('create or replace view activity as select * from %I',
        (select table_name from views where name = 'activity'));
end
$$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view activity;
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^activity_v1(_[0-9]+)?$'
    loop
        execute format('alter table %I drop column roles, drop column request_id', generation);
    end loop;
    execute format('create view activity as select * from %I',
        (select table_name from views where name = 'activity'));
end
$$;
-- +goose StatementEnd
