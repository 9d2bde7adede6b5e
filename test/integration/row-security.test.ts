import { connectDatabase } from '#db/database.ts'
import type { Database } from '#db/schema.ts'
import { asTenant, type Sight } from '#db/tenant-db.ts'
import { everyTable, leaveOnlyPolicies, newOwner, writeRow, type Owner, type Table } from '#test/support/every-table.ts'
import { pollUntil } from '#test/support/poll.ts'
import { createTestDatabase } from '#test/support/postgres.ts'
import { sql, type Kysely } from 'kysely'
import { randomUUID } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'

/** Tables that belong to no tenant, and what is in them. Whoever adds one says here why nobody need be kept from its rows. */
const OF_NO_TENANT: Readonly<Record<string, string>> = {
  allowed_movement: 'what may move where: a closed list',
  catalog: 'models and routes, of the installation',
  price: 'what providers bill, of the installation',
  instance: 'its processes',
  route_state: 'circuits',
  route_lease: 'room on routes, by process',
  route_use: 'what was asked of routes, whoever asked',
  seal: 'digests of the journal; the role may not read them',
  kysely_migration: 'which migrations there were; the role may not read it',
  kysely_migration_lock: 'the same',
}

/** Rows of the organisation that its projects have no business with. */
const OF_OPERATORS = new Set(['invoice', 'limit_change', 'lone_deposit', 'provider', 'route_reset'])
/** Rows of the installation, for operators of any organisation. */
const OF_INSTALLATION = new Set(['provider'])
/** Rows of the organisation that its projects read: what they are called, and what their money is exchanged at. */
const OF_ORGANISATION = new Set(['organisation', 'quote'])

async function useDatabase() {
  const database = await createTestDatabase()
  const db = connectDatabase({ url: database.appUrl, maxConnections: 2 })
  const admin = connectDatabase({ url: database.adminUrl, maxConnections: 1 })
  onTestFinished(async () => {
    await db.destroy()
    await admin.destroy()
    await database.drop()
  })
  return { db, admin }
}

/** Two projects of one organisation and one of another, each with a row in every table. */
async function useRows() {
  const { db, admin } = await useDatabase()
  await leaveOnlyPolicies(admin)
  const mine = newOwner(randomUUID())
  const beside = newOwner(mine.organisation)
  const foreign = newOwner(randomUUID())
  const tables = (await everyTable(admin)).filter(({ isConfined }) => isConfined)
  const rowsOf = new Map<string, ReadonlyMap<Owner, string>>()
  for (const table of tables) {
    const rows = new Map<Owner, string>()
    for (const owner of [mine, beside, foreign]) {
      if (owner === beside && table.name === 'organisation') continue
      rows.set(owner, await writeRow(admin, table, owner))
    }
    rowsOf.set(table.name, rows)
  }
  return { db, admin, tables, rowsOf, mine, beside, foreign }
}

/** Whose rows of a table there are for a key of `mine`, or of an operator. */
function seen(
  { name }: Table,
  sight: 'project' | 'operator',
  owners: { mine: Owner; beside: Owner; foreign: Owner },
): readonly Owner[] {
  const { mine, beside, foreign } = owners
  if (sight === 'operator' && OF_INSTALLATION.has(name)) return [mine, beside, foreign]
  if (sight === 'operator') return name === 'idempotency' ? [] : [mine, beside]
  if (OF_OPERATORS.has(name)) return []
  return OF_ORGANISATION.has(name) ? [mine, beside] : [mine]
}

const sightOf = ({ organisation, project }: Owner) => ({ organisationId: organisation, projectId: project })
const operatorOf = ({ organisation }: Owner) => ({ organisationId: organisation, projectId: null })

const asCaller = (db: Kysely<Database>, sight: Sight) => asTenant(db, { ...sight, purpose: 'change' })

