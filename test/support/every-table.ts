import { sql, type Kysely } from 'kysely'
import { randomBytes, randomUUID } from 'node:crypto'
import type { Database } from '#db/schema.ts'

/** A table, with the columns that a row may be given. */
export interface Table {
  readonly name: string
  readonly isConfined: boolean
  readonly columns: readonly Column[]
}

interface Column {
  readonly name: string
  readonly type: string
  readonly isRequired: boolean
}

/** A project and its organisation, and what belongs to it in tables that name neither. */
export interface Owner {
  readonly organisation: string
  readonly project: string
  readonly limit: string
  readonly webhook: string
}

export function newOwner(organisation: string): Owner {
  return { organisation, project: randomUUID(), limit: randomUUID(), webhook: randomUUID() }
}

/** Every table there is, those of a migration to come as well. */
export async function everyTable(db: Kysely<Database>): Promise<readonly Table[]> {
  const { rows } = await sql<Table>`
    select c.relname as name, c.relrowsecurity as "isConfined", (
      select jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'isRequired', a.attnotnull) order by a.attnum)
      from pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = ''
    ) as columns
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') order by c.relname`.execute(
    db,
  )
  return rows
}

/** Takes away all that could keep a tenant from a row but its policy. As the superuser. */
export async function leaveOnlyPolicies(admin: Kysely<Database>): Promise<void> {
  await sql
    .raw(
      `do $$
      declare
        v_it record;
      begin
        for v_it in select conrelid::regclass as t, conname from pg_constraint
          where contype in ('c', 'f') and connamespace = 'public'::regnamespace
        loop
          execute format('alter table %s drop constraint %I', v_it.t, v_it.conname);
        end loop;
        for v_it in select oid::regclass as t from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
        loop
          execute format('alter table %s disable trigger user', v_it.t);
        end loop;
        grant all on all tables in schema public to purser_tenant;
      end
      $$`,
    )
    .execute(admin)
}

/** Writes one row of an owner, whatever the columns are, and answers it as text. */
export async function writeRow(db: Kysely<Database>, table: Table, owner: Owner): Promise<string> {
  const values = table.columns.map((column) => {
    const value = ownersOf(table.name, column.name, owner) ?? (column.isRequired ? anyOf(column.type) : null)
    return sql`${value}::${sql.raw(column.type)}`
  })
  const { rows } = await sql<{ readonly row: string }>`
    insert into ${sql.table(table.name)} as t (${sql.join(table.columns.map(({ name }) => sql.id(name)))})
    values (${sql.join(values)}) returning t::text as row`.execute(db)
  const [written] = rows
  if (!written) throw new Error(`nothing was written into ${table.name}`)
  return written.row
}

/** What says of a row whose it is. */
function ownersOf(table: string, column: string, owner: Owner): string | undefined {
  switch (`${table}.${column}`) {
    case 'organisation.id':
      return owner.organisation
    case 'project.id':
    case 'idempotency.scope':
      return owner.project
    case 'usage_limit.id':
    case 'limit_window.limit_id':
      return owner.limit
    case 'webhook.id':
    case 'webhook_low_balance.webhook_id':
    case 'webhook_limit_threshold.webhook_id':
      return owner.webhook
  }
  if (column === 'project_id') return owner.project
  return column === 'organisation_id' ? owner.organisation : undefined
}

let numbers = 1_000

function anyOf(type: string): string {
  if (type.endsWith('[]')) return '{}'
  switch (type) {
    case 'uuid':
      return randomUUID()
    case 'jsonb':
      return '{}'
    case 'bytea':
      return `\\x${randomBytes(8).toString('hex')}`
    case 'boolean':
      return 'false'
    case 'text':
    case 'tsvector':
      return randomBytes(8).toString('hex')
    case 'timestamp with time zone':
      return new Date().toISOString()
  }
  numbers += 1
  return String(numbers)
}
