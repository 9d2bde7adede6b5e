import { executeCall } from '#calls/execute.ts'
import { startEngine } from '#calls/start-engine.ts'
import { finishRun } from '#db/run-end.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { reportSchema } from '#contracts/report.ts'
import { makeTenant, startTestRun, text, usd, useApi } from '#test/support/api.ts'
import { useSandbox } from '#test/support/sandbox.ts'

const QUESTION =
  '<passage id="p1" source="a.md" title="A">The harbour of Quellim was dredged in 1847 by Mira Tandel.</passage>\n' +
  '<question>When was the harbour of Quellim dredged?</question>'

test('a call’s story, the report and the ledger of a run say the same of its money', async () => {
  const api = await useApi()
  const tenant = await makeTenant(api)
  const scope = { projectId: tenant.projectId }
  const runId = await startTestRun(api, tenant)
  const sandbox = await useSandbox()
  const provider = createOpenAiCompatible({
    name: 'sandbox',
    baseUrl: sandbox.url,
    apiKey: 'sandbox-key',
    nowMs: () => Date.now(),
  })
  const engine = await startEngine({
    db: api.db,
    databaseUrl: api.database.appUrl,
    kind: 'test',
    providers: [provider],
  })
  onTestFinished(() => engine.stop())
  const run = await api.db.selectFrom('run').selectAll().where('id', '=', runId).executeTakeFirstOrThrow()
  const result = await executeCall(engine, {
    scope,
    runId,
    envelopeId: run.envelope_id,
    apiKeyId: run.api_key_id,
    path: 'one',
    model: 'steady',
    body: { messages: [{ role: 'user', content: QUESTION }], maxTokens: 200 },
    mayRepeat: 1,
    signal: new AbortController().signal,
    deadlineMs: Date.now() + 540_000,
  })
  expect(result.kind).toBe('answered')
  await api.db.updateTable('run').set({ state: 'running', started_at: new Date() }).where('id', '=', runId).execute()
  const end = { state: 'completed', reason: 'finished', detail: 'Done.' } as const
  await finishRun(api.db, scope, { runId, end, output: null })

  const { key } = tenant
  const report = reportSchema.parse((await api.ask('GET', `/api/v1/runs/${runId}/report`, { key })).body)
  const calls = await api.ask('GET', `/api/v1/runs/${runId}/calls`, { key })
  expect(calls.body).toEqual({ calls: report.calls })
  const [call] = report.calls
  const story = await api.ask('GET', `/api/v1/calls/${call?.id}`, { key })
  expect(story.body).toMatchObject({
    runId,
    project: { id: tenant.projectId },
    apiKey: { id: tenant.keyId, hint: key.slice(0, 14) },
    asked: { model: 'steady' },
    served: { provider: 'sandbox', upstreamModel: 'sandbox-steady', route: 'steady' },
    paid: [{ balanceClass: 'direct', charged: call?.attempts[0]?.charged }],
    bound: { verdict: 'allowed' },
  })
  const ledger = await api.ask('GET', `/api/v1/runs/${runId}/ledger`, { key })
  const transfers = z.array(z.looseObject({ id: z.string(), code: z.string() })).parse(ledger.body['transfers'])
  expect(transfers.map((transfer) => transfer.code)).toEqual(['top_up', 'hold', 'capture', 'return'])
  expect(transfers).toEqual(
    expect.arrayContaining((call?.attempts[0]?.transfers ?? []).map((id) => expect.objectContaining({ id }))),
  )
  const spent = call?.attempts[0]?.charged
  expect((await api.ask('GET', `/api/v1/runs/${runId}`, { key })).body).toMatchObject({
    envelope: { pockets: [{ funded: usd('1.000000'), spent, held: usd('0.000000'), free: usd('0.000000') }] },
  })
  expect(text(story.body, 'projectId')).toBe(tenant.projectId)
})