async function textsOf(db: Kysely<Database>, query: ReturnType<typeof sql<{ row: string }>>): Promise<string[]> {
  return (await query.execute(db)).rows.map(({ row }) => row).sort()
}

describe('a row that carries its tenant', () => {
  test('is confined in every table', async () => {
    const { admin } = await useDatabase()
    const { rows: policies } = await sql<{ table: string; verb: string; kind: string; roles: string; checks: boolean }>`
      select tablename as table, cmd as verb, permissive as kind, roles::text, with_check is null and qual ~ '^\\s*CASE\\s' as checks
      from pg_policies where schemaname = 'public'`.execute(admin)
    const unlisted = (await everyTable(admin)).filter(({ name }) => !Object.hasOwn(OF_NO_TENANT, name))
    for (const { name, isConfined } of unlisted) {
      expect([name, isConfined, policies.filter(({ table }) => table === name)]).toEqual([
        name,
        true,
        [{ table: name, verb: 'ALL', kind: 'PERMISSIVE', roles: '{purser_tenant}', checks: true }],
      ])
    }
    for (const { name, columns } of await everyTable(admin)) {
      const tenants = columns.filter((column) => ['project_id', 'organisation_id'].includes(column.name))
      if (Object.hasOwn(OF_NO_TENANT, name)) expect([name, tenants]).toEqual([name, []])
    }
    // A view would read with the rights of its owner.
    const { rows: views } = await sql`
      select from pg_class where relnamespace in ('public'::regnamespace, 'tenant'::regnamespace)
        and relkind in ('v', 'm')`.execute(admin)
    expect(views).toEqual([])
  })

  test('is not there for another project or organisation, whatever is asked', async () => {
    const { db, tables, rowsOf, ...owners } = await useRows()
    const { mine } = owners
    const sights = [
      ['project', sightOf(mine)],
      ['operator', operatorOf(mine)],
    ] as const
    for (const [kind, sight] of sights) {
      for (const table of tables) {
        const rows = rowsOf.get(table.name)
        const expected = seen(table, kind, owners).flatMap((owner) => rows?.get(owner) ?? [])
        const found = await textsOf(asCaller(db, sight), sql`select t::text as row from ${sql.table(table.name)} t`)
        expect([kind, table.name, found]).toEqual([kind, table.name, expected.toSorted()])
      }
    }
  })

  test('is not there for one who has not said who asks', async () => {
    const { db, tables } = await useRows()
    for (const { name } of tables) {
      const rows = await db.transaction().execute(async (trx) => {
        await sql`set local role purser_tenant`.execute(trx)
        return (await sql`select from ${sql.table(name)}`.execute(trx)).rows
      })
      expect([name, rows]).toEqual([name, []])
    }
  })

  test('is not changed, removed or made by another', async () => {
    const { db, tables, rowsOf, ...owners } = await useRows()
    const { mine, beside, foreign } = owners
    const caller = asCaller(db, sightOf(mine))
    for (const table of tables) {
      const name = sql.table(table.name)
      const column = sql.id(table.columns[0]?.name ?? '')
      const own = seen(table, 'project', owners).flatMap((owner) => rowsOf.get(table.name)?.get(owner) ?? [])
      for (const change of [
        sql<{ row: string }>`update ${name} t set ${column} = ${column} returning t::text as row`,
        sql<{ row: string }>`delete from ${name} t returning t::text as row`,
      ]) {
        const trx = await caller.startTransaction().execute()
        expect([table.name, await textsOf(trx, change)]).toEqual([table.name, own.toSorted()])
        await trx.rollback().execute()
      }
      for (const other of OF_ORGANISATION.has(table.name) ? [foreign] : [beside, foreign]) {
        await expect(writeRow(caller, table, other), table.name).rejects.toThrow(/row-level security/)
      }
    }
  })

  test('does not change hands', async () => {
    const { db, tables, mine, beside } = await useRows()
    const caller = asCaller(db, sightOf(mine))
    const ofProjects = tables.filter(({ columns }) => columns.some(({ name }) => name === 'project_id'))
    expect(ofProjects.length).toBeGreaterThan(25)
    for (const { name } of ofProjects) {
      const change = sql`update ${sql.table(name)} set project_id = ${beside.project}`.execute(caller)
      await expect(change, name).rejects.toThrow(/row-level security/)
    }
  })
})

