import { newId } from '#db/ids.ts'
import { sql, type Kysely, type RawBuilder } from 'kysely'
import { expect } from 'vitest'

/** A closed child, as 0012 left it: late truth has carved for it, and its pocket does not say so. */
export interface LateCarving {
  readonly scope: { readonly projectId: string }
  readonly childAccount: string
  readonly holdId: string
}

/** Opens, spends, closes and corrects with the functions as they are called at 0012. */
export async function carveLate(owner: Kysely<unknown>): Promise<LateCarving> {
  const ids = Array.from({ length: 12 }, () => newId(Date.now()))
  const [project, organisation, wallet, key, instance, run, root, child, call, hold, resolution, correction] = ids
  const items = (value: object) => sql`${JSON.stringify([value])}`
  const ask = async (statement: RawBuilder<unknown>) => (await statement.execute(owner)).rows
  const carving = { balance_class: 'direct', currency: 'USD', amount: 20 }
  await ask(sql`insert into organisation (id, name) values (${organisation}, 'old')`)
  await ask(sql`insert into project (id, organisation_id, name) values (${project}, ${organisation}, 'old')`)
  await ask(sql`insert into wallet (id, project_id) values (${wallet}, ${project})`)
  await ask(sql`insert into api_key (id, organisation_id, project_id, name, hint, hash)
    values (${key}, ${organisation}, ${project}, 'old', '', '\\x01')`)
  await ask(sql`insert into instance (id, kind, host, pid, lease_until)
    values (${instance}, 'test', 'here', 1, clock_timestamp() + interval '1 hour')`)
  await ask(sql`select deposit(${project}, ${wallet}, ${newId(Date.now())}, 'direct', 'USD', 1000, 'first')`)
  await ask(sql`select open_envelope(${project}, ${root}, ${run}, ${key}, 'run',
    ${items({ ...carving, id: newId(Date.now()), amount: 100 })}::jsonb)`)
  await ask(sql`insert into run (id, project_id, api_key_id, envelope_id, agent, model, input, options, state, started_at)
    values (${run}, ${project}, ${key}, ${root}, 'test', 'research', '{}', '{}', 'running', clock_timestamp())`)
  await ask(sql`select open_child(${project}, ${root}, ${child}, null, 'child',
    ${items({ ...carving, id: newId(Date.now()), cap: 30 })}::jsonb)`)
  await ask(sql`insert into call (id, project_id, run_id, envelope_id, api_key_id, path, digest, model, catalog_version,
      request_id)
    values (${call}, ${project}, ${run}, ${child}, ${key}, 'step', '', 'steady', 1, ${call})`)
  const { rows } = await sql<{ id: string }>`select id from account where envelope_id = ${child}`.execute(owner)
  const childAccount = rows[0]?.id ?? ''
  const attempt = { hold_id: hold, call_id: call, attempt: 1, amount: 20, tokens: 1 }
  const place = { ord: 0, project_id: project, account_id: childAccount, run_id: run, envelope_id: child, owner: call }
  await ask(sql`select post(${instance}, ${[childAccount]}::uuid[], null,
    ${items({ ...attempt, ...place, plan: { route: 'steady' } })}::json)`)
  const truth = { ...attempt, resolution_id: resolution, certainty: 'estimated', outcome: 'aborted' }
  expect(
    await ask(sql`select settle(${project}, ${childAccount}, ${JSON.stringify(truth)}::jsonb, false) as verdict`),
  ).toEqual([{ verdict: 'settled' }])
  expect(await ask(sql`select close_envelope(${project}, ${child}, 'test') as verdict`)).toEqual([
    { verdict: 'closed' },
  ])
  const late = { ...truth, correction_id: correction, debt_id: newId(Date.now()), amount: 28 }
  expect(
    await ask(sql`select correct(${project}, ${childAccount}, ${JSON.stringify(late)}::jsonb) as verdict`),
  ).toEqual([{ verdict: 'corrected' }])
  return { scope: { projectId: project ?? '' }, childAccount, holdId: hold ?? '' }
}
