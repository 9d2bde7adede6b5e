import { limitsCrossed } from '#db/webhook-limit.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { figuresOf, spend, useHook } from '../support/limit-webhooks.ts'
import { createLimitWorld, type LimitWorld } from '../support/limits.ts'

const MANY = 5_000

test('a look reads the leases of windows of which something is untold, off their index, and no others', async () => {
  const world = await createLimitWorld()
  const webhookId = await useHook(world)
  const wide = { period: 'hour', cap: 1_000_000n } as const
  for (const thresholds of [[], [1], [1, 90]]) await world.limit({ ...wide, thresholds })
  await spend(await world.openEnvelope(), 10n)
  await world.admin.query('set session_replication_role = replica')
  await world.admin.query(
    `insert into lease (project_id, limit_id, measure, starts_at, envelope_id, leased, used)
      select $1, w.limit_id, 'money', w.starts_at, uuidv7(), 3, 2 from limit_window w, generate_series(1, ${MANY}) n`,
    [world.scope.projectId],
  )
  // Windows of long ago, and other projects with limits, windows and changes of their own.
  await world.admin.query(
    `insert into limit_window (limit_id, starts_at, ends_at)
      select w.limit_id, w.starts_at - n * interval '1 hour', w.ends_at - n * interval '1 hour'
      from limit_window w, generate_series(1, ${MANY}) n`,
  )
  await world.admin.query(
    `with made as (
        insert into usage_limit (id, organisation_id, project_id, scope, subject_id, measure, period, cap, thresholds)
          select uuidv7(), $1, uuidv7(), 'project', uuidv7(), 'calls', 'hour', 5, '{80}' from generate_series(1, ${MANY})
          returning *
      ), changed as (
        insert into limit_change (organisation_id, limit_id, change, cap, thresholds)
          select organisation_id, id, 'set', cap, thresholds from made
      )
      insert into limit_window (limit_id, starts_at, ends_at)
        select m.id, w.starts_at, w.ends_at from made m
        cross join (select distinct starts_at, ends_at from limit_window order by starts_at desc limit 3) w`,
    [world.organisationId],
  )
  await world.admin.query('analyze')
  const figures = [1, 2 * MANY + 10, 1_000_000]
  expect(await figuresOf(world, webhookId)).toEqual([figures, figures])
  const plan = await planOf(world, webhookId)
  // Of one window alone, though three have as many.
  expect(plan.filter((node) => node['Relation Name'] === 'lease')).toMatchObject([
    { 'Actual Loops': 1, 'Actual Rows': MANY + 1 },
  ])
  expect(plan.map((node) => node['Index Name'])).toContain('lease_of_window')
  expect(plan.map((node) => node['Index Name'])).toContain('usage_limit_with_thresholds')
  const scanned = plan.filter(({ 'Node Type': type }) => type === 'Seq Scan').map((node) => node['Relation Name'])
  for (const table of ['usage_limit', 'limit_window', 'limit_change', 'lease']) expect(scanned).not.toContain(table)
})

const nodeSchema = z.looseObject({ 'Node Type': z.string(), Plans: z.array(z.unknown()).default([]) })

/** The nodes of the plan by which a look was made. */
async function planOf(world: LimitWorld, webhookId: string): Promise<readonly z.infer<typeof nodeSchema>[]> {
  const { rows } = await sql<{ 'QUERY PLAN': unknown }>`
    explain (analyze, format json) ${limitsCrossed(webhookId)}`.execute(world.db)
  const [{ Plan: root }] = z.tuple([z.object({ Plan: z.unknown() })]).parse(rows[0]?.['QUERY PLAN'])
  const nodes = (node: unknown): z.infer<typeof nodeSchema>[] => {
    const parsed = nodeSchema.parse(node)
    return [parsed, ...parsed.Plans.flatMap(nodes)]
  }
  return nodes(root)
}