test('a policy makes no page of a big project slower: it is read off the index', async () => {
  const { db, admin } = await useDatabase()
  await leaveOnlyPolicies(admin)
  const mine = newOwner(randomUUID())
  const beside = newOwner(mine.organisation)
  await sql`insert into project (id, organisation_id, name)
    select id, ${mine.organisation}, id::text from unnest(${[mine.project, beside.project]}::uuid[]) as id`.execute(
    admin,
  )
  await sql`insert into run (id, project_id, api_key_id, envelope_id, agent, model, input, options, state)
    select gen_random_uuid(), case when n % 4 = 0 then gen_random_uuid() else ${mine.project}::uuid end,
      gen_random_uuid(), gen_random_uuid(), 'a', 'm', '{}', '{}', 'completed'
    from generate_series(1, 20000) n`.execute(admin)
  await sql`analyze run, project`.execute(admin)
  for (const sight of [sightOf(mine), operatorOf(mine)]) {
    const { rows } = await sql<{ readonly 'QUERY PLAN': string }>`
      explain select id, state from run where project_id = ${mine.project} order by id desc limit 50`.execute(
      asCaller(db, sight),
    )
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    expect(plan).toMatch(/using run_by_project/)
    expect(plan).not.toMatch(/Sort/)
  }
})

describe('the role of tenants', () => {
  test('has no rights but its own, and nobody has its rights without becoming it', async () => {
    const { db, admin } = await useDatabase()
    const { rows } = await sql`
      select rolsuper, rolbypassrls, rolcanlogin, rolcreaterole, rolcreatedb, rolreplication,
        exists (select from pg_auth_members m where m.member = r.oid) as "isMember",
        exists (select from pg_class c where c.relowner = r.oid) or exists (select from pg_proc p where p.proowner = r.oid)
          as "isOwner",
        pg_has_role('purser_app', r.oid, 'usage') as inherited
      from pg_roles r where rolname = 'purser_tenant'`.execute(admin)
    expect(rows.flatMap((row) => Object.entries(row ?? {}).filter(([, value]) => value !== false))).toEqual([])
    expect(rows).toHaveLength(1)
    await expect(sql`select from seal`.execute(asCaller(db, operatorOf(newOwner(randomUUID()))))).rejects.toThrow(
      /permission denied/,
    )
  })

  test('executes with the rights of another only what checks first who asks', async () => {
    const { db, admin, mine, beside } = await useRows()
    const { rows: functions } = await sql<{
      name: string
      schema: string
      types: string[]
      arguments: string[]
      twin: boolean
    }>`
      select p.proname as name, p.pronamespace::regnamespace::text as schema, coalesce(p.proargnames, '{}') as arguments,
        array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u(t, n) order by n) as types,
        exists (select from pg_proc o where o.pronamespace = 'public'::regnamespace and o.proname = p.proname
          and o.proargtypes = p.proargtypes and o.prosecdef
          and pg_get_function_result(o.oid) = pg_get_function_result(p.oid)) as twin
      from pg_proc p
      where p.prosecdef and p.pronamespace in ('public'::regnamespace, 'tenant'::regnamespace)
        and p.prorettype <> 'trigger'::regtype and has_function_privilege('purser_tenant', p.oid, 'execute')`.execute(
      admin,
    )
    expect(functions.length).toBeGreaterThan(25)
    const caller = asCaller(db, sightOf(mine))
    for (const { name, schema, types, arguments: names, twin } of functions) {
      expect([name, schema, twin]).toEqual([name, 'tenant', true])
      const values = types.map((type, index) => {
        const value = { p_project: beside.project, p_organisation: mine.organisation }[names[index] ?? ''] ?? null
        return sql`${value}::${sql.raw(type)}`
      })
      const call = sql`select * from ${sql.id(name)}(${sql.join(values)})`.execute(caller)
      await expect(call, name).rejects.toMatchObject({ code: '42501', message: expect.stringMatching(/who asks/) })
    }
  })
})

