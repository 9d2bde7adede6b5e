import { executeCall } from '#calls/execute.ts'
import { startEngine } from '#calls/start-engine.ts'
import { importCatalog } from '#db/catalog.ts'
import { finishRun } from '#db/run-end.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { expect, onTestFinished } from 'vitest'
import { makeTenant, startTestRun, type Tenant, type TestApi, usd } from './api.ts'
import { marginCatalog } from './margins.ts'
import { QUESTION } from './open-attempt.ts'
import { useSandbox } from './sandbox.ts'

/** A project with a finished run: one call sold above cost, one in another currency, and one at cost. */
export interface SoldRun {
  readonly tenant: Tenant
  readonly runId: string
  /** As paths name them. */
  readonly callIds: readonly string[]
}

export async function sellRun(api: TestApi): Promise<SoldRun> {
  await importCatalog(api.db, marginCatalog)
  const tenant = await makeTenant(api)
  const { walletId } = tenant
  const operator = { key: api.operatorKey }
  const cny = { amount: '10', currency: 'CNY' }
  await api.make('/api/v1/quotes', {
    ...operator,
    body: { sell: usd('1'), buy: { amount: '7.2', currency: 'CNY' }, source: 'test' },
  })
  await api.make('/api/v1/deposits', {
    ...operator,
    body: { walletId, balanceClass: 'direct', amount: cny, reference: 'yuan' },
  })
  const runId = await startTestRun(api, tenant, {
    envelope: {
      pockets: [
        { balanceClass: 'direct', amount: usd('1') },
        { balanceClass: 'direct', amount: cny },
      ],
    },
  })
  const callIds = await callModels(api, tenant, { runId, models: ['steady', 'abroad', 'plain'] })
  await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
  const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
  await finishRun(api.db, { projectId: tenant.projectId }, { runId, end, output: null })
  return { tenant, runId, callIds }
}

async function callModels(
  api: TestApi,
  tenant: Tenant,
  { runId, models }: { readonly runId: string; readonly models: readonly string[] },
): Promise<readonly string[]> {
  const sandbox = await useSandbox()
  const nowMs = () => Date.now()
  const provider = createOpenAiCompatible({ name: 'sandbox', baseUrl: sandbox.url, apiKey: 'sandbox-key', nowMs })
  const databaseUrl = api.database.appUrl
  const engine = await startEngine({ db: api.db, databaseUrl, kind: 'test', providers: [provider] })
  onTestFinished(() => engine.stop())
  const run = await api.db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirstOrThrow()
  const callIds: string[] = []
  for (const [index, model] of models.entries()) {
    const result = await executeCall(engine, {
      scope: { projectId: tenant.projectId },
      runId,
      envelopeId: run.envelope_id,
      apiKeyId: run.api_key_id,
      path: model,
      model,
      body: { messages: [{ role: 'user', content: QUESTION + ' Say when.'.repeat(index) }], maxTokens: 200 },
      mayRepeat: 1,
      signal: new AbortController().signal,
      deadlineMs: Date.now() + 540_000,
    })
    expect(result).toMatchObject({ kind: 'answered' })
    callIds.push(result.callId)
  }
  return callIds
}
