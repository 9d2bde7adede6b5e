import type { AgentManifest } from '#contracts/agents.ts'
import { expect, test } from 'vitest'
import { makeTenant, runBody, usd, useApi } from '#test/support/api.ts'

const direct = { balanceClass: 'direct', amount: usd('1') }
const credit = { balanceClass: 'credit', amount: usd('1') }
const some = { least: 1, most: 1 }

/** It asks the dearest model for one of its steps, whatever its run asks for. */
const choosy: AgentManifest = {
  name: 'choosy',
  description: 'Writes with a model of its own choice.',
  input: { type: 'object' },
  plan: () => [{ path: 'write', model: 'steady', calls: some, inputTokens: some, outputTokens: some }],
}

test('a downgrade that offers nothing cheaper is refused as the run starts, and one that does is not', async () => {
  const api = await useApi({ agents: [choosy] })
  const { key } = await makeTenant(api)
  const start = async ({ to, pockets = [direct], ...change }: Readonly<Record<string, unknown>>) => {
    const choice = { onExhausted: 'downgrade', downgrade: { ...Object(to), then: 'cancel' }, envelope: { pockets } }
    return (await api.ask('POST', '/api/v1/runs', { key, body: runBody({ ...choice, ...change }) })).body
  }
  const vain = { status: 422, code: 'downgrade_not_cheaper' }
  const refused = await start({ model: 'research', to: { model: 'steady' } })
  expect(refused).toMatchObject({
    ...vain,
    detail: expect.stringContaining('steady'),
    remedy: expect.stringContaining('cheaper'),
  })
  expect(await start({ model: 'steady', to: { model: 'steady' } })).toMatchObject(vain)
  expect(await start({ model: 'research', to: { constraints: { providers: ['sandbox'] } } })).toMatchObject(vain)
  expect(await start({ model: 'research', to: { model: 'steady' }, dryRun: true })).toMatchObject(vain)
  expect(await api.db.selectFrom('run').select('id').execute()).toEqual([])

  const begun = { state: 'queued' }
  const onCredit = { constraints: { balanceClasses: ['credit'] } }
  expect(await start({ model: 'steady', to: { model: 'research' } })).toMatchObject(begun)
  expect(await start({ model: 'research', to: onCredit, pockets: [direct, credit] })).toMatchObject(begun)
  // What its agent's plan names counts as the run's own.
  const input = {}
  expect(await start({ model: 'research', to: { model: 'research' }, agent: 'choosy', input })).toMatchObject(begun)
})

test('a schedule of runs that would be refused for their downgrade is refused', async () => {
  const api = await useApi()
  const { key } = await makeTenant(api)
  const run = runBody({ onExhausted: 'downgrade', downgrade: { model: 'steady', then: 'pause' } })
  const answer = await api.ask('POST', '/api/v1/schedules', { key, body: { name: 'nightly', every: 3_600, run } })
  expect(answer).toMatchObject({ status: 422, body: { code: 'downgrade_not_cheaper' } })
})
