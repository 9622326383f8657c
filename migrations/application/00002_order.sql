-- +goose Up
-- Orders, one row each. An order changes a handful of times, so that it may have an index by the time of change.
create table order_v1 (
    version           bigint      not null,
    position          bigint      not null,
    placed_at         timestamptz not null,
    updated_at        timestamptz not null,
    total             bigint      not null,
    id                text collate "C" not null primary key,
    cart_id           text collate "C" not null,
    owner_id          text collate "C" not null,
    status            text collate "C" not null,
    currency          text collate "C" not null,
    payment_reference text collate "C",
    tracking_code     text collate "C",
    reason            text collate "C",
    items             jsonb       not null
) with (autovacuum_vacuum_scale_factor = 0.05);
create index on order_v1 (placed_at, id);
create index on order_v1 (updated_at, id);
create index on order_v1 (total, id);
create index on order_v1 (owner_id, placed_at, id);
create index on order_v1 (status, placed_at, id);
create index on order_v1 (cart_id);

-- The name is a reserved word and needs its quotes.
create view "order" as select * from order_v1;
insert into views (name, version) values ('order', 1);

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view "order";
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^order_v1(_[0-9]+)?$'
    loop
        execute format('drop table %I', generation);
    end loop;
    delete from checkpoints where name ~ '^order_v1(_[0-9]+)?$';
    delete from views where name = 'order';
end
$$;
-- +goose StatementEnd