describe('a connection', () => {
  test('goes back as it came, after statements that fail and transactions that are given up', async () => {
    const database = await createTestDatabase()
    const db = connectDatabase({ url: database.appUrl, maxConnections: 1 })
    onTestFinished(async () => {
      await db.destroy()
      await database.drop()
    })
    const sight = sightOf(newOwner(randomUUID()))
    const who = sql`
      select current_user::text as role, current_setting('search_path') as path, now() = statement_timestamp() as alone,
        coalesce(current_setting('purser.organisation', true), '') || coalesce(current_setting('purser.project', true), '') as tenant`
    const before = (await who.execute(db)).rows
    expect(before).toEqual([{ role: 'purser_app', path: '"$user", public', alone: true, tenant: '' }])
    for (const purpose of ['read', 'change'] as const) {
      const caller = asTenant(db, { ...sight, purpose })
      const inside = [{ role: 'purser_tenant', path: 'tenant, public', tenant: sight.organisationId + sight.projectId }]
      expect((await who.execute(caller)).rows).toMatchObject(inside)
      expect((await who.execute(db)).rows).toEqual(before)
      await expect(sql`select 1 / 0`.execute(caller)).rejects.toThrow(/division/)
      expect((await who.execute(db)).rows).toEqual(before)
      await caller.connection().execute(async (connection) => {
        await expect(sql`select 1 / 0`.execute(connection)).rejects.toThrow(/division/)
        expect((await who.execute(connection)).rows).toMatchObject(inside)
      })
      expect((await who.execute(db)).rows).toEqual(before)
      const failing = caller.transaction().execute(async (trx) => {
        expect((await who.execute(trx)).rows).toMatchObject(inside)
        throw new Error('given up')
      })
      await expect(failing).rejects.toThrow(/given up/)
      expect((await who.execute(db)).rows).toEqual(before)
    }
  })

  test('is begun once for what is read at once, and given back in between and in the end', async () => {
    const { db, admin } = await useDatabase()
    const reader = asTenant(db, { ...sightOf(newOwner(randomUUID())), purpose: 'read' })
    const begunAt = async () => {
      const { rows } = await sql<{ at: string }>`select now()::text as at`.execute(reader)
      return rows[0]?.at
    }
    const first = await begunAt()
    expect(await begunAt()).toBe(first)
    // However long the reading goes on, no transaction does.
    while ((await begunAt()) === first);
    const inTransaction = sql`
      select from pg_stat_activity where datname = current_database() and usename = 'purser_app' and xact_start is not null`
    await pollUntil(async () => (await inTransaction.execute(admin)).rows.length === 0, {
      what: 'the connection is given back',
    })
  })

  test('changes nothing for one who reads, and keeps a change once it is answered', async () => {
    const { db, admin } = await useDatabase()
    const mine = newOwner(randomUUID())
    const sight = operatorOf(mine)
    await sql`insert into organisation (id, name) values (${mine.organisation}, 'mine')`.execute(admin)
    const insert = sql`insert into project (id, organisation_id, name) values (${mine.project}, ${mine.organisation}, 'one')`
    await expect(insert.execute(asTenant(db, { ...sight, purpose: 'read' }))).rejects.toThrow(/read-only/)
    await insert.execute(asTenant(db, { ...sight, purpose: 'change' }))
    expect((await sql`select id from project`.execute(admin)).rows).toEqual([{ id: mine.project }])
  })
})
