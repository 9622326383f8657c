-- +goose Up
-- Carts, one row each. Rows grow as carts fill: half of each page is left free, and no index names what an event usually
-- changes, so that most updates stay in their page and touch no index.
create table cart_v1 (
    version    bigint      not null,
    position   bigint      not null,
    opened_at  timestamptz not null,
    updated_at timestamptz not null,
    total      bigint      not null,
    id         text collate "C" not null primary key,
    owner_id   text collate "C" not null,
    status     text collate "C" not null,
    currency   text collate "C" not null,
    order_id   text collate "C",
    items      jsonb       not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
create index on cart_v1 (opened_at, id);
create index on cart_v1 (owner_id, opened_at, id);
create index on cart_v1 (status, opened_at, id);

create view cart as select * from cart_v1;
insert into views (name, version) values ('cart', 1);

-- +goose Down
-- +goose StatementBegin
do $$
declare generation text;
begin
    drop view "cart";
    for generation in select tablename from pg_tables
        where schemaname = current_schema() and tablename ~ '^cart_v1(_[0-9]+)?$'
    loop
        execute format('drop table %I', generation);
    end loop;
    delete from checkpoints where name ~ '^cart_v1(_[0-9]+)?$';
    delete from views where name = 'cart';
end
$$;
-- +goose StatementEnd
